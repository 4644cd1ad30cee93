"""What `which-one.md` says of costs and constraints is measured anew; the page names the code."""

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from snippets.catalogue import CATALOGUE
from tests.conftest import ROOT
from tests.contract.test_recipes import BLOCKS, LANGUAGES
from tests.contract.walker import load

CHANNELS = 256
SIDES = (14, 32)
NOT_COUNTED = {
    "temporal_adaptive": "takes clips",
    "canet": "is a whole network for pictures",
}


def section(language: str) -> str:
    """Text under the heading of the cost table."""
    text = (ROOT / "docs" / language / "which-one.md").read_text()
    return text.split("{#table}\n")[1].split("\n## ")[0]


def table(language: str) -> dict[str, list[str]]:
    """Cells of each row of the cost table, by slug."""
    rows = [line.strip("|").split("|") for line in section(language).splitlines() if line.startswith("| [")]
    return {
        re.findall(r"/([\w-]+)\.md", row[0])[0].replace("-", "_"): [cell.strip() for cell in row[1:]]
        for row in rows
    }


def constructor(language: str, slug: str) -> str:
    """Code that makes the block: the one below the table, or else its class with the channels alone."""
    name = type(load(BLOCKS[slug]).example()[0]).__name__
    return next(
        iter(re.findall(rf"`({name}\([^`]+\))`", " ".join(section(language).split()))), f"{name}({CHANNELS})"
    )


def build(slug: str, side: int) -> nn.Module:
    """Run the constructor in the namespace of the module."""
    code = constructor("en", slug)
    block: nn.Module = eval(code, dict(vars(load(BLOCKS[slug]))), {"H": side, "W": side})
    return block.eval()


def figure(number: float) -> str:
    """Three digits, but whole numbers from 1,000."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def count(slug: str) -> list[str]:
    """Parameters, millions of multiply-adds at both sizes, and weights at the larger, as printed."""
    macs = []
    for side in SIDES:
        block = build(slug, side)
        x = torch.randn(1, CHANNELS, side, side)
        with torch.no_grad():
            weights = block.attention(x)
        with FlopCounterMode(display=False) as counter:
            block.to("meta")(x.to("meta"))
        macs.append(counter.get_total_flops() / 2e6)
    tensors = weights if isinstance(weights, tuple) else (weights,)
    parameters = sum(parameter.numel() for parameter in block.parameters())
    return [f"{parameters:,}", *map(figure, macs), f"{sum(t.numel() for t in tensors):,}"]


@torch.no_grad()
def sees_layout(slug: str) -> bool:
    """Whether shuffled positions do more than shuffle the output."""
    block, (x,) = load(BLOCKS[slug]).example()
    order = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled, y = block(x.flatten(2)[:, :, order].view_as(x)), block(x)
    return not torch.allclose(shuffled.flatten(2), y.flatten(2)[:, :, order], atol=1e-4)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_block_for_maps_is_counted(language: str) -> None:
    assert set(table(language)) == set(BLOCKS) - set(NOT_COUNTED)
    assert set(NOT_COUNTED) <= set(CATALOGUE)


@pytest.mark.parametrize("slug", table("en"))
def test_counts_are_those_of_the_code(slug: str) -> None:
    counted = count(slug)
    for language in LANGUAGES:
        assert table(language)[slug][:-1] == counted
        assert constructor(language, slug) == constructor("en", slug)


@pytest.mark.parametrize("slug", table("en"))
def test_layout_is_seen_as_listed(slug: str) -> None:
    listed = [table(language)[slug][-1] for language in LANGUAGES]
    assert listed == (["yes", "是"] if sees_layout(slug) else ["no", "否"])


def listed(row: int) -> list[set[str]]:
    """Blocks linked in a row of the table of constraints, in each language."""
    found = []
    for language in LANGUAGES:
        text = (ROOT / "docs" / language / "which-one.md").read_text()
        lines = text.split("{#constraints}\n")[1].split("\n#")[0].splitlines()
        rows = [line for line in lines if line.startswith("| ")][1:]
        found.append(
            {slug.replace("-", "_") for slug in re.findall(r"domain/[\w-]+/([\w-]+)\.md", rows[row])}
        )
    return found


def refuse(changed: Callable[[Tensor], Tensor], training: bool) -> set[str]:
    """Blocks that raise an error for the input of their example so changed."""
    refusing = set()
    for slug, module in BLOCKS.items():
        block, (x,) = load(module).example()
        try:
            block.train(training)(changed(x))
        except ValueError:
            refusing.add(slug)
    return refusing


def test_blocks_that_cannot_train_on_one_sample() -> None:
    refusing = refuse(lambda x: x[:1], training=True)
    assert listed(0) == [refusing, refusing]


def test_blocks_made_for_one_size() -> None:
    refusing = refuse(lambda x: F.pad(x, (0, 4, 0, 4, *[0, 4] * (x.dim() - 4))), training=False)
    assert listed(1) == [refusing, refusing]
