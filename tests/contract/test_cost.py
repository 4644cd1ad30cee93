"""The formulas of the catalogue equal what is counted on the running code."""

import contextlib
import dataclasses
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sitekit import cost, store
from sitekit.errors import BuildError
from snippets.catalogue import CATALOGUE, State
from tests.contract.walker import load, slug


@pytest.mark.usefixtures("counted")
def test_formulas_equal_the_counts(name: str) -> None:
    """Compared where they are counted, once for tests and site."""
    assert len(store.results(CATALOGUE[slug(name)]).rows) >= 3


@pytest.mark.parametrize("wrong", [{"parameters": "C**2"}, {"macs": "2*B*C**2/r + H"}])
def test_a_wrong_formula_is_refused(wrong: dict[str, str]) -> None:
    mechanism = dataclasses.replace(CATALOGUE["senet"], **wrong)
    with pytest.raises(BuildError, match="counted"):
        cost.rows(mechanism, load(mechanism.module))


class Recall(nn.Module):
    """Keeps all that it read, its sum, and at which position it is."""

    def attention(self, x: Tensor) -> Tensor:
        return torch.ones(x.shape[0], x.shape[1], x.shape[1]).tril()

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1)

    def step(
        self, x: Tensor, state: tuple[Tensor, Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        B, T, E = x.shape
        read, total, position = state or (x[:, :0], x.new_zeros(B, 1, E), torch.zeros(B, dtype=torch.long))
        y = total + x.cumsum(1)
        return y, (torch.cat([read, x], dim=1), y[:, -1:], position + T)


def example(B: int = 2, T: int = 3, E: int = 5) -> tuple[nn.Module, tuple[Tensor, ...]]:
    return Recall(), (torch.ones(B, T, E),)


RECALL: Any = SimpleNamespace(example=example)
GATE = load(CATALOGUE["senet"].module)


@pytest.mark.parametrize(
    ("module", "state", "message"),
    [
        (RECALL, State("E", "E"), None),
        (RECALL, State("E"), "the state per sequence formula '0' gives 0 at B=2, T=3, E=5, counted 5"),
        (RECALL, State("5", "E"), "the state per token formula '5' gives 5 at B=2, T=3, E=10, counted 10"),
        (RECALL, None, "needs a state, for snippets/.*py has `step`"),
        (GATE, State("E"), "has a state, but snippets/.*py has no `step`"),
        (GATE, None, None),
    ],
)
def test_the_state_of_a_decoder_is_counted(
    module: ModuleType, state: State | None, message: str | None
) -> None:
    free = {"parameters": "0", "macs": "0"} if module is RECALL else {}
    mechanism = dataclasses.replace(CATALOGUE["senet"], state=state, **free)
    with pytest.raises(BuildError, match=message) if message else contextlib.nullcontext():
        cost.rows(mechanism, module)
