"""Dataflow diagrams drawn from a forward pass as it runs, so that they cannot drift from the code."""

import importlib
from functools import cache

import torch
from torch import Tensor, nn

from sitekit.diagram import shapes
from sitekit.diagram.fold import fold
from sitekit.diagram.graph import Graph
from sitekit.diagram.names import Names, example_sizes
from sitekit.diagram.record import record
from sitekit.diagram.shapes import Say
from sitekit.errors import BuildError, explain
from snippets.catalogue import CATALOGUE

MOST_STEPS = 24
"""Above this many, submodules defined in the snippet are drawn as one step each, then steps are folded."""


def make(slug: str, say: Say) -> str:
    """Return the dataflow of a mechanism's example as inline SVG without script and without ids.

    Raises:
        BuildError: as `trace`.
    """
    return shapes.render(_example(slug), say)


@cache
def _example(slug: str) -> Graph:
    """Return the steps of a mechanism's example, the same in all languages."""
    module = importlib.import_module(CATALOGUE[slug].module)
    block, inputs = module.example()
    return trace(block, inputs, example_sizes(module))


def trace(module: nn.Module, inputs: tuple[Tensor, ...], sizes: dict[str, int]) -> Graph:
    """Return the steps of `module(*inputs)`.

    Args:
        module: the block, in eval mode.
        inputs: the tensors it is called with.
        sizes: what each symbol stands for, `{"B": 2, "C": 64, ...}`; shapes are printed in these.

    Raises:
        BuildError: the forward pass fails, or its output cannot be followed back to an input.
    """
    names = Names(sizes)
    title = type(module).__name__
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found = record(module, inputs, names)
            if len(found.steps) > MOST_STEPS:
                found = record(module, inputs, names, coarse=True)
            if len(found.steps) > MOST_STEPS:
                found = fold(found)
    except Exception as error:
        raise BuildError(f"no diagram of {title}: {explain(error)}") from error
    if not any(step.kind == "input" for step in found.steps):
        raise BuildError(f"no diagram of {title}: its output cannot be followed back to an input")
    return found
