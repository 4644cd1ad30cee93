"""What a diagram shows, before anything has a place."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Step:
    """One box of the diagram.

    Attributes:
        label: what is done, in the field's words; empty if numbers are only rearranged.
        shape: what comes out, in symbols.
        inputs: indices of the steps it reads.
        lane: index of the lane it belongs to, None if it stands outside of all.
        learned: whether it has parameters.
        number: of the step on the page that it shows.
        weighs: whether it makes weights g(x) in a lane of another kind.
        size: how many numbers come out.
        title: what it is called, above the label.
        trail: what the code calls it, see sitekit.diagram.trail.
    """

    kind: Literal["input", "step", "output"]
    label: str
    shape: str
    inputs: tuple[int, ...] = ()
    lane: int | None = None
    learned: bool = False
    number: str = ""
    weighs: bool = False
    size: int = 0
    title: str = ""
    trail: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lane:
    """A border around steps.

    Attributes:
        name: what is written in its corner; how often it runs, as in "Encoder, N ×", goes into another.
        kind: whether it makes the weights g(x).
        number: of the step on the page that it shows.
    """

    name: str
    kind: Literal["g", "part"] = "g"
    number: str = ""


@dataclass(frozen=True)
class Graph:
    """The steps in the order they ran, the lanes, and what N stands for if it is used."""

    title: str
    steps: list[Step]
    lanes: list[Lane]
    note: str | None = None
