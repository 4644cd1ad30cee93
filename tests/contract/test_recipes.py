"""What `plug-in-recipes.md` says a new block does to a trained network is what new blocks do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snippets.catalogue import CATALOGUE
from tests.conftest import ROOT
from tests.contract.walker import load

LANGUAGES = ("en", "zh")
KINDS = ("identity", "gates", "others")  # ids of the page's tables
SEEDS = range(5)


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


def new_blocks(name: str) -> list[tuple[nn.Module, Tensor]]:
    """Fresh blocks of the size of `example`, as their constructor leaves them, and standard normal maps."""
    block, inputs = load(name).example()
    with _constructed(type(block)) as calls:
        load(name).example()
    args, options = calls[0]
    pairs = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        pairs.append((type(block)(*args, **options).eval(), torch.randn_like(inputs[0])))
    return pairs


def takes_a_map(name: str) -> bool:
    """Whether the block turns one feature map (B, C, ...) into another."""
    block, inputs = load(name).example()
    if len(inputs) != 1 or inputs[0].dim() < 4:
        return False
    output = block(inputs[0])
    return isinstance(output, Tensor) and output.shape[2:] == inputs[0].shape[2:]


BLOCKS = {
    row.slug: row.module
    for row in CATALOGUE.values()
    if row.path.startswith("attention_domain/") and takes_a_map(row.module)
}


@torch.no_grad()
def start(slug: str) -> tuple[str, float]:
    """Kind of the new block, and its figure: the factor of a gate, |y - x| / |x| of others."""
    pairs = [(x, block(x)) for block, x in new_blocks(BLOCKS[slug])]
    pairs += [(x, block.train()(x)) for block, x in new_blocks(BLOCKS[slug])]
    if any(x.shape != y.shape for x, y in pairs):
        return "others", float("nan")
    if all(torch.equal(x, y) for x, y in pairs):
        return "identity", 0.0
    evaluated = pairs[: len(SEEDS)]
    if all(bool((y / x > 0).all()) for x, y in pairs):
        return "gates", sum((y / x).mean().item() for x, y in evaluated) / len(SEEDS)
    return "others", sum(((y - x).norm() / x.norm()).item() for x, y in evaluated) / len(SEEDS)


def table(language: str, kind: str) -> dict[str, list[str]]:
    """Cells of each row of the page's table under the heading with this id, by slug."""
    text = (ROOT / "docs" / language / "plug-in-recipes.md").read_text()
    section = text.split(f"{{#{kind}}}\n")[1].split("\n#")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| [")]
    return {re.findall(r"/([\w-]+)\.md", row[0])[0].replace("-", "_"): row[1:] for row in rows}


@pytest.mark.parametrize("slug", BLOCKS)
def test_block_stands_in_the_right_table(slug: str) -> None:
    kind, figure = start(slug)
    for language in LANGUAGES:
        found = {place: table(language, place)[slug] for place in KINDS if slug in table(language, place)}
        assert list(found) == [kind], f"{language}: {slug} belongs to the table {kind}, with {figure:.2f}"
        printed = found[kind][0].strip()
        if figure != figure:  # another shape
            assert printed == "–"
        elif kind != "identity":
            assert float(printed) == pytest.approx(figure, abs=0.01)


def test_tables_list_nothing_else() -> None:
    for language in LANGUAGES:
        assert {slug for kind in KINDS for slug in table(language, kind)} == set(BLOCKS)


def named(cells: list[str]) -> list[str]:
    """Parameters named in a row."""
    return re.findall(r"`([\w.]+)`", "".join(cells))


@pytest.mark.parametrize("slug", table("en", "identity"))
@torch.no_grad()
def test_identity_hangs_on_the_named_parameters(slug: str) -> None:
    assert named(table("zh", "identity")[slug]) == named(table("en", "identity")[slug]) != []
    for block, x in new_blocks(BLOCKS[slug]):
        for name in named(table("en", "identity")[slug]):
            parameter = block.get_parameter(name)
            assert not parameter.any()
            nn.init.ones_(parameter)
        assert not torch.allclose(block(x), x)


@pytest.mark.parametrize("slug", table("en", "gates"))
@torch.no_grad()
def test_named_biases_open_the_gates(slug: str) -> None:
    cells = table("en", "gates")[slug]
    assert named(table("zh", "gates")[slug]) == named(cells)
    for block, x in new_blocks(BLOCKS[slug]):
        for name in named(cells):
            nn.init.constant_(block.get_parameter(name), -10.0 if "−10" in cells[-1] else 10.0)
        near = (block(x) / x - 1).abs().max() < 0.01
        assert near if named(cells) else not near
