"""What a reader can move: `explore(say)` runs the module of a figure on many inputs and returns one of these.

A tensor holds what is shown for each choice of the reader: its last two dimensions are what is seen at once,
the others say for which choice. It is stored in 8 bits, each (H, W) from zero to its own largest number.
Numbers in tuples are stored to four digits.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from figures.style import WEIGHT_MAP

GREY = "gray"
SIGNED = "berlin"  # blue, black at zero, red


@dataclass(frozen=True)
class Photograph:
    """A picture that the reader points at, (3, H, W) in [0, 1]; it shows no result and is stored as JPEG."""

    pixels: Tensor


@dataclass(frozen=True)
class Field:
    """Numbers shown as colours.

    Attributes:
        title: above the field.
        values: (..., H, W).
        colours: a colour map, from zero to the largest number; SIGNED is needed for numbers below zero.
        root: whether the colour follows the square root, so that small numbers are seen.
        top: the number with the last colour; that of each (H, W) is its own largest if it is zero.
    """

    title: str
    values: Tensor
    colours: str = WEIGHT_MAP
    root: bool = False
    top: float = 0.0


@dataclass(frozen=True)
class Query:
    """Point at a position of a photograph, and its row of g(x) lights up.

    Attributes:
        photograph: what is pointed at.
        fields: (H * W, H, W), a row for each position; (1, H, W) if it is the same for all.
        start: row and column.
    """

    photograph: Photograph
    fields: tuple[Field, ...]
    start: tuple[int, int]


@dataclass(frozen=True)
class Matrix:
    """Point at a cell: its row says what a token reads, its column who reads it.

    Attributes:
        rows: tokens that read.
        columns: tokens that are read.
        fields: (T, S), one for each head or whatever else can be chosen.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Mask:
    """Switch masks on and off, and see who attends to whom.

    Attributes:
        tokens: they read each other.
        switches: names of the masks.
        fields: weights and mask, (2, ..., 2, T, T), one dimension for each switch, off and on.
        on: the switches that are on at first.
    """

    tokens: tuple[str, ...]
    switches: tuple[str, ...]
    fields: tuple[Field, ...]
    on: tuple[bool, ...]


@dataclass(frozen=True)
class Slider:
    """One of the settings; `values` are what it reads at each stop."""

    name: str
    values: tuple[str, ...]
    start: int


@dataclass(frozen=True)
class Dial:
    """Turn one, two or three settings.

    Attributes:
        sliders: the settings.
        fields: (stops of each slider, ..., H, W); of height 1 for bars.
        labels: below bars, one for each.
    """

    sliders: tuple[Slider, ...]
    fields: tuple[Field, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gate:
    """Choose a picture, switch gates off and see the map.

    Attributes:
        pictures: their names.
        gates: names of the gates; a gate that is off lets everything pass.
        fields: (pictures, 2, ..., 2, H, W), one dimension for each gate, off and on, or 1 if it has no part.
        numbers: value of each gate for each picture; empty if they are maps.
    """

    pictures: tuple[str, ...]
    gates: tuple[str, ...]
    fields: tuple[Field, ...]
    numbers: tuple[tuple[float, ...], ...]


def combined(masks: Sequence[Tensor]) -> Tensor:
    """Return what all masks allow that are on, for each choice of them: (T, S) each -> (2, ..., 2, T, S)."""
    choices = itertools.product((False, True), repeat=len(masks))
    allowed = [
        torch.stack([mask | (not on) for mask, on in zip(masks, choice, strict=True)]) for choice in choices
    ]
    return torch.stack(allowed).all(dim=1).view(*[2] * len(masks), *masks[0].shape)
