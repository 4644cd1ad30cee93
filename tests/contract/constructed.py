"""What the constructors of a snippet were called with, and how the modules looked right after."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor, nn


@dataclass
class Construction:
    """One call of a constructor: what it made, all arguments by name, and the state that it left."""

    made: nn.Module
    arguments: dict[str, Any]
    state: dict[str, Tensor]

    @property
    def kind(self) -> type[nn.Module]:
        """Class of what was made."""
        return type(self.made)

    def annotated(self, *types: object) -> dict[str, Any]:
        """Arguments whose parameters are annotated with one of the types, or with it and None."""
        wanted = {*types, *(kind | None for kind in types)}  # type: ignore[operator]
        parameters = inspect.signature(self.kind).parameters
        return {
            name: value
            for name, value in self.arguments.items()
            if parameters[name].annotation in wanted and value is not None
        }

    def again(self, **changed: object) -> nn.Module:
        """Construct once more, with some arguments changed."""
        return self.kind(**self.arguments | changed)

    def part_of(self, module: nn.Module) -> bool:
        """Whether what was made is the module or stands in it."""
        return any(part is self.made for part in module.modules())


def classes(module: ModuleType) -> list[type[nn.Module]]:
    """Classes that the module defines itself."""
    return [
        found
        for found in vars(module).values()
        if inspect.isclass(found) and issubclass(found, nn.Module) and found.__module__ == module.__name__
    ]


@contextmanager
def recorded(module: ModuleType) -> Iterator[list[Construction]]:
    """Meanwhile, note each module that is constructed from a class of the snippet."""
    found: list[Construction] = []
    originals = {kind: kind.__init__ for kind in classes(module) if "__init__" in vars(kind)}

    def watch(kind: type[nn.Module]) -> None:
        original = originals[kind]

        def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            if type(self).__init__ is init:  # not the constructor of a base class
                bound = inspect.signature(original).bind(self, *args, **kwargs)
                bound.apply_defaults()
                arguments = dict(list(bound.arguments.items())[1:])
                state = {key: value.detach().clone() for key, value in self.state_dict().items()}
                found.append(Construction(self, arguments, state))

        kind.__init__ = init  # type: ignore[method-assign]

    for kind in originals:
        watch(kind)
    try:
        yield found
    finally:
        for kind, original in originals.items():
            kind.__init__ = original  # type: ignore[method-assign]
