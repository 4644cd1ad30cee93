"""What the code itself calls an operation: the names one passes on the way to it.

In `gates = self.excitation(squeezed)` of `attention`, the first linear layer has the trail
`attention gates excitation 0`: functions and methods, submodules, and the variables assigned to.
"""

import ast
import sys
from collections.abc import Mapping
from functools import cache
from types import FrameType
from typing import Any

from torch import nn


def trail(paths: Mapping[nn.Module, str], files: frozenset[str], last: str) -> tuple[str, ...]:
    """Return the names from the outermost to `last`, the name of the operation itself.

    Args:
        paths: of the submodules; the module itself has the path "".
        files: those whose functions and variables count.
    """
    names: list[str] = []
    inside: list[str] = []  # the path of the submodule reached so far
    for frame in reversed(_stack()):
        owner = frame.f_locals.get("self")
        path = paths.get(owner, "").split(".") if isinstance(owner, nn.Module) and owner in paths else []
        if path not in ([], [""], inside):
            shared = next((i for i, (a, b) in enumerate(zip(path, inside, strict=False)) if a != b), None)
            names += path[len(inside) if shared is None else shared :]
            inside = path
        if frame.f_code.co_filename in files:
            own = frame.f_code.co_name
            names += [] if own.startswith("<") else [own]
            names += _assigned(frame.f_code.co_filename).get(frame.f_lineno, ())
    return tuple(names if last in names[-1:] else [*names, last])


def _stack() -> list[FrameType]:
    frames = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


@cache
def _assigned(file: str) -> dict[int, tuple[str, ...]]:
    """Return the names that the statement at each line of a file assigns to."""
    with open(file, encoding="utf-8") as source:
        tree = ast.parse(source.read())
    found: dict[int, tuple[str, ...]] = {}
    for statement in ast.walk(tree):
        names: tuple[str, ...] = ()
        match statement:
            case ast.Assign(targets=targets):
                names = tuple(name for target in targets for name in _names(target))
            case ast.AnnAssign(target=target) | ast.AugAssign(target=target) | ast.For(target=target):
                names = tuple(_names(target))
        if names and isinstance(statement, ast.stmt):
            end = statement.lineno if isinstance(statement, ast.For) else statement.end_lineno
            found |= dict.fromkeys(range(statement.lineno, (end or statement.lineno) + 1), names)
    return found


def _names(target: Any) -> list[str]:
    if isinstance(target, ast.Tuple):
        return [name for part in target.elts for name in _names(part)]
    return [target.id] if isinstance(target, ast.Name) else []
