"""Finds every mechanism: each module below `snippets` that defines `example`.

A case is a mechanism as `example` builds it, named by its module, or one of its `variants`, named by the
module, a colon and the name of the variant.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import snippets
from sitekit.cost import streams

PACKAGE = Path(snippets.__path__[0])


def _source(name: str) -> Path:
    return PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")


MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(snippets.__path__, "snippets.")
    if not info.ispkg and "\ndef example(" in _source(info.name).read_text()
)


def source(name: str) -> Path:
    """File of the module with this import name."""
    return _source(name)


def load(name: str) -> ModuleType:
    """Import the module with this name."""
    return importlib.import_module(name)


def sizes(name: str) -> dict[str, int]:
    """Symbols of `example` and their default sizes."""
    module, _, _ = name.partition(":")
    return {key: p.default for key, p in inspect.signature(load(module).example).parameters.items()}


Case = tuple[nn.Module, tuple[Tensor, ...]]


def build(name: str, **wanted: int) -> Case:
    """Build a case with those of the wanted sizes that its mechanism knows."""
    module, _, variant = name.partition(":")
    known = {key: size for key, size in wanted.items() if key in sizes(name)}
    case: Case = load(module).variants(**known)[variant] if variant else load(module).example(**known)
    return case


CASES = [
    case
    for module in MODULES
    for case in (module, *(f"{module}:{variant}" for variant in getattr(load(module), "variants", dict)()))
]


def reads_on(case: str) -> bool:
    """Whether `step` can read what the case is called with: tokens, a source if there is `start`, no mask."""
    module, inputs = build(case)
    return hasattr(module, "step") and len(streams(module, inputs)[0]) == 1


READERS = [case for case in CASES if reads_on(case)]


def slug(case: str) -> str:
    """Last part of the module's name, and the variant: `senet`, `non_local:dot_product`."""
    return case.rpartition(".")[2]


def cast(inputs: tuple[Tensor, ...], to: torch.dtype | torch.device | str) -> tuple[Tensor, ...]:
    """Move floating-point inputs to a dtype, or all inputs to a device."""
    if isinstance(to, torch.dtype):
        return tuple(x.to(to) if x.is_floating_point() else x for x in inputs)
    return tuple(x.to(to) for x in inputs)


def pads(case: str) -> bool:
    """Whether `step` takes a mask that tells tokens from padding, and the case is called without one."""
    module: Any
    module, inputs = build(case)
    return case in READERS and len(inputs) == 1 and "mask" in inspect.signature(module.step).parameters


RECURRENT = [case for case in READERS if pads(case)]
