"""How wide a text is, and where to break it, without a browser."""

import re

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
DIGIT, HAN = 0.57, 1.0
SAFETY = 1.06
"""Other sans-serif fonts are wider."""

BREAK = re.compile(r"(?<= )|(?<=[一-鿿，；：、）])(?![，；：、）。 ])|(?<![ （])(?=[一-鿿（])")
"""Where a line may end: after a blank; beside a Chinese letter, but not before a stop or inside a bracket."""

_EMS = {character: ems for ems, characters in WIDTHS.items() for character in characters}


def width(text: str, size: float) -> float:
    """Return the width of a text (pixels) in a font of `size` pixels."""
    return SAFETY * size * sum(_ems(character) for character in text)


def _ems(character: str) -> float:
    return HAN if is_han(character) else _EMS.get(character, DIGIT)


def is_han(character: str) -> bool:
    """Whether a character is as wide as it is high: Chinese letters and punctuation."""
    return "\u3000" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef"


def wrap(text: str, size: float, limit: float) -> list[str]:
    """Break a text into lines of about even width, none above `limit` unless one word is."""
    words = [word for word in BREAK.split(text) if word]
    lines = _filled(words, size, limit)
    while len(lines) > 1 and limit > size:
        tighter = _filled(words, size, limit - size / 2)
        if len(tighter) > len(lines):
            break
        lines, limit = tighter, limit - size / 2
    return [line.rstrip(" ") for line in lines]


def _filled(words: list[str], size: float, limit: float) -> list[str]:
    lines = [words[0]]
    for word in words[1:]:
        if width((lines[-1] + word).rstrip(" "), size) <= limit:
            lines[-1] += word
        else:
            lines.append(word)
    return lines
