"""The page "From linear attention to Kimi delta": its loop, changed line by line, is each of the modules."""

import re
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.weight_assignment.self_attention.decayed_linear import decayed_linear
from snippets.weight_assignment.self_attention.delta_rule import delta_rule
from snippets.weight_assignment.self_attention.gated_delta import gated_delta
from snippets.weight_assignment.self_attention.kimi_delta import kimi_delta
from snippets.weight_assignment.self_attention.linear import linear_attention
from snippets.weight_assignment.self_attention.state_space_duality import state_space
from tests.conftest import ROOT

PAGES = [ROOT / "docs" / language / "linear-to-delta.md" for language in ("en", "zh")]
BLOCK = re.compile(r'^```(python|diff)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
Loop = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def loops(page: str) -> dict[str, str]:
    """Code of each member, made of the first by the changes of the page, each of which adds one line."""
    found: dict[str, str] = {}
    for language, title, text in BLOCK.findall(page):
        if language == "python":
            found["linear"] = text
            continue
        old, new = title.split(" → ")
        lines = text.splitlines()
        assert [line[0] for line in lines].count("+") == 1
        before, after = (inside(line for line in lines if line[0] in f" {sign}") for sign in "-+")
        assert found[old].count(before) == 1
        found[new] = found[old].replace(before, after)
    return found


def inside(lines: Iterable[str]) -> str:
    """Lines of a change as they stand in the loop."""
    return "".join(f"        {line[1:].strip()}\n" for line in lines)


def read(slug: str) -> Loop:
    """The loop of a member as the English page has it."""
    space: dict[str, Loop] = {}
    exec(loops(PAGES[0].read_text(encoding="utf-8"))[slug], space)
    return space["read"]


@pytest.fixture
def inputs() -> Iterator[tuple[Tensor, ...]]:
    """Queries and keys (T, d), values (T, e), gates (T,) and rates (T,); keys have length one."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    q, k, v = torch.randn(13, 4), F.normalize(torch.randn(13, 4), dim=-1), torch.randn(13, 3)
    yield q, k, v, -torch.rand(13), 2 * torch.rand(13)
    torch.set_default_dtype(before)


def head(t: Tensor) -> Tensor:
    """One head of one sequence: (T, ...) -> (1, T, 1, ...)."""
    return t[None, :, None]


MODULES: dict[str, Callable[..., Tensor]] = {
    "linear": lambda q, k, v, g, beta: linear_attention(q, k, v, chunk_size=5)[0],
    "decayed_linear": lambda q, k, v, g, beta: decayed_linear(q, k, v, g, chunk_size=5)[0],
    "state_space_duality": lambda q, k, v, g, beta: state_space(
        q, k, v, beta, torch.tensor([-0.7]), chunk_size=5
    )[0],
    "delta_rule": lambda q, k, v, g, beta: delta_rule(q, k, v, beta, chunk_size=5)[0],
    "gated_delta": lambda q, k, v, g, beta: gated_delta(q, k, v, g, beta, chunk_size=5)[0],
    "kimi_delta": lambda q, k, v, g, beta: kimi_delta(q, k, v, g, beta, chunk_size=5)[0],
}


def gates(slug: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs as a member wants them: a gate for each channel, or one that follows from the step."""
    q, k, v, g, beta = inputs
    if slug == "kimi_delta":
        g = -torch.rand(k.shape)
    elif slug == "state_space_duality":
        g = -0.7 * beta
    return q, k, v, g, beta


def test_the_page_has_all_members_in_both_languages() -> None:
    english, chinese = (loops(page.read_text(encoding="utf-8")) for page in PAGES)
    assert set(english) == set(MODULES)
    assert english == chinese


@pytest.mark.parametrize("slug", MODULES)
def test_the_loop_of_the_page_is_the_module(slug: str, inputs: tuple[Tensor, ...]) -> None:
    q, k, v, g, beta = gates(slug, inputs)
    out = MODULES[slug](*(head(t) for t in (q, k, v, g, beta)))
    torch.testing.assert_close(out[0, :, 0], read(slug)(q, k, v, g, beta), atol=1e-12, rtol=1e-12)


def test_without_a_gate_members_are_those_before_them(inputs: tuple[Tensor, ...]) -> None:
    q, k, v, g, beta = inputs
    zero = torch.zeros_like(g)
    for gated, plain in (("decayed_linear", "linear"), ("gated_delta", "delta_rule")):
        same(read(gated)(q, k, v, zero, beta), read(plain)(q, k, v, zero, beta))
        assert far(read(gated)(q, k, v, g, beta), read(plain)(q, k, v, g, beta))


def test_the_step_of_a_state_space_scales_the_values(inputs: tuple[Tensor, ...]) -> None:
    q, k, v, g, beta = inputs
    scaled = read("decayed_linear")(q, k, beta[:, None] * v, g, beta)
    same(read("state_space_duality")(q, k, v, g, beta), scaled)


def test_channels_that_fade_alike_are_one_gate(inputs: tuple[Tensor, ...]) -> None:
    q, k, v, g, beta = inputs
    alike = read("kimi_delta")(q, k, v, g[:, None].expand(-1, 4), beta)
    same(alike, read("gated_delta")(q, k, v, g, beta))


def test_keys_at_right_angles_need_no_correction(inputs: tuple[Tensor, ...]) -> None:
    q, _, v, g, _ = (t[:4] for t in inputs)
    k, ones = torch.eye(4), torch.ones(4)
    same(read("delta_rule")(q, k, v, g, ones), read("linear")(q, k, v, g, ones))
    twice = torch.cat([k, k]), torch.cat([v, v])
    assert far(
        read("delta_rule")(q.repeat(2, 1), *twice, g, ones.repeat(2)),
        read("linear")(q.repeat(2, 1), *twice, g, ones.repeat(2)),
    )


def test_the_order_of_gate_and_correction_matters(inputs: tuple[Tensor, ...]) -> None:
    """The page says that to correct first and fade then is another rule."""
    q, k, v, g, beta = inputs
    code = loops(PAGES[0].read_text(encoding="utf-8"))["gated_delta"]
    fade, correct = (
        line
        for line in code.splitlines(keepends=True)
        if line.strip().startswith("S = ") and "zeros" not in line
    )
    space: dict[str, Loop] = {}
    exec(code.replace(fade + correct, correct + fade), space)
    assert far(space["read"](q, k, v, g, beta), read("gated_delta")(q, k, v, g, beta))


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def far(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() > 0.1)
