"""A mechanism as a textbook would draw it: what the fence `diagram` of its page says.

Below the slug each line is a box, or a frame if the lines below it stand further right:

    1 squeezed (B, C): Squeeze: mean of each channel
    2 reduce = excitation.0 excitation.1: Reduce: W_1 z, ReLU

That is the number of the step on the page, if any; a name; a star behind it if the box makes weights g(x)
and stands in no frame called g; after "=" what the module calls it, if not by this name; the shape of what
comes out, if it is to be shown; and the words in the box, a title first. A line named like an input, or
`output`, says what is written there.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from sitekit.errors import BuildError

LINE = re.compile(
    r"(?P<indent> *)(?:(?P<number>\d+) )?(?P<name>\w+)(?P<star>\*?)"
    r"(?: = (?P<claims>[\w.]+(?: [\w.]+)*))?(?: (?P<shape>\([^:]*\)))?:(?P<words>.*)"
)
TITLES = {"g": "g(x)", "f": "f"}
"""What is written in these frames if the page does not say."""


@dataclass(frozen=True)
class Line:
    """One line of the fence: a box, or a frame around the boxes whose `frame` is its name."""

    name: str
    words: str
    number: str = ""
    star: bool = False
    claims: tuple[str, ...] = ()
    shape: str = ""
    frame: str | None = None


@dataclass(frozen=True)
class Idea:
    """The boxes and frames of one fence, in its order."""

    boxes: list[Line]
    frames: list[Line]


def read(text: str) -> Idea:
    """Return what a fence says below its first line.

    Raises:
        BuildError: a line is not understood, or a name is used twice.
    """
    idea = Idea([], [])
    lines = [line for line in text.splitlines() if line.strip()]
    frame = None
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        found = LINE.fullmatch(line)
        if found is None:
            raise BuildError(f"'{line.strip()}' must be 'number name = code (shape): words'")
        name, is_frame = found["name"], following.startswith(" ") and not found["indent"]
        if name in {other.name for other in [*idea.boxes, *idea.frames]}:
            raise BuildError(f"'{name}' must be the name of one line")
        frame = frame if found["indent"] else None
        words = found["words"].strip() or TITLES.get(name, "")
        claims = tuple((found["claims"] or name).split())
        one = Line(
            name, words, found["number"] or "", bool(found["star"]), claims, found["shape"] or "", frame
        )
        (idea.frames if is_frame else idea.boxes).append(one)
        frame = name if is_frame else frame
    return idea


def amount(shape: str, sizes: dict[str, int]) -> int | None:
    """Return how many numbers a tensor of the shape `(B, 2C, H+W, C/r)` holds, None if it is no shape."""
    known = {"N": sizes.get("H", 1) * sizes.get("W", 1), **sizes}
    symbols = sorted(map(re.escape, known), key=len, reverse=True)
    factor = re.compile("|".join([r"\d+", *symbols]))
    total = Fraction(1)
    for axis in shape.strip("()").split(","):
        size = Fraction(0)
        for term in axis.split("+"):
            if factor.sub("", term).strip("/· "):
                return None
            above, *below = [
                math.prod(known.get(one) or int(one) for one in factor.findall(part))
                for part in term.split("/")
            ]
            size += Fraction(above, math.prod(below))
        total *= size
    return int(total)
