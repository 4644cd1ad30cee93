"""The modules to be carried over: each mechanism as `example` builds it, and its variants."""

import importlib
import inspect
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from sitekit.fingerprint import fingerprint
from snippets.catalogue import Mechanism

ROOT = Path(__file__).parents[1]
EXAMPLE = "example"


def load(row: Mechanism) -> ModuleType:
    """Import the module of a mechanism."""
    return importlib.import_module(row.module)


def source(row: Mechanism) -> str:
    """Hash of the module: what was measured holds for this code."""
    return fingerprint([ROOT / "snippets" / f"{row.path}.py"])


def sizes(row: Mechanism) -> dict[str, int]:
    """Symbols of `example` and their usual sizes."""
    parameters = inspect.signature(load(row).example).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def names(row: Mechanism) -> list[str]:
    """`example` and the names of the variants."""
    return [EXAMPLE, *getattr(load(row), "variants", dict)()]


def build(row: Mechanism, name: str, wanted: dict[str, int]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A module and its inputs at the wanted sizes."""
    module, inputs = load(row).example(**wanted) if name == EXAMPLE else load(row).variants(**wanted)[name]
    return module, inputs


def axes(inputs: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> list[set[int]]:
    """For each input, the axes along which the other one has another length."""
    return [
        {axis for axis in range(a.dim()) if a.shape[axis] != b.shape[axis]}
        for a, b in zip(inputs, others, strict=True)
    ]
