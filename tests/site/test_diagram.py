"""A diagram shows the steps of the running code, named and placed so that it can be read."""

import importlib
import inspect
import re
from collections import OrderedDict
from itertools import combinations, pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sitekit.diagram import opened, trace
from sitekit.diagram.fold import fold
from sitekit.diagram.geometry import Rect
from sitekit.diagram.graph import Graph, Lane, Step
from sitekit.diagram.layout import Drawing, arrange, orders
from sitekit.diagram.names import Names
from sitekit.diagram.shapes import PHONE, describe, fitted, render
from sitekit.errors import BuildError
from sitekit.language import CHINESE, ENGLISH
from snippets.attention_domain.channel import senet
from snippets.catalogue import CATALOGUE

IMAGE = {"B": 2, "C": 8, "H": 6, "W": 5, "r": 2}
WORDS = {"B": 2, "T": 5, "E": 12, "heads": 3}


class SharedGate(nn.Module):
    """Two means through one network; a guard and a gate, so symbolic tracing gives up."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8))
        self.gamma = nn.Parameter(torch.ones(1))

    def attention(self, x: Tensor) -> Tensor:
        return (self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))).sigmoid()[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 8:
            raise ValueError("8 channels only")
        return x + self.gamma * (self.attention(x) * x)


class Heads(nn.Module):
    """Multi-head attention by a kernel, over *inputs, in a loop that the data end."""

    scale: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36)

    def split(self, x: Tensor) -> Tensor:
        return self.qkv(x).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)

    def forward(self, *inputs: Tensor) -> Tensor:
        x, mask = inputs
        for _ in range(int(mask.sum() > 0)):
            y = F.scaled_dot_product_attention(*self.split(x), mask[:, None, None], scale=self.scale)
            x = x + y.transpose(1, 2).flatten(2)
        return x


class Unscaled(Heads):
    scale = 1.0


class OwnWeights(Heads):
    """The same, but the weights are formed; `forward` does not call `attention`."""

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.weights(*self.split(x)[:2], mask)

    def weights(self, q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
        return (q @ k.mT / 4**0.5).masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.split(x)
        return x + (self.weights(q, k, mask) @ v).transpose(1, 2).flatten(2)


class Gate(nn.Module):
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axes, keepdim=True).sigmoid()


class TwoGates(nn.Module):
    """`forward` never forms what `attention` returns."""

    def __init__(self) -> None:
        super().__init__()
        self.channel, self.space = Gate(2, 3), Gate(1)

    def attention(self, x: Tensor) -> Tensor:
        return self.channel(x) * self.space(x)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.channel(x) * self.space(x)


def se() -> Graph:
    return trace(*senet.example(), {"B": 2, "C": 64, "H": 14, "W": 10, "r": 16})


def gate() -> Graph:
    return trace(SharedGate().eval(), (torch.rand(2, 8, 6, 5),), IMAGE)


def heads(module: type[Heads]) -> Graph:
    inputs = torch.rand(2, 5, 12), torch.ones(2, 5, dtype=torch.bool)
    return trace(module().eval(), inputs, WORDS)


def mechanism(slug: str) -> Graph:
    example = importlib.import_module(CATALOGUE[slug].module).example
    return trace(
        *example(), {name: one.default for name, one in inspect.signature(example).parameters.items()}
    )


GRAPHS = {
    "shared": gate,
    "fused": lambda: heads(Heads),
    "gates": lambda: trace(TwoGates().eval(), (torch.rand(2, 8, 6, 5),), IMAGE),
    "weights": lambda: heads(OwnWeights),
    **{slug: lambda slug=slug: mechanism(slug) for slug in CATALOGUE},
}


def labels(graph: Graph, lane: int | None = None, kind: str = "step") -> list[str]:
    return [
        step.label.replace("\u00a0", " ") for step in graph.steps if step.lane == lane and step.kind == kind
    ]


def names(graph: Graph) -> list[str]:
    return [lane.name for lane in graph.lanes]


def test_se_shows_each_step_once_with_its_shape() -> None:
    shown = [(step.label.replace("\u00a0", " "), step.shape) for step in se().steps]
    assert shown == [
        ("x", "(B, C, H, W)"),
        ("mean over H, W", "(B, C)"),
        ("Linear C → C/r", "(B, C/r)"),
        ("ReLU", "(B, C/r)"),
        ("Linear C/r → C", "(B, C)"),
        ("sigmoid", "(B, C)"),
        ("× (broadcast)", "(B, C, H, W)"),
        ("f(g(x), x)", "(B, C, H, W)"),
    ]


def test_se_is_g_up_to_the_gates_and_f_after_them() -> None:
    graph = se()
    assert names(graph) == ["g(x)"]
    assert labels(graph, lane=0) == ["mean over H, W", "Linear C → C/r", "ReLU", "Linear C/r → C", "sigmoid"]
    assert labels(graph) == ["× (broadcast)"]
    assert [step.label.split()[0] for step in graph.steps if step.learned] == ["Linear", "Linear"]


def test_a_layer_called_twice_is_called_shared() -> None:
    assert labels(gate(), lane=0).count("Linear C → C/r, shared") == 2
    assert labels(gate()) == ["× (broadcast)", "× γ", "+ residual"]


def test_what_symbolic_tracing_refuses_is_drawn_all_the_same() -> None:
    with pytest.raises(torch.fx.proxy.TraceError):
        torch.fx.symbolic_trace(SharedGate())
    assert labels(heads(Heads), kind="input") == ["inputs 1", "inputs 2"]
    assert "qkv: Linear E → 3E" in labels(heads(Heads))


def test_a_kernel_that_weighs_and_sums_is_g_and_f_at_once() -> None:
    graph = heads(Heads)
    assert names(graph) == ["g and f"]
    assert labels(graph, lane=0) == ["scaled dot-product attention"]
    assert graph.steps[3].shape == "(B, heads, T, E/heads)"


def test_a_kernel_without_a_scale_is_not_called_scaled() -> None:
    graph = heads(Unscaled)
    assert names(graph) == ["g and f"]
    assert labels(graph, lane=0) == ["dot-product attention"]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("is_causal", [False, True])
def test_a_kernel_written_out_returns_what_it_returns(kv_heads: int, is_causal: bool) -> None:
    query, (key, value) = torch.randn(2, 4, 5, 6), torch.randn(2, 2, kv_heads, 5, 6)
    options = {"is_causal": is_causal, "enable_gqa": kv_heads < 4}
    expected = F.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(opened.scaled_dot_product_attention(query, key, value, **options), expected)


def test_a_kernel_with_a_bias_written_out_returns_what_it_returns() -> None:
    (query, key, value), bias = torch.randn(3, 2, 4, 5, 6), torch.randn(4, 5, 5)
    expected = F.scaled_dot_product_attention(query, key, value, bias)
    torch.testing.assert_close(opened.scaled_dot_product_attention(query, key, value, bias), expected)


def test_weights_that_forward_computes_itself_are_found_by_value() -> None:
    graph = heads(OwnWeights)
    assert names(graph) == ["g(x)"]
    assert labels(graph, lane=0) == ["matmul", "÷ √(E/heads)", "−∞ where masked", "softmax over keys"]
    assert labels(graph) == ["qkv: Linear E → 3E", "matmul", "+ residual"]


@pytest.mark.parametrize(
    ("factor", "label"),
    [(12**0.5, "× √E"), (12**-0.5, "÷ √E"), (2.0, "× 2"), (0.5, "÷ √(E/heads)"), (140.0, "× 140")],
)
def test_the_root_of_a_size_is_named_unless_it_is_a_whole_number(factor: float, label: str) -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (factor * x).tanh()

    assert labels(trace(Scaled().eval(), (torch.randn(2, 5, 12),), WORDS))[0] == label


def test_each_block_of_a_chain_has_its_own_lane() -> None:
    chain = nn.Sequential(OrderedDict(first=senet.SEBlock(8, 2), second=senet.SEBlock(8, 2))).eval()
    graph = trace(chain, (torch.rand(2, 8, 6, 5),), IMAGE)
    assert names(graph) == ["first: g(x)", "second: g(x)"]
    assert labels(graph, lane=0) == labels(graph, lane=1) == labels(se(), lane=0)


def test_without_a_step_that_is_g_the_blocks_have_lanes() -> None:
    graph = trace(TwoGates().eval(), (torch.rand(2, 8, 6, 5),), IMAGE)
    assert names(graph) == ["channel", "space"]
    assert labels(graph, lane=1) == ["mean over C", "sigmoid"]
    assert labels(graph, kind="output") == ["output"]


def test_many_steps_are_drawn_block_by_block() -> None:
    chain = nn.Sequential(*(SharedGate() for _ in range(4))).eval()
    assert labels(trace(chain, (torch.rand(2, 8, 6, 5),), IMAGE)) == ["SharedGate"] * 4


def test_many_pointwise_steps_join_the_step_before_them() -> None:
    layers = [nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(8)]
    graph = trace(nn.Sequential(*layers).eval(), (torch.rand(2, 8, 6, 5),), IMAGE)
    assert labels(graph) == ["Conv 1×1, C → C; BatchNorm; ReLU"] * 8
    assert all(step.learned for step in graph.steps if step.kind == "step")
    assert [step.inputs for step in graph.steps] == [(), *((i,) for i in range(9))]


def test_a_step_that_two_read_keeps_its_box() -> None:
    given = Step("input", "x", "(B, C)")
    steps = [
        given,
        *(Step("step", label, "(B, C)", (i,)) for i, label in enumerate(["Linear", "ReLU", "tanh"])),
    ]
    folded = fold(Graph("", [*steps, Step("step", "×", "(B, C)", (1, 3))], []))
    assert [(step.label, step.inputs) for step in folded.steps[1:]] == [
        ("Linear", (0,)),
        ("ReLU; tanh", (1,)),
        ("×", (1, 2)),
    ]


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((2, 8, 6, 5), "(B, C, H, W)"),
        ((2, 30, 30), "(B, N, N)"),
        ((2, 2, 6, 5), "(B, 2, H, W)"),
        ((2, 4, 16, 24), "(B, C/2, 2C, 3C)"),
        ((2, 48, 60, 7), "(B, C·H, 2N, 7)"),
        ((60, 8, 2), "(B·N, C, 2)"),
        ((3, 1, 7, 40), "(3, 1, 7, 5C)"),
    ],
)
def test_sizes_have_the_names_of_the_formulas(shape: tuple[int, ...], text: str) -> None:
    names = Names({"B": 2, "C": 8, "H": 6, "W": 5})
    assert names.shape(shape) == text
    assert names.note([text]) == ("N = HW" if "N" in text else None)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_boxes_keep_apart_and_lines_keep_off_them(graph) -> None:
    graph = graph()
    _, drawing = fitted(graph)
    assert set(drawing.boxes) == set(range(len(graph.steps)))
    for one, two in combinations(drawing.boxes.values(), 2):
        assert not overlap(one, two)
    for lane, frame in enumerate(drawing.frames):
        inside = {index for index, rect in drawing.boxes.items() if overlap(frame, rect)}
        assert inside == {index for index, step in enumerate(graph.steps) if step.lane == lane}
    for one, two in combinations(drawing.frames, 2):
        assert not overlap(one, two)
    assert not crossed(drawing)
    assert {line.target for line in drawing.lines} - {None} == {
        i for i, s in enumerate(graph.steps) if s.inputs
    }
    assert all(x == u or y == v for line in drawing.lines for (x, y), (u, v) in pairwise(line.points))


# A loop, which is one frame in the page's own diagram
UNROLLED = {
    "decayed_linear",
    "delta_rule",
    "gated_delta",
    "kimi_delta",
    "online_softmax",
    "random_features",
    "ring",
    "state_space_duality",
}


@pytest.mark.parametrize("slug", GRAPHS)
def test_a_diagram_has_few_boxes(slug: str) -> None:
    assert 3 <= len(GRAPHS[slug]().steps) <= (80 if slug in UNROLLED else 30)


def overlap(one: Rect, two: Rect, slack: float = 0.5) -> bool:
    across = one.x + slack < two.right and two.x + slack < one.right
    return across and one.y + slack < two.bottom and two.y + slack < one.bottom


def crossed(drawing: Drawing) -> list[int]:
    segments = [pair for line in drawing.lines for pair in pairwise(line.points)]
    spans = [Rect(min(x, u), min(y, v), abs(x - u), abs(y - v)) for (x, y), (u, v) in segments]
    return [i for i, rect in drawing.boxes.items() if any(overlap(rect, wide(span), 1.5) for span in spans)]


def wide(span: Rect) -> Rect:
    return Rect(span.x - 1, span.y - 1, span.width + 2, span.height + 2)


def test_a_long_line_enters_its_box_from_the_side() -> None:
    _, drawing = fitted(se())
    product, source = 6, 0
    (line,) = [line for line in drawing.lines if (line.source, line.target) == (source, product)]
    (_, above), end = line.points[-2:]
    assert end == (drawing.boxes[product].right, above)


def test_boxes_are_ordered_so_that_lines_do_not_cross() -> None:
    steps = [
        Step("step", label, "", inputs) for label, inputs in zip("abcd", [(), (), (1,), (0,)], strict=True)
    ]
    drawing = arrange(orders(Graph("", steps, [])), [(50, 20)] * 4, [])
    a, b, c, d = (drawing.boxes[i].x for i in range(4))
    assert (a < b) == (d < c)


def test_frames_beside_each_other_keep_apart() -> None:
    """As an encoder and a decoder that reads it do."""
    chain = [Step("step", "", "", (i - 1,) if i % 3 else (), lane=i // 3) for i in range(6)]
    steps = [*chain[:5], Step("step", "", "", (2, 4), lane=1)]
    drawing = arrange(orders(Graph("", steps, [Lane("encoder"), Lane("decoder")])), [(50, 20)] * 6, [90, 90])
    encoder, decoder = drawing.frames
    assert encoder.right < decoder.x
    assert encoder.bottom > decoder.y


def test_the_svg_is_the_same_each_time_and_needs_nothing_else() -> None:
    arguments = (*senet.example(), {"B": 2, "C": 64, "H": 14, "W": 10, "r": 16})
    svg = render(trace(*arguments), ENGLISH.say)
    assert svg == render(trace(*arguments), ENGLISH.say)
    assert not re.search(r"<script|\sid=|url\(|href=|#[0-9a-f]{3}|\n", svg)
    assert 'role="img"' in svg
    assert "<title>Dataflow of SEBlock</title>" in svg
    assert f"<desc>{describe(se(), ENGLISH.say)}</desc>" in svg
    assert set(re.findall(r"(?:fill|stroke):([^;}]+)", svg)) <= {
        "none",
        *re.findall(r"var\(--md-[a-z-]+\)", svg),
    }
    assert int(re.findall(r'<svg[^>]* width="(\d+)"', svg)[0]) <= PHONE


def test_the_description_lists_the_steps() -> None:
    assert describe(se(), ENGLISH.say) == (
        "From x (B, C, H, W): in g(x): mean over H, W, Linear C → C/r, ReLU, Linear C/r → C, sigmoid;"
        " then outside it: × (broadcast); the result is (B, C, H, W)."
    )


def test_a_diagram_speaks_the_language_of_its_page() -> None:
    svg = render(se(), CHINESE.say)
    assert "<title>SEBlock 的数据流</title>" in svg
    assert "可学习的权重" in svg
    assert not re.search("learned weights|Dataflow|result", svg)
    assert describe(se(), CHINESE.say).endswith("；然后在其外：× (broadcast)；结果为 (B, C, H, W)。")


class Unrelated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(3)


def test_what_cannot_be_drawn_stops_the_build() -> None:
    with pytest.raises(BuildError, match="cannot be followed back to an input"):
        trace(Unrelated(), (torch.rand(2),), {})
    with pytest.raises(BuildError, match=r"SharedGate: tests/\S+:\d+: ValueError: 8 channels only"):
        trace(SharedGate(), (torch.rand(2, 7, 6, 5),), IMAGE)
