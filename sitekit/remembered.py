"""Results of functions of text, kept from build to build under all that they depend on."""

import hashlib
from collections.abc import Callable
from typing import Any

from sitekit import entries

KIND = "remembered"

_all: list["Remembered"] = []


class Remembered:
    """Results under one name; those that the last build asked for are kept."""

    def __init__(self, name: str, code: object) -> None:
        """Read what is there, unless it comes from other code; `code` says from which, versions included."""
        self._name, self._code = name, _hash(code)
        self._kept: dict[str, Any] = entries.read(KIND, name, self._code) or {}
        self._asked: dict[str, Any] = {}
        _all.append(self)

    def get(self, function: Callable[..., Any], *given: object) -> Any:
        """Return what a function gives for this, as JSON has it."""
        key = _hash(given)
        if key not in self._asked:
            self._asked[key] = self._kept[key] if key in self._kept else function(*given)
        return self._asked[key]

    def keep(self) -> None:
        """Write what was asked for, unless it is what was read."""
        if self._asked.keys() != self._kept.keys():
            entries.write(KIND, self._name, self._code, self._asked, 0)


def keep() -> None:
    """Keep all that this build asked for."""
    for remembered in _all:
        remembered.keep()


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
