"""Proofs of forgetting attention."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.foundations.position_bias import ALiBi, BiasedAttention, slopes
from snippets.foundations.structured_masks import causal, documents
from snippets.weight_assignment.self_attention.forgetting import (
    ForgettingAttention,
    ForgettingCache,
    example,
)
from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from tests.measure import Measured

HEADS = 3
NONE = torch.zeros(2, 7, dtype=torch.bool)
STARTS = torch.tensor([[0, 0, 0, 1, 0, 0, 0], [1, 0, 1, 1, 0, 0, 0]]).bool()
each_text = pytest.mark.parametrize("starts", [NONE, STARTS], ids=["one text", "texts"])


def linear(x: Tensor, w: Tensor) -> Tensor:
    """Return x W^T."""
    return torch.einsum("...i,oi->...o", x, w)


def naive_log_sigmoid(x: Tensor) -> Tensor:
    """Return log(1 / (1 + exp(-x))) without overflow."""
    return torch.clamp(x, max=0.0) - torch.log(1 + torch.exp(-torch.abs(x)))


def naive_age(g: Tensor, b: int, h: int, i: int, j: int) -> Tensor:
    """Return the sum of g (B, T, H) over the tokens m = j+1..i."""
    total = g.new_zeros(())
    for m in range(j + 1, i + 1):
        total = total + g[b, m, h]
    return total


def naive_softmax(scores: list[Tensor]) -> list[Tensor]:
    """Return exp(s_j - max) / sum exp(s_j - max)."""
    top = max(s.item() for s in scores)
    e = [torch.exp(s - top) for s in scores]
    return [a / sum(e) for a in e]


def naive_weights(q: Tensor, k: Tensor, g: Tensor) -> Tensor:
    """Return A (B, H, T, T) of q and k (B, T, H, d), one query of one head at a time."""
    batch, t, heads, d = q.shape
    out = []
    for b in range(batch):
        for h in range(heads):
            for i in range(t):
                products = [(q[b, i, h] * k[b, j, h]).sum() * d**-0.5 for j in range(i + 1)]
                a = naive_softmax([s + naive_age(g, b, h, i, j) for j, s in enumerate(products)])
                out.append(torch.stack([*a, *[(q[b, i, h] * 0.0).sum()] * (t - i - 1)]))
    return torch.stack(out).reshape(batch, heads, t, t)


def naive(layer: ForgettingAttention, x: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights and (B, T, E); a text that starts has a gate of minus infinity."""
    q, k, v = (linear(x, w.weight).unflatten(-1, (HEADS, -1)) for w in projections(layer))
    g = naive_log_sigmoid(linear(x, layer.gate_proj.weight) + layer.gate_proj.bias)
    g = torch.where(starts[..., None], -torch.inf, g)
    a = naive_weights(q, k, g)
    heads = [
        sum(a[b, h, i, j] * v[b, j, h] for j in range(i + 1))
        for b in range(x.shape[0])
        for i in range(x.shape[1])
        for h in range(HEADS)
    ]
    read = torch.stack([torch.as_tensor(each) for each in heads]).reshape(x.shape)
    return a, linear(read, layer.out_proj.weight)


def projections(layer: ForgettingAttention) -> tuple[nn.Linear, ...]:
    """Of queries, keys and values."""
    return layer.q_proj, layer.k_proj, layer.v_proj


def small(T: int = 7) -> tuple[ForgettingAttention, Tensor]:
    """A layer with large random weights, and tokens."""
    torch.manual_seed(1)
    layer = ForgettingAttention(12, HEADS).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer, torch.randn(2, T, 12, dtype=torch.float64, requires_grad=True)


def gated(layer: ForgettingAttention, gate: Tensor) -> None:
    """Give each head one gate for all tokens, by its logarithm."""
    nn.init.zeros_(layer.gate_proj.weight)
    layer.gate_proj.bias.data = -torch.expm1(-gate).log()


def plain(layer: ForgettingAttention) -> MultiHeadAttention:
    """The layer of multi-head attention with the same weights."""
    found = MultiHeadAttention(12, HEADS, bias=False).double().eval()
    found.load_state_dict({name: w for name, w in layer.state_dict().items() if "gate" not in name})
    return found


def heads_of(layer: ForgettingAttention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, H, T, d)."""
    q, k, v = (w(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for w in projections(layer))
    return q, k, v


def merged(layer: ForgettingAttention, heads: Tensor) -> Tensor:
    """(B, H, T, d) -> (B, T, E)."""
    y: Tensor = layer.out_proj(heads.transpose(1, 2).flatten(2))
    return y


@each_text
def test_equals_naive_reference(measured: Measured, starts: Tensor) -> None:
    layer, x = small()
    weights, expected = naive(layer, x, starts)
    measured.close(layer.attention(x, starts), weights)
    measured.close(layer(x, starts), expected)
    measured.gradients(layer(x, starts), expected, of=(x, *layer.parameters()))


@each_text
def test_fused_forward_equals_weights_times_values(measured: Measured, starts: Tensor) -> None:
    layer, x = small()
    _, _, v = heads_of(layer, x)
    measured.close(layer(x, starts), merged(layer, layer.attention(x, starts) @ v))


def test_open_gates_are_plain_attention(measured: Measured) -> None:
    layer, x = small()
    gated(layer, -torch.full((HEADS,), 1e-30, dtype=torch.float64))
    assert layer.log_gate(x).abs().max() < 1e-25
    expected = plain(layer)(x, is_causal=True)
    measured.close(layer(x), expected)
    measured.gradients(layer(x), expected, of=(x,))


def test_a_constant_gate_is_alibi(measured: Measured) -> None:
    layer, x = small()
    gated(layer, -slopes(HEADS, dtype=torch.float64))
    expected = merged(layer, BiasedAttention(ALiBi(HEADS), causal=True)(*heads_of(layer, x)))
    measured.close(layer(x), expected)
    measured.gradients(layer(x), expected, of=(x,))


def test_texts_that_start_anew_are_read_as_if_alone(measured: Measured) -> None:
    layer, x = small()
    y = layer(x, STARTS)
    texts = [(0, 0, 3), (0, 3, 7), (1, 0, 2), (1, 2, 3), (1, 3, 7)]
    alone = torch.cat([layer(x[b : b + 1, start:end])[0] for b, start, end in texts])
    measured.close(y.flatten(0, 1), alone)


def test_a_start_is_a_mask_of_documents_and_open_gates(measured: Measured) -> None:
    layer, x = small()
    gated(layer, -torch.full((HEADS,), 1e-30, dtype=torch.float64))
    mask = documents(STARTS.cumsum(dim=1)) & causal(7)
    measured.close(layer(x, STARTS), plain(layer)(x, mask=mask))


def differences(gate: Tensor) -> Tensor:
    """D as the released codes compute it, from one running sum: (B, H, T) -> (B, H, T, T)."""
    total = gate.cumsum(dim=2)
    later = torch.ones(gate.shape[2], gate.shape[2], dtype=torch.bool).triu(1)
    return (total[..., None] - total[:, :, None]).masked_fill(later, -torch.inf)


def test_a_gate_of_zero_stays_finite(measured: Measured) -> None:
    """Forward and backward; a difference of running sums is minus infinity minus itself from there on."""
    layer, x = small()
    y = layer(x, STARTS)
    gradients = torch.autograd.grad(y.sum(), (x, *layer.parameters()))
    assert y.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)
    lost = differences(layer.log_gate(x, STARTS)).isnan()[0, 0].any(dim=1)
    measured.value("rows of seven that a running sum loses", int(lost.sum()), equals=4)


def test_a_nearly_closed_gate_costs_digits_and_a_closed_one_none(measured: Measured) -> None:
    """float32; the third of twelve tokens forgets, later ones should read as if they began there."""
    torch.manual_seed(0)
    layer, x = ForgettingAttention(12, HEADS), torch.randn(1, 12, 12)
    for part in (*projections(layer), layer.gate_proj):
        part.weight.data[:, 0] = (
            1 if part is layer.gate_proj else 0
        )  # the first feature is for the gate alone
    x[0, :, 0] = 0
    expected = layer(x[:, 2:])
    found = layer(x, torch.arange(12)[None] == 2)[:, 2:]
    measured.value("closed", (found - expected).abs().max().item(), at_most=1e-6)
    for gate, above in ((-1e4, 1e-5), (-1e6, 1e-3)):
        x[0, 2, 0] = gate
        found = layer(x)[:, 2:]
        measured.value(f"e^{gate:,.0f}", (found - expected).abs().max().item(), above=above)


def test_one_number_per_key_is_enough(measured: Measured) -> None:
    """The query's own running sum is the same for all its keys: softmax cancels it."""
    layer, x = small()
    q, k, v = heads_of(layer, x)
    total = layer.log_gate(x).cumsum(dim=2)[..., None]
    q = torch.cat([q, torch.ones_like(total)], dim=3)  # (B, H, T, d + 1)
    k = torch.cat([k, -total * v.shape[3] ** 0.5], dim=3)
    heads = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=v.shape[3] ** -0.5)
    measured.close(layer(x), merged(layer, heads))


def test_a_gate_moves_weight_from_old_to_new_alone(measured: Measured) -> None:
    """Among the tokens before it, and among those from it on, shares stay as they were."""
    layer, x = small()
    for weight in (layer.q_proj.weight, layer.k_proj.weight):
        weight.data[:, 0] = 0  # the first feature is for the gate alone
    layer.gate_proj.weight.data[:, 0] = 1
    closed, m = x.detach().clone(), 4
    closed[:, m, 0] -= 3
    change = (layer.attention(closed).log() - layer.attention(x).log())[:, :, -1]  # (B, H, T)
    measured.close(change[..., :m], change[..., :1].expand(2, HEADS, m))
    measured.close(change[..., m:], change[..., -1:].expand(2, HEADS, 7 - m))
    measured.value("change of the logarithm, old", change[..., 0].max().item(), below=0)
    measured.value("new", change[..., -1].min().item(), above=0)


def test_order_counts_without_positions(measured: Measured) -> None:
    layer, x = small()
    swapped = x[:, [1, 0, 2, 3, 4, 5, 6]]
    change = (layer(swapped) - layer(x))[:, -1].abs().max().item()
    measured.value("change of the last output", change, above=0.01)
    change = (plain(layer)(swapped, is_causal=True) - plain(layer)(x, is_causal=True))[:, -1]
    measured.value("without gates", change.abs().max().item(), at_most=1e-10)


def test_the_cache_holds_what_each_token_has_lost(measured: Measured) -> None:
    layer, x = small()
    _, state = layer.step(x[:, :4])
    _, state = layer.step(x[:, 4:], state)
    gate = layer.log_gate(x)
    lost = [gate[:, :, j + 1 :].sum(dim=2) for j in range(7)]
    measured.close(state.decay, torch.stack(lost, dim=2))


def test_what_all_heads_forgot_may_be_dropped(measured: Measured) -> None:
    layer, x = small(T=9)
    starts = torch.zeros(2, 6, dtype=torch.bool)
    starts[:, 4] = True
    _, state = layer.step(x[:, :6], starts=starts)
    kept = ~state.decay.isneginf().all(dim=1).all(dim=0)
    measured.value("slots kept of six", int(kept.sum()), equals=2)
    fewer = ForgettingCache(state.keys[:, :, kept], state.values[:, :, kept], state.decay[:, :, kept])
    measured.close(layer.step(x[:, 6:], fewer)[0], layer.step(x[:, 6:], state)[0])


def test_texts_may_start_in_a_step(measured: Measured) -> None:
    layer, x = small()
    state, ys = None, []
    for token, start in zip(x.split(1, dim=1), STARTS.split(1, dim=1), strict=True):
        y, state = layer.step(token, state, start)
        ys.append(y)
    measured.close(torch.cat(ys, dim=1), layer(x, STARTS))


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    layer, x = small()
    changed = torch.cat([x[:, :3], torch.randn_like(x[:, 3:])], dim=1)
    measured.close(layer(changed)[:, :3], layer(x)[:, :3], tolerance=0)
    assert not torch.isclose(layer(changed), layer(x))[:, 3:].any()


def test_parameters_of_the_gates_of_32_heads(measured: Measured) -> None:
    """The sizes that the released layer has if none are given."""
    with torch.device("meta"):
        layer = ForgettingAttention(2048, 32)
    measured.count(sum(p.numel() for p in layer.gate_proj.parameters()), 32 * 2049)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((65, 4), "embed_dim 65 must be divisible by num_heads 4"),
        ((64, 0), "num_heads 0 must be at least 1"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ForgettingAttention(*arguments)


def test_refuses_starts_that_do_not_fit() -> None:
    layer, (x,) = example()
    with pytest.raises(ValueError, match=r"^starts \(1, 10\) must be \(B, T\) = \(2, 10\)"):
        layer(x, torch.zeros(1, 10, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"^starts must be bool, True = a text begins, not torch.int64"):
        layer(x, torch.zeros(2, 10, dtype=torch.int64))


def test_refuses_caches_whose_parts_do_not_fit() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    with pytest.raises(
        ValueError, match=r"^state decay \(2, 4, 9\) of torch.float32 must be \(B, heads, S\)"
    ):
        layer.step(x, state._replace(decay=state.decay[:, :, 1:]))
    with pytest.raises(ValueError, match=r"^state decay .* of torch.float64 must be .* of torch.float32"):
        layer.step(x, state._replace(decay=state.decay.double()))
