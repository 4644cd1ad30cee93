"""What is written down of a family."""

import re
from collections.abc import Mapping
from typing import Any

from census.kept import kept
from census.patterns import used

_YEAR = re.compile(r"^#.*?\b(?:Copyright|©).*?\b((?:19|20)\d\d)\b", re.MULTILINE)


def family(name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return year, mechanisms, and what a decoder of the family keeps in its default configuration.

    >>> family("toy", {"modeling_toy.py": "# Copyright 2024 Toys\\nself.sinks = nn.Parameter(empty(4))"})
    {'year': 2024, 'uses': ['sink']}
    """
    row = {"year": year(texts), "uses": used("\n".join(texts.values()))}
    keeps = kept(name, texts)
    return row | ({"keeps": keeps} if keeps else {})


def year(texts: Mapping[str, str]) -> int | None:
    """Return the earliest year that a heading comment names: that of the port, not of the paper."""
    found = [int(year) for text in texts.values() for year in _YEAR.findall(text)]
    return min(found, default=None)
