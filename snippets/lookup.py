"""From a name to the file of a mechanism. Needs no torch."""

import ast
import re
from pathlib import Path

from .catalogue import CATALOGUE, Mechanism, UnknownMechanismError, find, fold

FOLDER = Path(__file__).parent


def source(row: Mechanism) -> Path:
    """File of a mechanism."""
    return FOLDER / f"{row.path}.py"


def code(row: Mechanism) -> str:
    """Text of this file."""
    return source(row).read_text(encoding="utf-8")


def titles(row: Mechanism) -> list[str]:
    """Titles of the papers that the module names, the first of them being its own."""
    papers = re.split(
        r"\n(?:Code|Differs):", (ast.get_docstring(ast.parse(code(row))) or "").partition("Paper:")[2]
    )[0]
    return re.findall(r'"([^"]+)"', papers)


def named(name: str) -> Mechanism:
    """Return the mechanism with this slug, title or alias, or the one of the paper with this title.

    Raises:
        UnknownMechanismError: the name is unknown, or several modules come from the paper.

    >>> named("Squeeze-and-Excitation Networks").slug
    'senet'
    """
    try:
        return find(name)
    except UnknownMechanismError:
        papers = {row.slug: [fold(title) for title in titles(row)] for row in CATALOGUE.values()}
    found = [slug for slug, (first, *_) in papers.items() if first == fold(name)]
    found = found or [slug for slug, known in papers.items() if fold(name) in known]
    if not found:
        return find(name)
    if len(found) > 1:
        raise UnknownMechanismError(f"several modules name this paper: {', '.join(sorted(found))}")
    return CATALOGUE[found[0]]
