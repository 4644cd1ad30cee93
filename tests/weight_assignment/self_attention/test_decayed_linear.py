"""Proofs of decayed linear attention."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import MiniMaxConfig
from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

from snippets.weight_assignment.self_attention.decayed_linear import (
    MODES,
    DecayedLinearAttention,
    DecayedState,
    decayed_linear,
    example,
)
from snippets.weight_assignment.self_attention.linear import linear_attention
from tests.measure import Measured

HEADS, WIDTH = 3, 4
each_mode = pytest.mark.parametrize("mode", MODES)
each_kind = pytest.mark.parametrize("per", ["head", "channel"])
each_chunk = pytest.mark.parametrize("chunk_size", [1, 3, 8, 64])


def naive_log_sigmoid(x: Tensor) -> Tensor:
    """Return log(1 / (1 + exp(-x))) without overflow."""
    return torch.clamp(x, max=0.0) - torch.log(1 + torch.exp(-torch.abs(x)))


def naive_gates(layer: DecayedLinearAttention, x: Tensor) -> Tensor:
    """Return the log gates, (B, T, H) or (B, T, H, d)."""
    heads, fixed = layer.num_heads, x.new_ones(*x.shape[:2], 1)
    if layer.mode == "retention":
        return fixed * torch.log(1 - x.new_tensor([2.0 ** (-5 - h) for h in range(heads)]))
    if layer.mode == "lightning":
        return fixed * -x.new_tensor([2.0 ** (-8 * (h + 1) / heads) for h in range(heads)])
    gates = naive_log_sigmoid(layer.gate_proj(x)) / 16
    return gates.unflatten(2, (heads, -1)) if layer.mode == "channel" else gates


def naive_decayed(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return out and S with S = diag(exp g) S + k v^T, read after the write."""
    (batch, t, heads, d), e = q.shape, v.shape[-1]
    out, states = [], []
    for b in range(batch):
        for h in range(heads):
            s = v.new_zeros(d, e)
            for i in range(t):
                gate = g[b, i, h] if g.dim() == 4 else torch.stack([g[b, i, h]] * d)
                s = torch.exp(gate)[:, None] * s + k[b, i, h][:, None] * v[b, i, h][None, :]
                out.append((q[b, i, h][:, None] * s).sum(0))
            states.append(s)
    read = torch.stack(out).reshape(batch, heads, t, e).transpose(1, 2)
    return read, torch.stack(states).reshape(batch, heads, d, e)


def naive_decayed_matrix(q: Tensor, k: Tensor, g: Tensor) -> Tensor:
    """Return A (B, H, T, T), each pair with its decay as a product over m = j+1..i."""
    batch, t, heads, _ = q.shape
    out = []
    for b in range(batch):
        for h in range(heads):
            for i in range(t):
                for j in range(t):
                    a = q[b, i, h] * k[b, j, h] * float(j <= i)
                    for m in range(j + 1, i + 1):
                        a = a * torch.exp(g[b, m, h])
                    out.append(a.sum())
    return torch.stack(out).reshape(batch, heads, t, t)


def small(mode: str, chunk_size: int = 3) -> tuple[DecayedLinearAttention, Tensor]:
    """A layer with large random weights, and tokens."""
    torch.manual_seed(1)
    layer = DecayedLinearAttention(HEADS * WIDTH, HEADS, mode, chunk_size).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer, torch.randn(2, 8, HEADS * WIDTH, dtype=torch.float64, requires_grad=True)


def heads(layer: DecayedLinearAttention, x: Tensor) -> list[Tensor]:
    """Scaled queries, keys and values: (B, T, H, d)."""
    projections = (layer.q_proj, layer.k_proj, layer.v_proj)
    q, k, v = (projection(x).unflatten(2, (HEADS, -1)) for projection in projections)
    return [q / WIDTH**0.5, k, v]


def inputs(per: str, T: int = 8) -> list[Tensor]:
    """Queries, keys, values of another width, and gates for the rule."""
    torch.manual_seed(1)
    q, k = torch.randn(2, 2, T, 3, 4, dtype=torch.float64)
    v, g = torch.randn(2, T, 3, 5, dtype=torch.float64), -torch.rand(2, T, 3, 4, dtype=torch.float64)
    return [t.requires_grad_() for t in (q, k, v, g if per == "channel" else g[..., 0].clone())]


def before_the_norm(layer: DecayedLinearAttention, x: Tensor) -> Tensor:
    """What `forward` hands to its norm: (B, T, H, d)."""
    seen: list[Tensor] = []
    hook = layer.norm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    layer(x)
    hook.remove()
    return seen[0]


@each_chunk
@each_mode
def test_equals_naive_reference(measured: Measured, mode: str, chunk_size: int) -> None:
    """Also chunks that do not divide T."""
    layer, x = small(mode, chunk_size)
    read, s = naive_decayed(*heads(layer, x), naive_gates(layer, x))
    normed = read / torch.sqrt((read * read).sum(-1, keepdim=True) / WIDTH + 1e-5)
    expected = layer.out_proj(normed.flatten(2))
    y, state = layer.step(x)
    measured.close(y, expected)
    measured.gradients(y, expected, of=(x, *layer.parameters()))
    measured.close(state.memory, s)


@each_chunk
@each_kind
def test_the_rule_equals_its_naive_reference(measured: Measured, per: str, chunk_size: int) -> None:
    q, k, v, g = inputs(per)
    expected, s = naive_decayed(q, k, v, g)
    out, state = decayed_linear(q, k, v, g, chunk_size=chunk_size)
    measured.close(out, expected)
    measured.gradients(out, expected, of=(q, k, v, g))
    measured.close(state, s)
    measured.gradients(state, s, of=(k, v, g))


@each_mode
def test_fading_sum_equals_weights_times_values(measured: Measured, mode: str) -> None:
    """The matrix that `forward` never makes."""
    layer, x = small(mode)
    q, k, v = heads(layer, x)
    weights = layer.attention(x)
    measured.close(weights, naive_decayed_matrix(q, k, naive_gates(layer, x)))
    expected = torch.einsum("bhts,bshd->bthd", weights, v)
    measured.close(before_the_norm(layer, x), expected)
    measured.gradients(before_the_norm(layer, x), expected, of=(x,))


@each_kind
def test_gates_of_zero_are_linear_attention(measured: Measured, per: str) -> None:
    q, k, v, g = inputs(per)
    out, state = decayed_linear(q, k, v, torch.zeros_like(g), chunk_size=3)
    expected, memory = linear_attention(q, k, v, chunk_size=3)
    measured.close(out, expected)
    measured.close(state, memory)
    measured.gradients(out, expected, of=(q, k, v))
    far = (decayed_linear(q, k, v, g)[0] - expected).abs().max().item()
    measured.value("max |Δ| with gates", far, above=0.1)


def test_equal_gates_of_channels_are_one_gate(measured: Measured) -> None:
    q, k, v, g = inputs("head")
    out, state = decayed_linear(q, k, v, g[..., None].expand_as(k), chunk_size=3)
    expected, memory = decayed_linear(q, k, v, g, chunk_size=3)
    measured.close(out, expected)
    measured.close(state, memory)


def test_channels_forget_by_themselves(measured: Measured) -> None:
    """Key 1 is written once, key 2 again and again: wanted are the first value and the last one."""
    T = 60
    torch.manual_seed(0)
    k = torch.eye(2, dtype=torch.float64)[[0] + [1] * (T - 1)][None, :, None]
    v = torch.nn.functional.normalize(torch.randn(1, T, 1, 8, dtype=torch.float64), dim=-1)
    wanted = torch.stack([v[0, 0, 0], v[0, -1, 0]])
    best = min(
        (decayed_linear(k, k, v, torch.full((1, T, 1), share).double().log())[1][0, 0] - wanted)
        .norm(dim=1)
        .max()
        .item()
        for share in torch.linspace(0.5, 1, 101).tolist()
    )
    measured.value("worse of both errors with the best gate per head", best, above=0.5)
    g = torch.tensor([0.0, -100.0], dtype=torch.float64).expand(1, T, 1, 2)
    measured.close(decayed_linear(k, k, v, g)[1][0, 0], wanted)


def test_a_lightning_layer_of_transformers_is_this_rule(measured: Measured) -> None:
    """Layers 1 and 3 of 4, in blocks of 5 tokens; the last one hardly forgets."""
    torch.manual_seed(1)
    for layer in (1, 3):
        config = MiniMaxConfig(
            hidden_size=12, num_attention_heads=3, head_dim=4, num_hidden_layers=4, block_size=5
        )
        theirs = MiniMaxLightningAttention(config, layer).double().eval()
        slopes = [2.0 ** (-8 * (h + 1) / 3) * (1 - layer / (3 + 1e-5) + 1e-5) for h in range(3)]
        theirs.slope_rate = torch.tensor(slopes, dtype=torch.float64)[:, None, None]
        theirs.query_decay, theirs.key_decay, theirs.diagonal_decay = theirs.decay_factors(theirs.slope_rate)
        theirs.norm = nn.RMSNorm(12, eps=theirs.norm.variance_epsilon).double()  # theirs computes in float32
        x = torch.randn(2, 13, 12, dtype=torch.float64, requires_grad=True)
        q, k, v = theirs.act_fn(theirs.qkv_proj(x)).unflatten(2, (3, 3, 4)).unbind(dim=3)
        g = -theirs.slope_rate[:, 0, 0].expand(2, 13, 3)
        out, memory = decayed_linear(q, k, v, g, chunk_size=4)
        ours = theirs.out_proj(theirs.output_gate(x).sigmoid() * theirs.norm(out.flatten(2)))
        expected, state = theirs(x, (x, x), None)
        measured.close(ours, expected)
        measured.close(memory, state)
        measured.gradients(ours, expected, of=(x, *theirs.parameters()))


def test_fixed_gates_are_those_of_the_papers(measured: Measured) -> None:
    """What is left after one token in eight heads of RetNet: 1 - 2^-5, ..., 1 - 2^-12."""
    x = torch.zeros(1, 1, 64, dtype=torch.float64)
    left = DecayedLinearAttention(64, 8, "retention").gates(x).exp().flatten()
    measured.value("first head", left[0].item(), equals=0.96875, within=1e-12)
    measured.value("eighth head", left[7].item(), equals=0.999755859375, within=1e-12)
    slopes = -DecayedLinearAttention(64, 8, "lightning").gates(x).flatten()
    measured.value("first slope of lightning", slopes[0].item(), equals=0.5, within=1e-12)
    measured.value("eighth slope", slopes[7].item(), equals=2**-8, within=1e-12)


def test_a_closed_gate_starts_anew(measured: Measured) -> None:
    """-100 at token 4; earlier tokens leave nothing behind."""
    for per in ("head", "channel"):
        q, k, v, g = (t.detach() for t in inputs(per))
        g[:, 4] = -100
        out, state = decayed_linear(q, k, v, g, chunk_size=3)
        fresh, memory = decayed_linear(q[:, 4:], k[:, 4:], v[:, 4:], g[:, 4:], chunk_size=3)
        measured.close(out[:, 4:], fresh)
        measured.close(state, memory)


def test_strong_gates_stay_in_range(measured: Measured) -> None:
    """-5 on each channel of 64 tokens in float32: exp(-g_j), summed, is infinite, differences are not."""
    q, k, v, _ = (t.detach() for t in inputs("channel", T=64))
    g = torch.full_like(k, -5.0)
    out, _ = decayed_linear(q.float(), k.float(), v.float(), g.float())
    expected, _ = naive_decayed(q, k, v, g)
    measured.close(out.double(), expected, tolerance=1e-5)
    apart = (-g.float().cumsum(dim=1)).exp()
    measured.value("infinite factors", apart.isinf().sum().item(), above=0)


@each_mode
def test_later_tokens_do_not_change_earlier_outputs(measured: Measured, mode: str) -> None:
    layer, x = small(mode)
    changed = torch.cat([x[:, :3], torch.randn_like(x[:, 3:])], dim=1)
    measured.close(layer(changed)[:, :3], layer(x)[:, :3], tolerance=0)
    assert not torch.isclose(layer(changed), layer(x))[:, 3:].any()


def test_parameters_of_the_four_modes(measured: Measured) -> None:
    """E = 512 with eight heads: 4 E² and the projection of the gates."""
    gates = {"retention": 0, "lightning": 0, "scalar": 8 * 513, "channel": 16 * 512 * 2 + 512}
    for mode in MODES:
        layer = DecayedLinearAttention(512, 8, mode)
        measured.count(sum(p.numel() for p in layer.parameters()), 4 * 512**2 + gates[mode])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4), "embed_dim 0, num_heads 4 and chunk_size 64 must be at least 1"),
        ((64, 4, "scalar", 0), "chunk_size 0 must be at least 1"),
        ((65, 4), "embed_dim 65 must be divisible by num_heads 4"),
        ((64, 4, "gla"), "mode 'gla' must be one of retention, lightning, scalar, channel"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecayedLinearAttention(*arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": torch.randn(2, 5, 3, 6)}, r"q \(2, 5, 3, 4\) and k \(2, 5, 3, 6\) must be \(B, T, H, d\)"),
        ({"v": torch.randn(2, 6, 3, 7)}, r"v \(2, 6, 3, 7\) must be \(B, T, H, e\) = \(2, 5, 3, 'e'\)"),
        ({"g": torch.zeros(2, 5)}, r"g \(2, 5\) must be \(B, T, H\) or \(B, T, H, d\)"),
        ({"g": torch.full((2, 5, 3), 0.1)}, "g 0.1 must be at most 0"),
        ({"g": torch.full((2, 5, 3), -torch.inf)}, "g -inf must be finite"),
        ({"g": torch.full((2, 5, 3), torch.nan)}, "g nan must be finite"),
        ({"chunk_size": 0}, "chunk_size 0 must be at least 1"),
        ({"state": torch.zeros(1, 3, 4, 7)}, r"state \(1, 3, 4, 7\) of torch.float32 must be"),
        ({"state": torch.zeros(2, 3, 4, 7).double()}, r"state \(2, 3, 4, 7\) of torch.float64 must be"),
    ],
)
def test_the_rule_refuses_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    q, k, v, g = (
        torch.randn(2, 5, 3, 4),
        torch.randn(2, 5, 3, 4),
        torch.randn(2, 5, 3, 7),
        torch.zeros(2, 5, 3),
    )
    with pytest.raises(ValueError, match=message):
        decayed_linear(**{"q": q, "k": k, "v": v, "g": g, **changes})


def test_refuses_a_state_of_another_layer() -> None:
    layer, (x,) = example()
    with pytest.raises(ValueError, match="state tuple must be a DecayedState"):
        layer.step(x, (torch.zeros(2, 4, 6, 6),))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^state \(2, 4, 6, 7\) of torch.float32 must be"):
        layer.step(x, DecayedState(torch.zeros(2, 4, 6, 7)))
