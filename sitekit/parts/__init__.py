"""The parts of a page: ```` ```card ```` with a slug as body becomes a card.

Each file here is one part and registers itself under the name of its fence. The body is one slug unless the
part says otherwise.
"""

import importlib
import pkgutil
from collections.abc import Callable

from sitekit.language import Language

Part = Callable[[str, Language], str]  # of the body of the fence; returns HTML

PARTS: dict[str, Part] = {}  # by the name of the fence

_made: dict[tuple[str, str, Language], str] = {}


def part(name: str) -> Callable[[Part], Part]:
    """Register a function as the part that a fence of this name becomes."""

    def register(function: Part) -> Part:
        PARTS[name] = function
        return function

    return register


def make(name: str, body: str, language: Language) -> str:
    """Return a part of a page that is read, and have it at hand for `again`."""
    html = _made[name, body, language] = PARTS[name](body, language)
    return html


def again(name: str, body: str, language: Language) -> str:
    """Return a part for the plain copy of a page: as it was made when the page was read, once."""
    made = _made.pop((name, body, language), None)
    return PARTS[name](body, language) if made is None else made


for file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{file.name}")
