"""Finds every mechanism: each module below `snippets` that defines `example`."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

import snippets

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
    return {key: p.default for key, p in inspect.signature(load(name).example).parameters.items()}


def build(name: str, **wanted: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Run `example` with those of the wanted sizes that it knows."""
    known = sizes(name)
    module, inputs = load(name).example(**{key: size for key, size in wanted.items() if key in known})
    return module, inputs


def cast(inputs: tuple[Tensor, ...], to: torch.dtype | torch.device | str) -> tuple[Tensor, ...]:
    """Move floating-point inputs to a dtype, or all inputs to a device."""
    if isinstance(to, torch.dtype):
        return tuple(x.to(to) if x.is_floating_point() else x for x in inputs)
    return tuple(x.to(to) for x in inputs)
