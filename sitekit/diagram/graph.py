"""What a diagram shows, before anything has a place."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Step:
    """One box of the diagram.

    Attributes:
        label: what is done, in the field's words.
        shape: what comes out, in symbols.
        inputs: indices of the steps it reads.
        lane: index of the lane it belongs to, None if it is part of f.
        learned: whether it has parameters.
    """

    kind: Literal["input", "step", "output"]
    label: str
    shape: str
    inputs: tuple[int, ...] = ()
    lane: int | None = None
    learned: bool = False


@dataclass(frozen=True)
class Graph:
    """The steps in the order they ran, the names of the lanes, and what N stands for if it is used."""

    title: str
    steps: list[Step]
    lanes: list[str]
    note: str | None = None
