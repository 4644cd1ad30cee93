"""What proofs measure: limits that NaN does not keep, records that can be read."""

import json
import math

import pytest
import torch

from tests.conftest import written
from tests.measure import Figure, Limit, Measured, summary

LIMITS = [
    {"above": 0},
    {"at_least": 0},
    {"below": 1},
    {"at_most": 1},
    {"equals": 0},
    {"equals": 0, "within": 1},
]


@pytest.mark.parametrize("limit", LIMITS)
def test_nan_keeps_no_limit(limit: dict[str, float]) -> None:
    assert not Limit(**limit).kept(math.nan)
    with pytest.raises(AssertionError, match="change = nan is not "):
        Measured().value("change", math.nan, **limit)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_in_any_gradient_is_noticed(place: int) -> None:
    x = [torch.ones(2, requires_grad=True) for _ in range(3)]
    factor = [torch.ones(2) for _ in range(3)]
    factor[place] = torch.tensor([1, math.nan])
    output = sum((x * f for x, f in zip(x, factor, strict=True)), torch.zeros(2))
    with pytest.raises(AssertionError, match="nan"):
        Measured().gradients(output, sum(x, torch.zeros(2)), x)


@pytest.mark.parametrize("limit", [{}, {"within": 1}, {"equals": 1, "above": 0}, {"below": 1, "within": 0.1}])
def test_a_limit_says_one_thing(limit: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one or two bounds, or equals"):
        Limit(**limit)


@pytest.mark.parametrize(
    ("limit", "kept", "broken"),
    [
        ({"above": 1}, 1.1, 1),
        ({"at_least": 1}, 1, 0.9),
        ({"below": 1}, 0.9, 1),
        ({"at_most": 1}, 1, 1.1),
        ({"above": 1, "at_most": 2}, 2, 1),
        ({"equals": 3}, 3, 3.001),
        ({"equals": 3, "within": 0.5}, 2.5, 3.6),
    ],
)
def test_limits(limit: dict[str, float], kept: float, broken: float) -> None:
    assert Limit(**limit).kept(kept)
    assert not Limit(**limit).kept(broken)


def test_runs_of_a_proof_share_a_line_only_if_they_share_the_limit() -> None:
    """A loose limit of one run must not stand beside the figure of another."""
    runs = [("max |Δ|", 1e-15, 1e-10), ("max |Δ|", 3e-7, 1e-5), ("max |Δ|", 2e-15, 1e-10)]
    lines = summary(Figure(name, value, Limit(at_most=limit)) for name, value, limit in runs)
    assert [(line["measured"], line["limit"]) for line in lines] == [
        ("2e-15", "≤ 1e-10"),
        ("3e-07", "≤ 1e-05"),
    ]


def test_a_record_has_a_figure_a_line() -> None:
    lines = summary([Figure("a {b}", 1, Limit(at_most=2)), Figure("", 3, Limit(equals=3))])
    proofs = {"toy": {"torch": "2", "proofs": {"test_b": lines, "test_a": lines}}}
    text = written(proofs)
    assert json.loads(text) == proofs
    assert text.count('"limit"') == sum('"limit"' in line for line in text.splitlines()) == 4
