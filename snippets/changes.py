"""What differs between two modules: their code, without docstrings, example and what follows it."""

from collections.abc import Iterator
from difflib import SequenceMatcher, unified_diff

from .catalogue import Mechanism
from .docstrings import without_docstrings
from .lookup import code

MOST = 50
"""Lines that a short difference takes away or adds."""
LEAST = 1 / 3
"""Share of lines that two modules have in common, for their difference to teach more than the modules."""


def changes(old: Mechanism, new: Mechanism) -> Iterator[str]:
    """Yield the lines of the unified diff that makes `new` of `old`."""
    names = f"{old.slug}.py", f"{new.slug}.py"
    yield from unified_diff(_computed(old), _computed(new), *names, lineterm="")


def short_changes(old: Mechanism, new: Mechanism) -> list[str]:
    """Return the lines of this diff if it is short enough to teach, else none."""
    lines = list(changes(old, new))
    changed = sum(line.startswith(("+", "-")) for line in lines[2:])
    return lines if changed <= MOST and kinship(old, new) >= LEAST else []


def kinship(old: Mechanism, new: Mechanism) -> float:
    """Return the share of lines that two modules have in common."""
    return SequenceMatcher(None, _computed(old), _computed(new), autojunk=False).ratio()


def _computed(row: Mechanism) -> list[str]:
    text, _, _ = without_docstrings(code(row)).partition("\ndef example(")
    return text.rstrip().splitlines()
