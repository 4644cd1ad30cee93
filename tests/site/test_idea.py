"""The boxes that a page describes are held against what the module runs."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sitekit import diagram, fenced
from sitekit.diagram import opened
from sitekit.diagram.graph import Graph
from sitekit.diagram.hold import hold
from sitekit.diagram.idea import amount, read
from sitekit.diagram.names import Names
from sitekit.diagram.record import record
from sitekit.diagram.shapes import NARROW_PHONE, fitted, render
from sitekit.diagram.text import width, wrap
from sitekit.errors import BuildError
from sitekit.language import ENGLISH, LANGUAGES, Language
from snippets.catalogue import CATALOGUE

SIZES = {"B": 2, "C": 8, "H": 6, "W": 5, "r": 2}


class Gate(nn.Module):
    """One gate, twice in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.excite = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8))

    def attention(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3))
        gates: Tensor = self.excite(squeezed).sigmoid()
        return gates[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = x * self.attention(x)
        return x


IDEA = """
again: Again, 2 ×
  1 squeezed (B, C): Squeeze: mean
  2 reduce = excite.0 excite.1 (B, C/r): W_1, ReLU
  2 gates* (B, C): W_2, sigmoid
  3 scale = x.mul (B, C, H, W): × x
"""


def held(idea: str) -> Graph:
    with torch.no_grad():
        ran = record(Gate(), (torch.rand(2, 8, 6, 5),), Names(SIZES), fine=True)
    return hold(read(idea), ran, SIZES)


def test_boxes_have_the_arrows_of_what_ran() -> None:
    graph = held(IDEA)
    shown = [(step.number, step.title, step.label, step.shape, step.inputs) for step in graph.steps]
    assert shown == [
        ("", "", "x", "(B, C, H, W)", ()),
        ("1", "Squeeze", "mean", "(B, C)", (0,)),
        ("2", "", "W_1, ReLU", "(B, C/r)", (1,)),
        ("2", "", "W_2, sigmoid", "(B, C)", (2,)),
        ("3", "", "× x", "(B, C, H, W)", (0, 3)),
        ("", "", "f(g(x), x)", "(B, C, H, W)", (4,)),
    ]
    assert [step.learned for step in graph.steps] == [False, False, True, True, False, False]
    assert [step.weighs for step in graph.steps] == [False, False, False, True, False, False]
    assert [step.lane for step in graph.steps] == [None, 0, 0, 0, 0, None]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gates*", "gate*", r"attention gates excite 2' must belong to one box, not to none"),
        (
            "x.mul",
            "x.mul squeezed",
            r"squeezed mean' must belong to one box, not \['squeezed', 'scale'\]",
        ),
        ("  3 scale", "  3 more: more\n  3 scale", "'more' must name something that ran"),
        ("(B, C/r)", "(B, C)", r"\(B, C\) of 'reduce' must hold as many numbers as \(B, C/r\)"),
        ("(B, C/r)", "(B, Q)", r"\(B, Q\) of 'reduce' must hold as many numbers as"),
        ("again:", "again = x y", "must be 'number name = code"),
        ("2 reduce", "2 squeezed", "'squeezed' must be the name of one line"),
        ("again: Again, 2 ×\n", "", "must be 'number|'Squeeze' reads '× x', which must stand above it"),
    ],
)
def test_what_did_not_run_so_is_not_drawn(old: str, new: str, message: str) -> None:
    assert old in IDEA
    with pytest.raises(BuildError, match=message):
        held(IDEA.replace(old, new, 1))


def test_what_is_wrong_on_a_page_stops_the_build_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fenced, "body", lambda *_: "senet\nmore: more\n")
    with pytest.raises(
        BuildError, match=r"^docs/en/attention-domain/channel/senet\.md:\d+, .*diagram of senet: '"
    ):
        diagram.make("senet", ENGLISH.say)


def test_the_kernel_is_opened_and_computes_the_same() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8)
    mask = torch.rand(2, 1, 4, 6) > 0.5
    mask[0, 0, 0] = False
    for options in ({}, {"scale": 1.0}, {"attn_mask": mask}, {"is_causal": True}):
        wanted = F.scaled_dot_product_attention(query, key, value, **options)
        got = opened.scaled_dot_product_attention(query, key, value, **options)
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [("(B, C)", 16), ("(B, C/r, 2C)", 128), ("(B, N)", 60), ("(H+W, HW)", 330), ("(3, Q)", None)],
)
def test_amount(shape: str, numbers: int | None) -> None:
    assert amount(shape, SIZES) == numbers


def test_chinese_is_broken_between_letters_and_not_before_a_stop() -> None:
    lines = wrap("线性层，对分支做 softmax", 12, 60)
    assert "".join(lines).replace(" ", "") == "线性层，对分支做softmax"
    assert all(width(line, 12) <= 60 for line in lines)
    assert not any(line.startswith("，") for line in lines)


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=list(LANGUAGES))
@pytest.mark.parametrize("slug", CATALOGUE)
def test_a_page_has_a_diagram_that_fits_a_phone(slug: str, language: Language) -> None:
    body = fenced.body("diagram", CATALOGUE[slug].path, language.code).partition("\n")[2]
    graph = diagram.drawn(slug, read(body))
    words = [step.title + step.label for step in graph.steps] + [step.shape for step in graph.steps]
    _, drawing = fitted(graph, NARROW_PHONE)
    assert drawing.width <= NARROW_PHONE
    assert not re.search(r"\d{2}|constant|axis \d", " ".join(words))
    assert {step.kind for step in graph.steps} == {"input", "step", "output"}
    assert any(lane.kind == "g" for lane in graph.lanes) or any(step.weighs for step in graph.steps)


def test_the_picture_names_steps_and_counts() -> None:
    svg = render(held(IDEA), ENGLISH.say)
    assert re.findall(r'class="count"[^>]*>(\d)<', svg) == ["1", "2", "2", "3"]
    assert re.findall(r'class="name part"[^>]*>([^<]+)<', svg) == ["Again", "2 ×"]
    assert "learned weights" in svg
    assert ">g(x)</text>" in svg
