"""What a block does in a network of yours: measured on each module that turns a feature map into another.

New blocks of the sizes of the example say what happens at the start, what is refused and whether the layout
counts; a block built as its row says, what it costs on a map of 256 channels.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sitekit.cost import tensors
from sitekit.diagram.names import example_sizes
from sitekit.errors import BuildError
from sitekit.results import GATE, IDENTITY, OTHER, DropIn
from snippets.catalogue import CATALOGUE

CHANNELS, SIDES = 256, (14, 32)
SEEDS = range(5)
OPEN, NEAR = 10.0, 0.01
"""A bias that opens a sigmoid, and how near the identity the block then comes."""

Pairs = list[tuple[nn.Module, Tensor]]


def make(slug: str) -> dict[str, Any]:
    """Measure a mechanism; nothing if it is a foundation or does not turn a map into a map."""
    mechanism = CATALOGUE[slug]
    module = importlib.import_module(mechanism.module)
    if mechanism.weights is None or not takes_a_map(module):
        return {}
    code = mechanism.drop_in or f"{type(module.example()[0]).__name__}(C)"
    try:
        counted = counts(module, code)
    except TypeError as error:
        raise BuildError(f"snippets/catalogue.py: the drop_in of {slug}, `{code}`, fails: {error}") from error
    found = DropIn(
        **start(module),
        one_sample=accepts(module, lambda x: x[:1], training=True),
        other_sizes=accepts(module, lambda x: F.pad(x, (0, 4) * (x.dim() - 2)), training=False),
        layout=sees_layout(module),
        code=re.sub(r"\bC\b", str(CHANNELS), code),
        **counted,
    )
    return dataclasses.asdict(found)


def takes_a_map(module: ModuleType) -> bool:
    """Whether the block turns one feature map (B, C, ...) into another."""
    block, (x, *more) = module.example()
    if more or x.dim() < 4:
        return False
    y = block(x)
    return isinstance(y, Tensor) and y.shape[2:] == x.shape[2:]


@torch.no_grad()
def start(module: ModuleType) -> dict[str, Any]:
    """Say what a new block does: the identity, a gate that multiplies, or something else.

    Returns the attributes `start`, `moves`, `names` and `bias` of `DropIn`.
    """
    training = [(x, block.train()(x)) for block, x in new_blocks(module)]
    pairs = [(x, block(x)) for block, x in new_blocks(module)]
    every = pairs + training
    if any(x.shape != y.shape for x, y in every):
        return {"start": OTHER}
    if all(torch.equal(x, y) for x, y in every):
        return {"start": IDENTITY, "moves": 0.0, "names": zeros(new_blocks(module))}
    if all(bool((y / x > 0).all()) for x, y in every):
        names, bias = opening(new_blocks(module))
        factor = sum((y / x).mean().item() for x, y in pairs) / len(pairs)
        return {"start": GATE, "moves": factor, "names": names, "bias": bias}
    moved = sum(((y - x).norm() / x.norm()).item() for x, y in pairs) / len(pairs)
    return {"start": OTHER, "moves": moved}


def new_blocks(module: ModuleType) -> Pairs:
    """Return fresh blocks as their constructor leaves them, of the size of the example, and normal maps."""
    with _constructed(type(module.example()[0])) as calls:
        block, (x,) = module.example()
    args, options = calls[0]
    pairs = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        pairs.append((type(block)(*args, **options).eval(), torch.randn_like(x)))
    return pairs


def zeros(pairs: Pairs) -> list[str]:
    """Return the parameters that are zero and end the identity as soon as they alone are one."""
    block, x = pairs[0]
    found = []
    for name, parameter in block.named_parameters():
        if not parameter.any():
            nn.init.ones_(parameter)
            if not torch.equal(block(x), x):
                found.append(name)
            nn.init.zeros_(parameter)
    return found


def opening(pairs: Pairs) -> tuple[list[str], float]:
    """Return the one or two smallest biases that bring every block near the identity, and their value."""
    biases = {name: p.numel() for name, p in pairs[0][0].named_parameters() if name.endswith("bias")}
    choices = [names for count in (1, 2) for names in combinations(biases, count)]
    for names in sorted(choices, key=lambda names: (len(names), sum(biases[name] for name in names))):
        for value in (OPEN, -OPEN):
            if all(_near(block, x, names, value) for block, x in pairs):
                return list(names), value
    return [], 0.0


def accepts(module: ModuleType, changed: Callable[[Tensor], Tensor], training: bool) -> bool:
    """Whether the block of the example takes its input so changed."""
    block, (x,) = module.example()
    try:
        block.train(training)(changed(x))
    except ValueError:
        return False
    return True


@torch.no_grad()
def sees_layout(module: ModuleType) -> bool:
    """Whether shuffled positions do more than shuffle the output."""
    block, (x,) = module.example()
    order = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled, y = block(x.flatten(2)[:, :, order].view_as(x)), block(x)
    return not torch.allclose(shuffled.flatten(2), y.flatten(2)[:, :, order], atol=1e-4)


@torch.no_grad()
def counts(module: ModuleType, code: str) -> dict[str, Any]:
    """Count parameters, multiply-adds at each side, weights at the last; nothing if it takes no such map."""
    sizes = example_sizes(module)
    if list(module.example()[1][0].shape) != [sizes.get(name) for name in "BCHW"]:
        return {}
    macs = []
    for side in SIDES:
        block = eval(code, dict(vars(module)), {"C": CHANNELS, "H": side, "W": side}).eval()
        weights = block.attention(x := torch.randn(1, CHANNELS, side, side))
        with FlopCounterMode(display=False) as counter:
            block.to("meta")(x.to("meta"))
        macs.append(counter.get_total_flops() // 2)
    parameters = sum(parameter.numel() for parameter in block.parameters())
    return {"parameters": parameters, "macs": macs, "weights": sum(t.numel() for t in tensors(weights))}


def _near(block: nn.Module, x: Tensor, names: tuple[str, ...], value: float) -> bool:
    before = {name: block.get_parameter(name).clone() for name in names}
    for name in names:
        nn.init.constant_(block.get_parameter(name), value)
    near = bool((block(x) / x - 1).abs().max() < NEAR)
    for name, old in before.items():
        block.get_parameter(name).copy_(old)
    return near


@contextmanager
def _constructed(block: type[nn.Module]) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """Collect the arguments with which blocks of this class are constructed."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    construct = block.__init__

    def record(self: nn.Module, *args: Any, **options: Any) -> None:
        calls.append((args, options))
        construct(self, *args, **options)

    block.__init__ = record  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        block.__init__ = construct  # type: ignore[method-assign]
