"""What is measured: a module and its input, with a public twin of the same weights where there is one."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import signature

import torch
from torch import Tensor, nn

from snippets.catalogue import CATALOGUE

SIDES = {"H": 36, "W": 40}  # of the map where the module's own example is measured


@dataclass(frozen=True)
class Pair:
    """A snippet and its public twin.

    Attributes:
        public: where the twin comes from, e.g. "torch.nn.MultiheadAttention".
        ours: the module of the snippet.
        theirs: the twin, with the weights of `ours`; returns the output alone. None if there is none.
        inputs: what both are called with.
    """

    public: str
    ours: nn.Module
    theirs: Callable[..., Tensor] | None
    inputs: tuple[Tensor, ...]

    def check(self) -> None:
        """Refuse to compare what does not compute the same.

        Raises:
            ValueError: the outputs differ by more than rounding.
        """
        if self.theirs is None:
            return
        with torch.no_grad():
            torch.manual_seed(0)  # the same noise for both
            ours = self.ours(*self.inputs)
            torch.manual_seed(0)
            theirs = self.theirs(*self.inputs)
        check_same(self.public, ours, theirs)


def check_same(name: str, ours: Tensor, theirs: Tensor) -> None:
    """Refuse outputs that differ.

    Raises:
        ValueError: they differ by more than rounding.
    """
    off = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if not off < 1e-4:
        raise ValueError(f"{name} computes something else: outputs differ by {off:.1e}")


def alone(slug: str) -> Pair:
    """Return the example of a mechanism without a twin, on a larger map than on its page."""
    example = import_module(CATALOGUE[slug].module).example
    known = signature(example).parameters
    block, inputs = example(**{axis: side for axis, side in SIDES.items() if axis in known})
    return Pair("none", block, None, inputs)


def in_order(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    """Copy the state of `ours` into `theirs`, entry by entry in the order of their definition."""
    pairs = zip(theirs.state_dict().items(), ours.state_dict().values(), strict=True)
    theirs.load_state_dict({key: tensor.view_as(old) for (key, old), tensor in pairs})
    return theirs.train(ours.training)
