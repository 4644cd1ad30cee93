"""What the body of a fence names, or an error that says where and what was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches

from sitekit.errors import fail
from snippets.catalogue import CATALOGUE, Mechanism


def mechanism_named(name: str) -> Mechanism:
    """Return the mechanism of this slug.

    Raises:
        BuildError: no row of the catalogue has the slug.
    """
    return CATALOGUE[chosen("mechanism", name.strip(), CATALOGUE)]


def chosen(kind: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is one of `known`.

    Raises:
        BuildError: it is not; names the nearest.
    """
    names = list(known)
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
        fail(f"unknown {kind} '{name}'; {hint}", name)
    return name
