"""What running a mechanism yields: the parts that its page shows. Needs no torch."""

import dataclasses
from collections.abc import Mapping
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
    """Everything that the pages show of one mechanism and that only running it can tell.

    Attributes:
        figure_svg: the figure, empty if the mechanism has no figure file.
        diagram_svg: the dataflow diagram.
        inputs: shape of each input in symbols, e.g. `("(B, C, H, W)",)`.
        attention: shape of each tensor of g(x), likewise.
        outputs: shape of each tensor of f(g(x), x), likewise.
        parameters_tex: formula of the number of parameters.
        macs_tex: formula of the multiply-adds.
        state_tex: formulas of what a decoder keeps, per token and per sequence; empty if it keeps nothing.
        rows: measured costs, the sizes of `example` first.
    """

    figure_svg: str
    diagram_svg: str
    inputs: tuple[str, ...]
    attention: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters_tex: str
    macs_tex: str
    state_tex: tuple[str, ...]
    rows: tuple[CostRow, ...]


def to_json(results: Results) -> dict[str, Any]:
    """Return `results` as plain JSON values."""
    return dataclasses.asdict(results)


def from_json(values: Mapping[str, Any]) -> Results:
    """Return the results that `to_json` made `values` of."""
    tuples = {name: tuple(values[name]) for name in ("inputs", "attention", "outputs", "state_tex")}
    return Results(**{**values, **tuples, "rows": tuple(CostRow(**row) for row in values["rows"])})
