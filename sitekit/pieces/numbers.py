"""Counts for readers."""

from sitekit.pieces.elements import element

_EXACT = 100_000
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def short(count: int) -> str:
    """Return a count in at most three digits and a prefix; small ones exactly.

    >>> short(12345), short(123456), short(7_550_000_000)
    ('12,345', '123 k', '7.55 G')
    """
    if count < _EXACT:
        return f"{count:,}"
    size, prefix = next(pair for pair in _PREFIXES if count >= pair[0] * 0.9995)
    value = count / size
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {prefix}"


def counted(count: int) -> str:
    """Return a count as HTML; where it is rounded, the exact one is its title."""
    return element("span", short(count), title=f"{count:,}") if count >= _EXACT else short(count)
