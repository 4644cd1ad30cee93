"""What the guides say of blocks for feature maps is measured; here the measuring itself is tested."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sitekit import dropin, store
from sitekit.errors import BuildError
from snippets.catalogue import CATALOGUE
from tests.contract.walker import slug


class Gate(nn.Module):
    """Multiplies by a sigmoid, plus `base`, of two biases and of the mean of each channel."""

    def __init__(self, base: float = 0.0) -> None:
        super().__init__()
        self.base = base
        self.weight = nn.Parameter(torch.ones(1))
        self.wide_bias, self.bias = nn.Parameter(torch.zeros(4, 1, 1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        score = self.weight * x.mean((2, 3), keepdim=True) + self.wide_bias + self.bias
        return (self.base + score.sigmoid()) * x


class Added(nn.Module):
    """Adds the map turned by a quarter, times `gamma`; refuses single samples and other sizes."""

    def __init__(self, gamma: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.gamma = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.full((1,), gamma))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] != 3 or len(x) < 2:
            raise ValueError("no")
        return x + self.gamma * (x.mT + self.hidden)


def module(block: type[nn.Module], *arguments: float) -> Any:
    def example(B: int = 2, C: int = 4, H: int = 3) -> tuple[nn.Module, tuple[Tensor, ...]]:
        return block(*arguments), (torch.randn(B, C, H, H),)

    return SimpleNamespace(example=example, Added=Added, Gate=Gate)


def test_the_identity_and_what_ends_it() -> None:
    assert dropin.start(module(Added)) == {"start": "identity", "moves": 0.0, "names": ["gamma"]}


def test_a_gate_and_the_smallest_bias_that_opens_it() -> None:
    found = dropin.start(module(Gate))
    assert (found["start"], found["names"], found["bias"]) == ("gate", ["bias"], 10.0)
    assert found["moves"] == pytest.approx(0.5, abs=0.1)


def test_a_gate_that_a_bias_shuts_to_the_identity() -> None:
    found = dropin.start(module(Gate, 1.0))
    assert (found["start"], found["names"], found["bias"]) == ("gate", ["bias"], -10.0)


def test_whatever_else_moves_the_map() -> None:
    found = dropin.start(module(Added, 1.0))
    assert found["start"] == "other"
    assert found["moves"] == pytest.approx(1.0, abs=0.1)


def test_what_is_refused_and_seen() -> None:
    for block, expected in ((Gate, True), (Added, False)):
        assert dropin.accepts(module(block), lambda x: x[:1], training=True) is expected
        assert dropin.accepts(module(block), lambda x: x[:, :, :2, :2], training=False) is expected
    assert not dropin.sees_layout(module(Gate))
    assert dropin.sees_layout(module(Added, 1.0))


@pytest.mark.usefixtures("counted")
def test_every_block_can_be_built_as_its_row_says(name: str) -> None:
    """Maps of any number of channels; the others have nothing to count."""
    found = store.drop_in(CATALOGUE[slug(name)])
    assert not found or found.parameters is None or len(found.macs) == len(dropin.SIDES)


def test_a_row_that_builds_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dataclasses.replace(CATALOGUE["psanet"], drop_in="")
    monkeypatch.setattr(dropin, "CATALOGUE", {"psanet": wrong})
    with pytest.raises(BuildError, match=r"the drop_in of psanet, `PointwiseSpatialAttention\(C\)`, fails"):
        dropin.make("psanet")


KNOWN = {
    "senet": ("gate", ["excitation.2.bias"]),
    "cbam": ("gate", ["channel_gate.mlp.2.bias", "spatial_gate.norm.bias"]),
    "global_context": ("identity", ["transform.3.weight", "transform.3.bias"]),
    "sknet": ("other", ()),
}


@pytest.mark.parametrize("known", KNOWN)
def test_blocks_that_the_recipes_speak_of(known: str) -> None:
    found = dropin.make(known)
    assert (found["start"], found["names"]) == KNOWN[known]
