"""Proofs of bounded scores."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma2Config, Olmo2Config, Qwen3Config
from transformers.models.gemma2.modeling_gemma2 import Gemma2Attention
from transformers.models.olmo2.modeling_olmo2 import Olmo2Attention
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from snippets.weight_assignment.self_attention.bounded_logits import (
    MODES,
    BoundedAttention,
    BoundedCache,
    example,
)
from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from tests.measure import Measured

EPS, CAP = 1e-6, 2.0
each_mode = pytest.mark.parametrize("mode", MODES)


def linear(x: Tensor, w: Tensor) -> Tensor:
    """Return x W^T."""
    return torch.einsum("...i,oi->...o", x, w)


def naive_rms(x: Tensor, weight: Tensor) -> Tensor:
    """Return x (d,) over the root of its mean square, times the weight."""
    return x / torch.sqrt((x * x).sum() / x.shape[0] + EPS) * weight


def naive_unit(x: Tensor) -> Tensor:
    """Return x (d,) over its length."""
    return x / torch.sqrt((x * x).sum())


def naive_vectors(rows: Tensor, mode: str, weight: Tensor) -> Tensor:
    """Return queries or keys (B, T, H, d), one vector at a time, as the scores need them."""
    if mode == "soft_cap":
        return rows
    vectors = rows.flatten(2).flatten(0, 1) if mode == "full_norm" else rows.flatten(0, 2)
    normed = [naive_unit(x) if mode == "cosine" else naive_rms(x, weight) for x in vectors]
    return torch.stack(normed).reshape(rows.shape)


def naive(layer: BoundedAttention, x: Tensor) -> Tensor:
    """Return (B, T, E), one score at a time."""
    mode, heads = layer.mode, layer.num_heads
    q, k, v = (
        linear(x, w.weight).unflatten(-1, (heads, -1)) for w in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    none = x.new_zeros(0)
    norms = (layer.q_norm.weight, layer.k_norm.weight) if mode.endswith("norm") else (none, none)
    q, k = (naive_vectors(rows, mode, weight) for rows, weight in zip((q, k), norms, strict=True))
    scale = layer.factor if mode == "cosine" else q.shape[-1] ** -0.5
    out = []
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            for h in range(heads):
                e = []
                for j in range(i + 1):
                    score = (q[b, i, h] * k[b, j, h]).sum() * scale
                    e.append(torch.exp(CAP * torch.tanh(score / CAP) if mode == "soft_cap" else score))
                out.append(sum(a * v[b, j, h] for j, a in enumerate(e)) / sum(e))
    return linear(torch.stack(out).reshape(x.shape), layer.out_proj.weight)


def small(mode: str = "head_norm", width: int = 12, heads: int = 3) -> tuple[BoundedAttention, Tensor]:
    """A layer with large random weights, those of the norms too, and tokens."""
    torch.manual_seed(1)
    layer = BoundedAttention(width, heads, mode, CAP, EPS).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer, torch.randn(2, 7, width, dtype=torch.float64, requires_grad=True)


def queries_and_keys(layer: BoundedAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Before norm and cap: (B, heads, T, d)."""
    q, k = (
        part(x).unflatten(2, (layer.num_heads, -1)).transpose(1, 2) for part in (layer.q_proj, layer.k_proj)
    )
    return q, k


def rotated(x: Tensor, base: float = 10_000.0) -> Tensor:
    """Queries or keys (B, heads, T, d) turned to the positions 0 to T - 1, pairs (i, i + d / 2)."""
    half = x.shape[-1] // 2
    speed = base ** (-torch.arange(half, dtype=x.dtype) / half)
    angle = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * speed
    first, second = x[..., :half], x[..., half:]
    return torch.cat(
        [first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()], dim=-1
    )


@each_mode
def test_equals_naive_reference(measured: Measured, mode: str) -> None:
    layer, x = small(mode)
    expected = naive(layer, x)
    measured.close(layer(x), expected)
    measured.gradients(layer(x), expected, of=(x, *layer.parameters()))


@each_mode
def test_forward_equals_weights_times_values(measured: Measured, mode: str) -> None:
    layer, x = small(mode)
    read = torch.einsum("bhts,bshd->bthd", layer.attention(x), layer.v_proj(x).unflatten(2, (3, 4)))
    measured.close(layer(x), layer.out_proj(read.flatten(2)))


class Norm(nn.Module):
    """The norm of the layers of transformers without their cast to float32."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(weight.detach().clone()), eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight


def theirs(kind: Any, config: Any, layer: BoundedAttention) -> Any:
    """A layer of transformers with the same weights, and norms in float64."""
    found = kind(config, layer_idx=0).double().eval()
    state = {name.replace("out_proj", "o_proj"): w for name, w in layer.state_dict().items()}
    found.load_state_dict(state)
    if layer.mode.endswith("norm"):
        found.q_norm, found.k_norm = Norm(layer.q_norm.weight, EPS), Norm(layer.k_norm.weight, EPS)
    return found


SIZES: dict[str, Any] = {
    "hidden_size": 12,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 4,
    "rms_norm_eps": EPS,
    "attn_implementation": "sdpa",
}


def unrotated(x: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine 1 and sine 0 for each token of heads with four features: no positions."""
    return x.new_ones(*x.shape[:2], 4), x.new_zeros(*x.shape[:2], 4)


def test_a_norm_of_each_head_equals_qwen3(measured: Measured) -> None:
    layer, x = small("head_norm")
    y, _ = theirs(Qwen3Attention, Qwen3Config(**SIZES), layer)(x, unrotated(x), None)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x,))


def test_a_norm_of_all_heads_equals_olmo2(measured: Measured) -> None:
    layer, x = small("full_norm")
    y, _ = theirs(Olmo2Attention, Olmo2Config(**SIZES), layer)(x, unrotated(x), None)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x,))


def test_a_soft_cap_equals_gemma2(measured: Measured) -> None:
    """It computes the softmax in float32."""
    layer, x = small("soft_cap")
    capped = {"query_pre_attn_scalar": 4, "attn_logit_softcapping": CAP, "attn_implementation": "eager"}
    mask = torch.full((7, 7), -torch.inf, dtype=torch.float64).triu(1)[None, None]
    y, _ = theirs(Gemma2Attention, Gemma2Config(**SIZES | capped), layer)(x, unrotated(x), mask)
    measured.close(layer(x), y, tolerance=1e-5)


@pytest.mark.parametrize("mode", ["head_norm", "full_norm", "cosine"])
def test_longer_queries_and_keys_change_nothing(measured: Measured, mode: str) -> None:
    """But for `eps`."""
    layer, x = small(mode)
    before = layer(x)
    with torch.no_grad():
        for projection in (layer.q_proj, layer.k_proj):
            projection.weight *= 100
    measured.close(layer(x), before, tolerance=1e-4)
    whole = MultiHeadAttention(12, 3, bias=False).double().eval()
    state = {name: w for name, w in layer.state_dict().items() if "proj" in name}
    whole.load_state_dict(state)
    changed = whole(x, is_causal=True)
    whole.load_state_dict({name: w / 100 if name[0] in "qk" else w for name, w in state.items()})
    difference = (changed - whole(x, is_causal=True)).abs().max().item()
    measured.value("without a norm", difference, above=0.5)


def test_a_new_norm_of_each_head_is_a_cosine_times_the_root_of_its_width(measured: Measured) -> None:
    """But for `eps`."""
    layer, x = small("head_norm")
    nn.init.ones_(layer.q_norm.weight)
    nn.init.ones_(layer.k_norm.weight)
    cosine, _ = small("cosine")
    cosine.load_state_dict(
        {name: w for name, w in layer.state_dict().items() if "proj" in name}
        | {"factor": torch.tensor(2.0)}  # the root of four
    )
    measured.close(layer(x), cosine(x), tolerance=1e-4)


@pytest.mark.parametrize(("d", "T"), [(8, 16), (128, 4096)])
def test_largest_weight_that_a_new_norm_allows(measured: Measured, d: int, T: int) -> None:
    """One key along the query, all others against it."""
    layer = BoundedAttention(d, 1, eps=1e-12).double()
    for projection in (layer.q_proj, layer.k_proj):
        nn.init.eye_(projection.weight)
    x = torch.ones(1, T, d, dtype=torch.float64)
    x[:, :-1] *= -1
    rest = 1 - layer.attention(x)[0, 0, -1, -1].item()
    bound = 1 / (1 + (T - 1) * math.exp(-2 * math.sqrt(d)))
    measured.value(f"left with {T} tokens", rest, equals=1 - bound, within=1e-4 * (1 - bound))


def test_a_norm_of_all_heads_is_not_one_of_each(measured: Measured) -> None:
    layer, x = small("head_norm")
    full, _ = small("full_norm")
    state = layer.state_dict()
    for name in ("q_norm.weight", "k_norm.weight"):
        state[name] = state[name].repeat(3)
    full.load_state_dict(state)
    measured.value("max |Δ|", (layer(x) - full(x)).abs().max().item(), above=0.1)


def test_only_an_unweighted_norm_commutes_with_rotation(measured: Measured) -> None:
    layer, x = small("head_norm")
    q, _ = queries_and_keys(layer, x)
    apart = (rotated(layer.q_norm(q)) - layer.q_norm(rotated(q))).abs().max().item()
    measured.value("with weights", apart, above=0.1)
    nn.init.ones_(layer.q_norm.weight)
    measured.close(rotated(layer.q_norm(q)), layer.q_norm(rotated(q)))


def test_a_cap_behind_the_mask_leaks(measured: Measured) -> None:
    """What a cap makes of minus infinity is a score like any other."""
    torch.manual_seed(0)
    layer = BoundedAttention(16, 1, "soft_cap", CAP).double().eval()
    x = torch.randn(1, 900, 16, dtype=torch.float64)
    with torch.no_grad():
        q, k = queries_and_keys(layer, x)
        later = torch.ones(900, 900, dtype=torch.bool).triu(1)
        masked = (q @ k.mT / 4).masked_fill(later, -torch.inf)
        leaking = (CAP * torch.tanh(masked / CAP)).softmax(dim=-1)
        measured.value("on later keys, capped after", leaking[0, 0, 0, 1:].sum().item(), above=0.9)
        measured.value("on later keys, capped before", layer.attention(x)[0, 0, 0, 1:].sum().item(), equals=0)


@pytest.mark.parametrize("cap", [1.0, 5.0])
def test_weights_under_a_cap_differ_by_a_bounded_factor(measured: Measured, cap: float) -> None:
    torch.manual_seed(0)
    layer = BoundedAttention(12, 3, "soft_cap", cap).double().eval()
    weights = layer.attention(1000 * torch.randn(2, 7, 12, dtype=torch.float64))[:, :, -1]
    ratio = (weights.amax(dim=-1) / weights.amin(dim=-1)).max().item()
    measured.value(
        f"cap {cap:g}", ratio, above=0.9 * math.exp(2 * cap), at_most=math.exp(2 * cap) * (1 + 1e-9)
    )


def test_a_high_cap_is_plain_attention(measured: Measured) -> None:
    layer, x = small("soft_cap")
    whole = MultiHeadAttention(12, 3, bias=False).double().eval()
    whole.load_state_dict(layer.state_dict())
    apart = []
    for cap in (500.0, 5000.0):
        layer.cap = cap
        apart.append((layer(x) - whole(x, is_causal=True)).abs().max().item())
    measured.value("max |Δ| with cap 5000", apart[1], above=0, below=1e-4)
    measured.value("with cap 500, times that", apart[0] / apart[1], equals=100, within=2)


def test_a_cap_slows_the_gradient_of_large_scores(measured: Measured) -> None:
    """The factor is 1 - tanh² of the score over the cap."""
    score = torch.tensor([0.0, 2 * CAP], dtype=torch.float64, requires_grad=True)
    (CAP * torch.tanh(score / CAP)).sum().backward()
    assert score.grad is not None
    measured.value("at 0", score.grad[0].item(), equals=1)
    measured.value("at twice the cap", score.grad[1].item(), equals=0.071, within=5e-4)


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    for mode in MODES:
        layer, x = small(mode)
        changed = torch.cat([x[:, :3], torch.randn_like(x[:, 3:])], dim=1)
        measured.close(layer(changed)[:, :3], layer(x)[:, :3], tolerance=1e-12)
        assert not torch.isclose(layer(changed), layer(x))[:, 3:].any()


def test_parameters_of_the_norms(measured: Measured) -> None:
    """Of 32 heads of 128: one norm for all heads, one over all, one number, none."""
    plain = 4 * 4096**2
    for mode, expected in zip(MODES, (256, 8192, 1, 0), strict=True):
        with torch.device("meta"):
            layer = BoundedAttention(4096, 32, mode)
        measured.count(sum(p.numel() for p in layer.parameters()) - plain, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((65, 4), "embed_dim 65 must be divisible by num_heads 4"),
        ((64, 0), "num_heads 0 must be at least 1"),
        ((64, 4, "tanh"), "mode 'tanh' must be one of head_norm, full_norm, cosine, soft_cap"),
        ((64, 4, "soft_cap", 0.0), "cap 0.0 must be above 0 and finite"),
        ((64, 4, "head_norm", 50.0, -1.0), "eps -1.0 must be above 0 and finite"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoundedAttention(*arguments)


def test_refuses_caches_whose_halves_do_not_fit() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    with pytest.raises(ValueError, match=r"^state values \(2, 4, 9, 16\) of torch.float32 must be"):
        layer.step(x, BoundedCache(state.keys, state.values[:, :, 1:]))


def test_cosines_of_a_zero_token_are_zero_in_float16() -> None:
    layer, x = BoundedAttention(64, 4, "cosine").half(), torch.randn(2, 5, 64).half()
    x[0, 2] = 0
    assert layer(x).isfinite().all()
    assert layer.attention(x).isfinite().all()
