"""What is counted of a mechanism when it runs. Needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CostRow:
    """What one forward pass at one choice of sizes costs.

    Attributes:
        sizes: value of each symbol of `example`.
        parameters: number of parameters.
        macs: multiply-adds of matrix products and convolutions.
        weights: number of attention weights, the elements of g(x).
    """

    sizes: Mapping[str, int]
    parameters: int
    macs: int
    weights: int


@dataclass(frozen=True)
class Results:
    """What pages show of one mechanism and only running it can tell.

    Attributes:
        inputs: shape of each input in symbols, e.g. `("(B, C, H, W)",)`.
        attention: shape of each tensor of g(x), likewise.
        outputs: shape of each tensor of f(g(x), x), likewise.
        parameters_tex: formula of the number of parameters.
        macs_tex: formula of the multiply-adds.
        state_tex: formulas of what a decoder keeps, per token and per sequence; empty if it keeps nothing.
        javascript: the same formulas as JavaScript, by kind.
        rows: measured costs, the sizes of `example` first.
    """

    inputs: tuple[str, ...]
    attention: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters_tex: str
    macs_tex: str
    state_tex: tuple[str, ...]
    javascript: Mapping[str, str]
    rows: tuple[CostRow, ...]


IDENTITY, GATE, OTHER = "identity", "gate", "other"


@dataclass(frozen=True)
class DropIn:
    """What a block for feature maps does in a network, measured; sizes as in sitekit.dropin.

    Attributes:
        start: what a new block does: the IDENTITY, a GATE that multiplies, or OTHER.
        one_sample: whether it trains on a single sample.
        other_sizes: whether it takes maps of other sizes than it was built for.
        layout: whether shuffled positions do more than shuffle the output.
        code: how the block was built that is counted.
        moves: mean factor of a gate, |y - x| / |x| of others; None if the shape changes.
        names: parameters that alone end the identity, or biases that open the gate.
        bias: at what value these open it.
        parameters: their number; None if the block does not take maps of any number of channels.
        macs: multiply-adds on the smaller and the larger map.
        weights: number of attention weights on the larger map.
    """

    start: str
    one_sample: bool
    other_sizes: bool
    layout: bool
    code: str
    moves: float | None = None
    names: Sequence[str] = ()
    bias: float = 0.0
    parameters: int | None = None
    macs: Sequence[int] = ()
    weights: int = 0


def from_json(values: Mapping[str, Any]) -> Results:
    """Return the results of plain JSON values."""
    tuples = {name: tuple(values[name]) for name in ("inputs", "attention", "outputs", "state_tex")}
    return Results(**{**values, **tuples, "rows": tuple(CostRow(**row) for row in values["rows"])})
