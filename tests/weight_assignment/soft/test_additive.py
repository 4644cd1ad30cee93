"""Proofs of additive attention."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from snippets.weight_assignment.soft.additive import AdditiveAttention, example
from tests.measure import Measured

EXCEPTIONS = {
    "test_every_parameter_receives_a_gradient": {
        "additive:projected": "project() has applied U_a before; forward is given the result",
    },
    "test_the_hook_of_every_layer_fires": {
        "additive:projected": "project() has applied U_a before; forward is given the result",
    },
}
"""Checks of the contract that it cannot pass, with the reason."""

Cell = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(y (B,Y), context (B,Dh), state (B,Ds)) -> next state (B,Ds)."""


def softmax(e: list[Tensor], ok: list[bool]) -> list[Tensor]:
    """exp / sum over the allowed entries (shifted by their maximum); 0 elsewhere, or if none is allowed."""
    zero = e[0].new_zeros(())
    top = max((x.item() for x, k in zip(e, ok, strict=True) if k), default=0.0)
    exps = [torch.exp(x - top) if k else zero for x, k in zip(e, ok, strict=True)]
    total = sum(exps, zero)
    return [x / total if k else zero for x, k in zip(exps, ok, strict=True)]


def naive_align(
    s: Tensor,
    h: Tensor,
    v: Tensor,
    W_a: Tensor,
    U_a: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """s (B,Ds), h (B,S,Dh), v (k,), W_a (k,Ds), U_a (k,Dh), b (k,), mask (B,S), True = may be attended.

    Returns alpha (B,S) and context (B,Dh); with no key allowed both are 0.
    """
    B, S, _ = h.shape
    alphas, contexts = [], []
    for n in range(B):
        e = []
        for j in range(S):
            e.append((v * torch.tanh(W_a @ s[n] + U_a @ h[n, j] + (0 if b is None else b))).sum())
        alpha = softmax(e, [True] * S if mask is None else mask[n].tolist())
        alphas.append(torch.stack(alpha))
        contexts.append(sum((alpha[j] * h[n, j] for j in range(S)), torch.zeros_like(h[n, 0])))
    return torch.stack(alphas), torch.stack(contexts)


def gru_cell(weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> Cell:
    """torch's GRU on the input [y; c]; rows stacked reset r, update z, new n; s' = (1 - z) n + z s."""

    def step(y: Tensor, c: Tensor, s: Tensor) -> Tensor:
        d = s.shape[1]
        i = torch.cat([y, c], dim=1) @ weight_ih.T + bias_ih
        g = s @ weight_hh.T + bias_hh
        r = 1 / (1 + torch.exp(-(i[:, :d] + g[:, :d])))
        z = 1 / (1 + torch.exp(-(i[:, d : 2 * d] + g[:, d : 2 * d])))
        n = torch.tanh(i[:, 2 * d :] + r * g[:, 2 * d :])
        return (1 - z) * n + z * s

    return step


def naive_decoder(
    y: Tensor, s0: Tensor, h: Tensor, cell: Cell, *attention: Tensor | None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """y (B,T,Y): y[:, t] is the PREVIOUS output, fed at step t; s0 (B,Ds); `attention` = v, W_a, U_a (, b).

    Returns states (B,T,Ds), alphas (B,T,S), contexts (B,T,Dh). T = 1 is one decoder step.
    """
    s, rows = s0, []
    for t in range(y.shape[1]):
        alpha, c = naive_align(s, h, *attention, mask=mask)
        s = cell(y[:, t], c, s)
        rows.append((s, alpha, c))
    states, alphas, contexts = (torch.stack(part, dim=1) for part in zip(*rows, strict=True))
    return states, alphas, contexts


def small(d_s: int = 3, d_h: int = 5, d_a: int = 4, S: int = 6) -> tuple[AdditiveAttention, Tensor, Tensor]:
    """A layer with large random weights, states and annotations in float64."""
    torch.manual_seed(1)
    layer = AdditiveAttention(d_s, d_h, d_a).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.8)
    state = torch.randn(2, d_s, dtype=torch.float64, requires_grad=True)
    source = torch.randn(2, S, d_h, dtype=torch.float64, requires_grad=True)
    return layer, state, source


def padding(S: int = 6) -> Tensor:
    """True at real tokens: all of the first sentence, two of the second."""
    return torch.arange(S) < torch.tensor([[S], [2]])


def weights_of(layer: AdditiveAttention) -> tuple[Tensor, Tensor, Tensor]:
    return layer.v_a.weight[0], layer.W_a.weight, layer.U_a.weight


def decode(
    layer: AdditiveAttention, cell: nn.GRUCell, y: Tensor, state: Tensor, source: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """States and weights of a decoder that projects the annotations once and asks before each step."""
    projected = layer.project(source)
    states, weights = [], []
    for t in range(y.shape[1]):
        weights.append(layer.attention(state, source, mask, projected))
        state = cell(torch.cat([y[:, t], layer(state, source, mask, projected)], dim=1), state)
        states.append(state)
    return torch.stack(states, dim=1), torch.stack(weights, dim=1)


@pytest.mark.parametrize("mask", [None, padding()])
@pytest.mark.parametrize("sizes", [(3, 5, 4), (4, 2, 1), (1, 1, 7)])
def test_equals_naive_reference(measured: Measured, sizes: tuple[int, int, int], mask: Tensor | None) -> None:
    layer, state, source = small(*sizes)
    weights, context = naive_align(state, source, *weights_of(layer), mask=mask)
    measured.close(layer.attention(state, source, mask), weights)
    measured.close(layer(state, source, mask), context)
    of = (state, source, *layer.parameters())
    measured.gradients(layer.attention(state, source, mask), weights, of=of)
    measured.gradients(layer(state, source, mask), context, of=of)


def test_decoder_equals_naive_reference(measured: Measured) -> None:
    layer, state, source = small()
    cell = nn.GRUCell(2 + 5, 3).double()
    y = torch.randn(2, 4, 2, dtype=torch.float64)
    named = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    states, weights, _ = naive_decoder(y, state, source, gru_cell(*named), *weights_of(layer), mask=padding())
    actual = decode(layer, cell, y, state, source, padding())
    measured.close(actual[1], weights)
    measured.close(actual[0], states)
    measured.gradients(actual[0], states, of=(state, source, *layer.parameters(), *cell.parameters()))


def test_projecting_once_equals_projecting_at_each_step(measured: Measured) -> None:
    layer, state, source = small()
    once = layer(state, source, padding(), layer.project(source))
    measured.close(once, layer(state, source, padding()), tolerance=0)
    measured.gradients(once, layer(state, source, padding()), of=(state, source, *layer.parameters()))


def test_concat_is_additive(measured: Measured) -> None:
    layer, state, source = small()
    pairs = torch.cat([state[:, None].expand(-1, 6, -1), source], dim=2)
    W = torch.cat([layer.W_a.weight, layer.U_a.weight], dim=1)  # one matrix on [s; h]
    weights = ((pairs @ W.T).tanh() @ layer.v_a.weight[0]).softmax(dim=1)
    measured.close(layer.attention(state, source), weights)


def test_bias_of_the_score_would_be_idle(measured: Measured) -> None:
    layer, state, source = small()
    before = layer(state, source)
    layer.v_a.bias = nn.Parameter(torch.tensor([7.0], dtype=torch.float64))
    measured.close(layer(state, source), before)
    gradient = torch.autograd.grad(layer(state, source).square().sum(), layer.v_a.bias)[0]
    measured.value("|∇b|", gradient.abs().item(), below=1e-10)


def test_weights_are_a_distribution_over_the_source(measured: Measured) -> None:
    layer, state, source = small()
    weights = layer.attention(state, source)
    measured.close(weights.sum(dim=1), torch.ones(2, dtype=torch.float64))
    measured.value("smallest weight", weights.min().item(), above=0)


def test_scores_are_bounded_by_v(measured: Measured) -> None:
    layer, state, source = small()
    bound = layer.v_a.weight.abs().sum().item()
    far = torch.stack([source, -source], dim=2).flatten(1, 2) * 1e6
    logs = layer.attention(1e6 * state, far).log()
    spread = (logs.amax(dim=1) - logs.amin(dim=1)).max().item()
    measured.value("spread of scores / Σ|v|", spread / bound, above=1, at_most=2)


def test_state_changes_the_ranking_of_the_annotations(measured: Measured) -> None:
    layer, _, source = small(S=40)
    states = torch.randn(2, 300, 3, dtype=torch.float64)
    flat = states.flatten(0, 1), source.repeat_interleave(300, dim=0)
    best = layer.attention(*flat).argmax(dim=1)
    measured.value("different favourites of 300 states", best[:300].unique().numel(), above=1)
    linear = (layer.W_a(flat[0])[:, None] + layer.U_a(flat[1])) @ layer.v_a.weight[0]  # without tanh
    measured.value("without tanh", linear.argmax(dim=1)[:300].unique().numel(), equals=1)


def test_permuted_annotations_permute_the_weights(measured: Measured) -> None:
    layer, state, source = small()
    order = torch.tensor([3, 0, 5, 4, 1, 2])
    measured.close(layer.attention(state, source[:, order]), layer.attention(state, source)[:, order])
    measured.close(layer(state, source[:, order]), layer(state, source))


def test_padding_equals_a_shorter_sentence(measured: Measured) -> None:
    layer, state, source = small()
    measured.close(layer(state, source, padding())[1:], layer(state[1:], source[1:, :2]))
    measured.close(layer.attention(state, source, padding())[1, 2:], source.new_zeros(4), tolerance=0)


def test_sentence_without_tokens_gives_zeros(measured: Measured) -> None:
    layer, state, source = small()
    mask = torch.tensor([[True], [False]]).expand(2, 6)
    context = layer(state, source, mask)
    measured.close(context[1], source.new_zeros(5), tolerance=0)
    for output in (context, layer.attention(state, source, mask)):
        gradients = torch.autograd.grad(output.square().sum(), (state, source, *layer.parameters()))
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_parameters_at_the_sizes_of_the_released_configuration(measured: Measured) -> None:
    layer = AdditiveAttention(1000, 2 * 1000, 1000).to("meta")
    measured.count(sum(p.numel() for p in layer.parameters()), 3_001_000)


@pytest.mark.parametrize("name", ["query_dim", "key_dim", "hidden_dim"])
def test_refuses_impossible_widths(name: str) -> None:
    widths = {"query_dim": 2, "key_dim": 2, "hidden_dim": 2, name: 0}
    with pytest.raises(ValueError, match=f"{name} 0 must be at least 1"):
        AdditiveAttention(**widths)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (3, 6), (2, 1, 6)])
def test_refuses_states_that_would_broadcast(shape: tuple[int, ...]) -> None:
    layer, (_, source, _) = example()
    for call in (layer, layer.attention):
        with pytest.raises(
            ValueError, match=r"must be \(B, d_s\) and \(B, S, d_h\) with the same B and d_h = 8"
        ):
            call(torch.randn(shape), source)
    with pytest.raises(ValueError, match=r"source \(7, 8\) must be"):
        layer(torch.randn(7, 6), source[0])


@pytest.mark.parametrize("shape", [(1, 7, 10), (2, 1, 10), (2, 7, 1), (7, 10), (10,)])
def test_refuses_projections_that_would_broadcast(shape: tuple[int, ...]) -> None:
    layer, inputs = example()
    for call in (layer, layer.attention):
        with pytest.raises(ValueError, match=r"projected .* must be \(B, S, d_a\) = \(2, 7, 10\)"):
            call(*inputs, torch.randn(shape))


@pytest.mark.parametrize("shape", [(7,), (1, 7), (2, 1), (2, 6), (2, 1, 7)])
def test_refuses_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    layer, (state, source, _) = example()
    for call in (layer, layer.attention):
        with pytest.raises(ValueError, match=r"must be \(B, S\) = \(2, 7\)"):
            call(state, source, torch.ones(shape, dtype=torch.bool))


def test_refuses_masks_that_are_not_bool() -> None:
    layer, (state, source, mask) = example()
    for call in (layer, layer.attention):
        with pytest.raises(TypeError, match="True = may be attended"):
            call(state, source, mask.double())
