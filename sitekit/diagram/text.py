"""How wide a text is, and where to break it, without a browser."""

WIDTHS = {
    0.24: "ijl|'",
    0.30: "ftI.,:;!/ ()[]-·r\u00a0",
    0.50: "ckszvxyJ",
    0.61: "ABEKPSVXYFTZ+−×÷=<>≤≥√∞",
    0.73: "CDHNRUwGOQ",
    0.85: "mM",
    0.95: "W→",
}
"""Ems of a sans-serif font in the manner of Helvetica; all other characters are as wide as a digit."""
DIGIT = 0.57
SAFETY = 1.06
"""Other sans-serif fonts are wider."""

_EMS = {character: ems for ems, characters in WIDTHS.items() for character in characters}


def width(text: str, size: float) -> float:
    """Return the width of a text (pixels) in a font of `size` pixels."""
    return SAFETY * size * sum(_EMS.get(character, DIGIT) for character in text)


def wrap(text: str, size: float, limit: float) -> list[str]:
    """Break a text at blanks into lines of about even width, none above `limit` unless one word is."""
    words = text.split(" ")
    lines = _filled(words, size, limit)
    while len(lines) > 1 and limit > size:
        tighter = _filled(words, size, limit - size / 2)
        if len(tighter) > len(lines):
            break
        lines, limit = tighter, limit - size / 2
    return lines


def _filled(words: list[str], size: float, limit: float) -> list[str]:
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        if width(longer, size) <= limit:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
