"""Proofs of global attention."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.weight_assignment.soft.luong_global import GlobalAttention, example
from tests.measure import Measured


def softmax(e: list[Tensor], ok: list[bool]) -> list[Tensor]:
    """exp / sum over the allowed entries (shifted by their maximum); 0 elsewhere, or if none is allowed."""
    zero = e[0].new_zeros(())
    top = max((float(x.detach()) for x, k in zip(e, ok, strict=True) if k), default=0.0)
    exps = [torch.exp(x - top) if k else zero for x, k in zip(e, ok, strict=True)]
    total = sum(exps, zero)
    return [x / total if k else zero for x, k in zip(exps, ok, strict=True)]


def score(mode: str, h_t: Tensor, h_s: Tensor, W_a: Tensor | None, v_a: Tensor | None) -> Tensor:
    """One scalar. general: W_a (Dt,Ds). concat: W_a (k,Dt+Ds), target part first, v_a (k,)."""
    if mode == "dot":
        return (h_t * h_s).sum()
    if mode == "general":
        return (h_t * (W_a @ h_s)).sum()
    if mode == "concat":
        return (v_a * torch.tanh(W_a @ torch.cat([h_t, h_s]))).sum()
    raise ValueError(mode)


def naive_luong_global(
    h_t: Tensor,
    h_s: Tensor,
    W_c: Tensor,
    mode: str = "general",
    W_a: Tensor | None = None,
    v_a: Tensor | None = None,
    mask: Tensor | None = None,
    b_c: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """h_t (B,T,Dt), h_s (B,S,Ds), W_c (Do,Ds+Dt), mask broadcastable to (B,T,S), True = may be attended.

    Returns weights (B,T,S), contexts (B,T,Ds), h~ (B,T,Do). No key allowed: weights and context 0.
    """
    (B, T, _), S = h_t.shape, h_s.shape[1]
    may = torch.ones(B, T, S, dtype=torch.bool) if mask is None else mask.expand(B, T, S)
    weights, contexts, outs = [], [], []
    for b in range(B):
        for t in range(T):
            e = [score(mode, h_t[b, t], h_s[b, s], W_a, v_a) for s in range(S)]
            a = softmax(e, may[b, t].tolist())
            c = sum((a[s] * h_s[b, s] for s in range(S)), torch.zeros_like(h_s[b, 0]))
            weights.append(torch.stack(a))
            contexts.append(c)
            outs.append(torch.tanh(W_c @ torch.cat([c, h_t[b, t]]) + (0 if b_c is None else b_c)))
    a, c, o = (torch.stack(rows).reshape(B, T, -1) for rows in (weights, contexts, outs))
    return a, c, o


def naive_input_feeding(
    y: Tensor,
    h0: Tensor,
    first: Tensor,
    cell: Callable[[Tensor, Tensor], Tensor],
    attend: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
) -> list[Tensor]:
    """h_t = cell([y_t; h~_{t-1}], h_{t-1}), then attend(h_t (B,1,D)) -> [h, a, c, h~], time in dim 1."""
    h, fed, rows = h0, first, []
    for t in range(y.shape[1]):
        h = cell(torch.cat([y[:, t], fed], dim=1), h)
        a, c, out = attend(h[:, None])
        rows.append((h[:, None], a, c, out))
        fed = out[:, 0]
    return [torch.cat(part, dim=1) for part in zip(*rows, strict=True)]


MODES = pytest.mark.parametrize("mode", ["dot", "general", "concat"])


def small(mode: str, d_t: int = 4, d_s: int = 4) -> tuple[GlobalAttention, Tensor, Tensor]:
    """A layer with large random weights and states of both sides in float64."""
    torch.manual_seed(1)
    layer = GlobalAttention(d_t, d_s, mode).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.8)
    target = torch.randn(2, 3, d_t, dtype=torch.float64, requires_grad=True)
    source = torch.randn(2, 5, d_s, dtype=torch.float64, requires_grad=True)
    return layer, target, source


def padding() -> Tensor:
    """True at real tokens: all of the first sentence, two of the second."""
    return (torch.arange(5) < torch.tensor([[5], [2]]))[:, None]


def random_mask(*shape: int) -> Tensor:
    """A bool mask whose first row allows nothing."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) > 0.4
    mask[:, 0] = False
    return mask


def named(layer: GlobalAttention) -> dict[str, Tensor | str | None]:
    found = {"W_c": layer.W_c.weight, "mode": layer.mode}
    if layer.mode == "general":
        found |= {"W_a": layer.W_a.weight.mT}
    elif layer.mode == "concat":
        found |= {"W_a": torch.cat([layer.W_t.weight, layer.W_s.weight], dim=1), "v_a": layer.v_a.weight[0]}
    return found


@pytest.mark.parametrize("mask", [None, padding(), random_mask(2, 3, 5), random_mask(1, 3, 5)])
@pytest.mark.parametrize(
    ("mode", "d_s"), [("dot", 4), ("general", 4), ("general", 6), ("concat", 4), ("concat", 6)]
)
def test_equals_naive_reference(measured: Measured, mode: str, d_s: int, mask: Tensor | None) -> None:
    layer, target, source = small(mode, d_s=d_s)
    weights, _, vectors = naive_luong_global(target, source, **named(layer), mask=mask)
    measured.close(layer.attention(target, source, mask), weights)
    measured.close(layer(target, source, mask), vectors)
    of = (target, source, *layer.parameters())
    measured.gradients(layer(target, source, mask), vectors, of=of)
    of = (target, source, *(p for name, p in layer.named_parameters() if name != "W_c.weight"))
    measured.gradients(layer.attention(target, source, mask), weights, of=of)


@MODES
def test_input_feeding_equals_naive_reference(measured: Measured, mode: str) -> None:
    layer, target, source = small(mode)
    cell = nn.GRUCell(2 + 4, 4).double()
    y = torch.randn(2, 6, 2, dtype=torch.float64)
    state, fed = target[:, 0], target[:, 1]
    _, weights, _, vectors = naive_input_feeding(
        y, state, fed, cell, lambda h: naive_luong_global(h, source, **named(layer), mask=padding())
    )
    steps = []
    for t in range(6):
        state = cell(torch.cat([y[:, t], fed], dim=1), state)
        steps.append(
            (layer.attention(state[:, None], source, padding()), layer(state[:, None], source, padding()))
        )
        fed = steps[-1][1][:, 0]
    ours = [torch.cat(part, dim=1) for part in zip(*steps, strict=True)]
    measured.close(ours[0], weights)
    measured.close(ours[1], vectors)
    measured.gradients(ours[1], vectors, of=(target, source, *layer.parameters(), *cell.parameters()))


def test_dot_equals_torch(measured: Measured) -> None:
    layer, target, source = small("dot")
    mask = random_mask(2, 3, 5)
    context = F.scaled_dot_product_attention(target, source, source, attn_mask=mask, scale=1.0)
    expected = torch.tanh(torch.cat([context, target], dim=2) @ layer.W_c.weight.T)
    measured.close(layer(target, source, mask), expected)
    measured.gradients(layer(target, source, mask), expected, of=(target, source, layer.W_c.weight))


def test_general_equals_torch_bilinear(measured: Measured) -> None:
    layer, target, source = small("general", d_s=6)
    public = nn.Bilinear(4, 6, 1, bias=False).double()
    with torch.no_grad():
        public.weight.copy_(layer.W_a.weight.mT[None])
    sides = target[:, :, None].expand(-1, -1, 5, -1), source[:, None].expand(-1, 3, -1, -1)
    expected = public(*(side.contiguous() for side in sides)).squeeze(-1)
    measured.close(layer.scores(target, source), expected)
    measured.gradients(layer.scores(target, source), expected, of=(target, source))


def test_general_with_identity_is_dot(measured: Measured) -> None:
    general, target, source = small("general")
    nn.init.eye_(general.W_a.weight)
    measured.close(general.scores(target, source), torch.einsum("btd, bsd -> bts", target, source))


def test_general_is_not_symmetric(measured: Measured) -> None:
    layer, target, source = small("general")
    forth, back = layer.scores(target, source), layer.scores(source, target).mT
    measured.value("max |s(a, b) - s(b, a)|", (forth - back).abs().max().item(), above=1)


def test_concat_without_a_source_matrix_is_the_released_code(measured: Measured) -> None:
    layer, target, source = small("concat")
    nn.init.eye_(layer.W_s.weight)
    hidden = torch.tanh(source[:, None] + target[:, :, None] @ layer.W_t.weight.T)
    measured.close(layer.scores(target, source), (hidden * layer.v_a.weight[0]).sum(dim=3))


@MODES
def test_weights_are_a_distribution_over_the_source(measured: Measured, mode: str) -> None:
    layer, target, source = small(mode)
    weights = layer.attention(target, source)
    measured.close(weights.sum(dim=2), torch.ones(2, 3, dtype=torch.float64))
    measured.value("smallest weight", weights.min().item(), above=0)


@MODES
def test_all_states_at_once_equal_one_after_the_other(measured: Measured, mode: str) -> None:
    layer, target, source = small(mode)
    mask = random_mask(2, 3, 5)
    steps = [layer(target[:, t : t + 1], source, mask[:, t : t + 1]) for t in range(3)]
    measured.close(torch.cat(steps, dim=1), layer(target, source, mask))


@MODES
def test_permuted_source_permutes_the_weights(measured: Measured, mode: str) -> None:
    layer, target, source = small(mode)
    order = torch.tensor([3, 0, 4, 1, 2])
    measured.close(layer.attention(target, source[:, order]), layer.attention(target, source)[..., order])
    measured.close(layer(target, source[:, order]), layer(target, source))


@MODES
def test_padding_equals_a_shorter_sentence(measured: Measured, mode: str) -> None:
    layer, target, source = small(mode)
    measured.close(layer(target, source, padding())[1:], layer(target[1:], source[1:, :2]))
    measured.close(
        layer.attention(target, source, padding())[1, :, 2:], torch.zeros(3, 3, dtype=torch.float64), 0
    )


@MODES
def test_target_without_sources_keeps_its_own_half(measured: Measured, mode: str) -> None:
    layer, target, source = small(mode)
    mask = random_mask(2, 3, 5)
    vectors = layer(target, source, mask)
    own = torch.tanh(target[:, 0] @ layer.W_c.weight[:, 4:].T)  # no context: the half of W_c for the target
    measured.close(vectors[:, 0], own)
    gradients = torch.autograd.grad(vectors.square().sum(), (target, source, *layer.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_parameters_of_each_score(measured: Measured) -> None:
    for mode, expected in (("dot", 2_000_000), ("general", 3_000_000), ("concat", 4_001_000)):
        layer = GlobalAttention(1000, 1000, mode)
        measured.count(sum(p.numel() for p in layer.parameters()), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4), "target_dim 0"),
        ((4, 0), "source_dim 0"),
        ((4, 4, "location"), "mode 'location' must be one of dot, general, concat"),
        ((4, 5, "dot"), "target_dim 4 must be equal to source_dim 5 in mode 'dot'"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GlobalAttention(*arguments)


@pytest.mark.parametrize("shape", [(2, 7), (4, 7), (2, 4, 6), (3, 4, 7), (1, 2, 4, 7)])
def test_refuses_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    layer, (target, source, _) = example()
    for call in (layer, layer.attention):
        with pytest.raises(ValueError, match=r"padding\[:, None\]"):
            call(target, source, torch.ones(shape, dtype=torch.bool))


def test_refuses_masks_that_are_not_bool() -> None:
    layer, (target, source, mask) = example()
    for call in (layer, layer.attention):
        with pytest.raises(TypeError, match="True = may be attended"):
            call(target, source, mask.double())


@MODES
def test_refuses_states_that_would_broadcast(mode: str) -> None:
    layer, target, source = small(mode)
    for pair in ((target[:1], source), (target, source[:1]), (target[0], source[0]), (target, source[0])):
        for call in (layer, layer.attention, layer.scores):
            with pytest.raises(ValueError, match=r"\(B, T, d_t\) and \(B, S, d_s\) with the same B"):
                call(*pair)


@pytest.mark.parametrize("mode", ["dot", "general"])
def test_scores_of_wide_states_fit_into_half_precision(mode: str) -> None:
    torch.manual_seed(0)
    layer = GlobalAttention(1024, 1024, mode).half()
    if mode == "general":
        nn.init.eye_(layer.W_a.weight)
    target, source = ((30 * torch.randn(2, n, 1024)).half() for n in (3, 40))
    weights = layer.attention(target, source)
    assert weights.dtype == torch.float16
    assert (weights.sum(dim=2) - 1).abs().max() < 1e-2  # their sums would be infinite in half precision
