"""Sizes of an example, as text."""

from collections.abc import Mapping
from itertools import groupby

from sitekit.results import Results


def sizes(choice: Mapping[str, int]) -> str:
    """Return sizes as text; neighbours of the same size share it.

    >>> sizes({"C": 64, "H": 14, "W": 14})
    'C = 64, H = W = 14'
    """
    groups = groupby(choice.items(), key=lambda item: item[1])
    return ", ".join(f"{' = '.join(name for name, _ in items)} = {size}" for size, items in groups)


def varied(results: Results) -> set[str]:
    """Return the symbols whose sizes are not the same in all rows."""
    first, *others = results.rows
    return {name for name, size in first.sizes.items() if any(row.sizes[name] != size for row in others)}
