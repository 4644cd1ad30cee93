"""What a decoder keeps, in bytes and in words, from the rows of docs/census.json."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from sitekit.language import Language

Row = Mapping[str, Any]

BYTES = 2
"""Of a number in a cache: 16 bits."""

STATE_BYTES = 4
"""Of a number in a state, which is computed in 32 bits."""

_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def per_token(rows: Iterable[Row]) -> float:
    """Return the bytes that each further token adds.

    >>> per_token([{"kind": "compressed", "layers": 20, "numbers": 640, "every": 4}])
    6400.0
    """
    grows = (row for row in rows if row["kind"] not in ("window", "state"))
    return float(sum(row["layers"] * row["numbers"] * BYTES / row.get("every", 1) for row in grows))


def constant(rows: Iterable[Row]) -> int:
    """Return the bytes that no token adds to: states, and windows that are full.

    >>> constant([{"kind": "window", "layers": 18, "numbers": 1024, "window": 128}])
    4718592
    """
    return sum(row["layers"] * _fixed(row) for row in rows)


def _fixed(row: Row) -> int:
    if row["kind"] == "state":
        return int(row["numbers"] * STATE_BYTES)
    return int(row["numbers"] * row.get("window", 0) * BYTES)


def size(count: float) -> str:
    """Return bytes in three digits.

    >>> size(70272), size(307200), size(4718592), size(0)
    ('68.6 KiB', '300 KiB', '4.50 MiB', '–')
    """
    if not count:
        return "–"
    unit, name = next((pair for pair in _UNITS if count >= pair[0] * 0.9995), (1, "B"))
    value = count / unit
    digits = 0 if unit == 1 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{digits}f} {name}"


def layers(rows: Sequence[Row], language: Language) -> str:
    """Return how many layers keep what.

    >>> from sitekit.language import ENGLISH
    >>> layers([{"kind": "window", "layers": 18, "window": 128}, {"kind": "full", "layers": 6}], ENGLISH)
    '18 window of 128, 6 full'
    """
    return escape(language.separator.join(_words(row, language) for row in rows))


def _words(row: Row, language: Language) -> str:
    shown = {name: row.get(name) for name in ("layers", "window", "every")}
    return language.word(f"keeps {row['kind']}", **shown)
