"""Diagrams that a page describes and a forward pass confirms, so that they cannot drift from the code."""

import importlib
from functools import cache

import torch
from torch import Tensor, nn

from sitekit import fenced, paths
from sitekit.diagram import shapes
from sitekit.diagram.fold import fold
from sitekit.diagram.graph import Graph
from sitekit.diagram.hold import hold
from sitekit.diagram.idea import Idea, read
from sitekit.diagram.names import Names, example_sizes
from sitekit.diagram.record import record
from sitekit.diagram.shapes import Say
from sitekit.errors import BuildError, explain, fail
from snippets.catalogue import CATALOGUE

MOST_STEPS = 24
"""Above this many, submodules defined in the snippet are drawn as one step each, then steps are folded."""


def make(slug: str, say: Say) -> str:
    """Return the diagram that the page of a mechanism describes, and what ran, folded, as HTML.

    What ran stands alone where the page only names the mechanism.

    Raises:
        BuildError: as `trace`, or the page describes what did not run.
    """
    ran = shapes.render(_example(slug), say)
    _, _, body = fenced.body("diagram", CATALOGUE[slug].path, say(*paths.LANGUAGES)).partition("\n")
    if not body.strip():
        return ran
    try:
        picture = shapes.render(drawn(slug, read(body)), say, shapes.NARROW_PHONE)
    except BuildError as error:
        fail(f"diagram of {slug}: {error}", f"```diagram\n{slug}\n")
    summary = say("Every operation, as the example ran in eval mode", "示例在 eval 模式下实际运行的全部运算")
    return f'{picture}<details class="atlas-ran"><summary>{summary}</summary>{ran}</details>'


def drawn(slug: str, idea: Idea) -> Graph:
    """Return the boxes of an idea with the arrows of a forward pass in training.

    Raises:
        BuildError: as `hold`.
    """
    module = importlib.import_module(CATALOGUE[slug].module)
    sizes = example_sizes(module)
    block, inputs = module.example()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ran = record(block.train(), inputs, Names(sizes), fine=True)
    return hold(idea, ran, sizes)


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
