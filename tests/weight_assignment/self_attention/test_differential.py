"""Proofs of differential attention."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DiffLlamaConfig
from transformers.models.diffllama.modeling_diffllama import DiffLlamaAttention

from snippets.weight_assignment.self_attention.differential import (
    MODES,
    DifferentialAttention,
    DifferentialCache,
    example,
)
from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from tests.measure import Measured

LAYER = 3
each_mode = pytest.mark.parametrize("mode", MODES)


def linear(x: Tensor, w: Tensor) -> Tensor:
    """Return x W^T."""
    return torch.einsum("...i,oi->...o", x, w)


def naive_weights(q: Tensor, keys: Tensor, i: int) -> Tensor:
    """Return the weights of all S keys for a query at position i, 0 for later ones."""
    scale, later = q.shape[-1] ** -0.5, keys.shape[0] - i - 1
    e = torch.stack([torch.exp((q * keys[j]).sum() * scale) for j in range(i + 1)])
    return torch.cat([e / e.sum(), q.new_zeros(later)])


def naive_rms(x: Tensor, weight: Tensor) -> Tensor:
    """Return x (n,) over the root of its mean square, times the weight."""
    return x / torch.sqrt((x * x).sum() / x.shape[0] + 1e-5) * weight


def naive_maps(q: Tensor, k: Tensor, share: Tensor, pairs: list[tuple[int, int, int, int]]) -> Tensor:
    """Return A_1 - share A_2 (B, P, T, S), the pairs naming query heads 1 and 2 and key heads 1 and 2."""
    batch, _, t, _ = q.shape
    rows = []
    for b in range(batch):
        for p, (m, n, g, h) in enumerate(pairs):
            for i in range(t):
                one, two = naive_weights(q[b, m, i], k[b, g], i), naive_weights(q[b, n, i], k[b, h], i)
                rows.append(one - share[b, p, i] * two)
    return torch.stack(rows).reshape(batch, len(pairs), t, -1)


def naive(layer: DifferentialAttention, x: Tensor) -> Tensor:
    """Return (B, T, E)."""
    heads, v1 = layer.num_heads, layer.mode == "v1"
    q = linear(x, layer.q_proj.weight).unflatten(-1, (2 * heads, -1)).transpose(1, 2)
    k = linear(x, layer.k_proj.weight).unflatten(-1, (2 * heads if v1 else heads, -1)).transpose(1, 2)
    v = linear(x, layer.v_proj.weight).unflatten(-1, (heads, -1)).transpose(1, 2)
    init = 0.8 - 0.6 * math.exp(-0.3 * (LAYER - 1))
    if v1:
        one, two = ((layer.lambda_q[n] * layer.lambda_k[n]).sum() for n in range(2))
        share = (torch.exp(one) - torch.exp(two) + init).expand(x.shape[0], heads, x.shape[1])
        pairs = [(2 * p, 2 * p + 1, 2 * p, 2 * p + 1) for p in range(heads)]
    else:
        share = 1 / (1 + torch.exp(-linear(x, layer.lambda_proj.weight))).transpose(1, 2)
        pairs = [(2 * p, 2 * p + 1, p, p) for p in range(heads)]
    maps = naive_maps(q, k, share, pairs)
    out = []
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            for p in range(heads):
                read = torch.stack([maps[b, p, i, j] * v[b, p, j] for j in range(x.shape[1])]).sum(dim=0)
                out.append(naive_rms(read, layer.norm.weight) * (1 - init) if v1 else read)
    return linear(torch.stack(out).reshape(x.shape), layer.out_proj.weight)


def small(mode: str) -> tuple[DifferentialAttention, Tensor]:
    """A layer with large random weights, and tokens."""
    torch.manual_seed(1)
    layer = DifferentialAttention(12, 3, mode, LAYER).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    layer.reset_parameters()
    return layer, torch.randn(2, 6, 12, dtype=torch.float64, requires_grad=True)


def silence(layer: DifferentialAttention, x: Tensor) -> None:
    """Make lambda zero for these tokens, whose first feature becomes one."""
    with torch.no_grad():
        if layer.mode == "v1":
            layer.lambda_q.zero_()[1, 0] = 1
            layer.lambda_k.zero_()[1, 0] = math.log(1 + layer.init)  # 1 - (1 + init) + init
        else:
            x[..., 0] = 1
            layer.lambda_proj.weight.zero_()[:, 0] = -60


@each_mode
def test_equals_naive_reference(measured: Measured, mode: str) -> None:
    layer, x = small(mode)
    expected = naive(layer, x)
    measured.close(layer(x), expected)
    measured.gradients(layer(x), expected, of=(x, *layer.parameters()))


@each_mode
def test_fused_forward_equals_signed_weights_times_values(measured: Measured, mode: str) -> None:
    layer, x = small(mode)
    read = torch.einsum("bhts,bshd->bthd", layer.attention(x), layer.v_proj(x).unflatten(2, (3, 4)))
    if mode == "v1":
        read = (1 - layer.init) * layer.norm(read)
    measured.close(layer(x), layer.out_proj(read.flatten(2)))


def test_version_1_equals_diffllama(measured: Measured) -> None:
    """It pairs head h with head h + H/2, has no weights in its norm, and computes lambda in float32."""
    layer, x = small("v1")
    nn.init.ones_(layer.norm.weight)
    sizes: dict[str, Any] = {
        "hidden_size": 12,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "rms_norm_eps": 1e-5,
        "attn_implementation": "sdpa",
    }
    theirs = DiffLlamaAttention(DiffLlamaConfig(**sizes), layer_idx=LAYER - 1).double().eval()
    state: dict[str, Tensor] = {
        f"{name}_proj.weight": layer.get_parameter(f"{name}_proj.weight") for name in "qkv"
    }
    state = {name: w.unflatten(0, (3, 2, 2)).transpose(0, 1).flatten(0, 2) for name, w in state.items()}
    state["o_proj.weight"] = layer.out_proj.weight
    for n in range(2):
        state |= {f"lambda_q{n + 1}": layer.lambda_q[n], f"lambda_k{n + 1}": layer.lambda_k[n]}
    theirs.load_state_dict(state)
    y, _ = theirs(x, (x.new_ones(2, 6, 2), x.new_zeros(2, 6, 2)), None)
    measured.close(layer(x), y, tolerance=1e-5)
    measured.gradients(layer(x), y, of=(x,), tolerance=1e-4)


@each_mode
def test_lambda_zero_is_one_softmax(measured: Measured, mode: str) -> None:
    """Then only the first query heads count; version 1 still normalises what they read."""
    layer, x = small(mode)
    silence(layer, x)
    whole = MultiHeadAttention(12, 3, bias=False).double().eval()
    first, key = (w.unflatten(0, (-1, layer.head_dim)) for w in (layer.q_proj.weight, layer.k_proj.weight))
    if mode == "v2":
        state = layer.state_dict() | {"q_proj.weight": first[::2].flatten(0, 1)}
        state.pop("lambda_proj.weight")
        whole.load_state_dict(state)
        measured.close(layer(x), whole(x, is_causal=True))
    q, k = linear(x, first[::2].flatten(0, 1)), linear(x, (key[::2] if mode == "v1" else key).flatten(0, 1))
    q, k = (rows.unflatten(2, (3, -1)).transpose(1, 2) for rows in (q, k))
    scores = q @ k.mT * layer.head_dim**-0.5
    later = torch.ones(6, 6, dtype=torch.bool).triu(1)
    measured.close(layer.attention(x), scores.masked_fill(later, -torch.inf).softmax(dim=-1))


@each_mode
def test_rows_sum_to_one_minus_lambda(measured: Measured, mode: str) -> None:
    layer, x = small(mode)
    measured.close(layer.attention(x).sum(dim=-1), 1 - layer.difference(x)[..., 0])
    measured.value("smallest weight", layer.attention(x).min().item(), below=0)


@each_mode
def test_equal_maps_cancel(measured: Measured, mode: str) -> None:
    """What is left of two equal maps is 1 - lambda of one."""
    layer, x = small(mode)
    with torch.no_grad():
        for projection in (layer.q_proj, layer.k_proj)[: 2 if mode == "v1" else 1]:
            heads = projection.weight.unflatten(0, (3, 2, layer.head_dim))
            heads[:, 1] = heads[:, 0]
        x[..., 0] = 1
    weights, share = layer.attention(x), layer.difference(x)
    silence(layer, x)
    measured.close(weights, (1 - share) * layer.attention(x))


def test_layers_of_the_paper_start_higher_with_depth(measured: Measured) -> None:
    for layer, expected in enumerate((0.2, 0.3555, 0.4707, 0.5561), start=1):
        measured.value(
            f"layer {layer}", DifferentialAttention(8, 1, layer=layer).init, equals=expected, within=5e-5
        )


def test_two_official_pairings_of_grouped_heads_differ(measured: Measured) -> None:
    """Four pairs of query heads, two of key heads: repeated head by head, or pair by pair."""
    torch.manual_seed(1)
    q, k = torch.randn(1, 8, 5, 4, dtype=torch.float64), torch.randn(1, 4, 5, 4, dtype=torch.float64)
    share = torch.full((1, 4, 5), 0.5, dtype=torch.float64)
    by_head = [(2 * p, 2 * p + 1, p, p) for p in range(4)]  # key heads 0 0 1 1 2 2 3 3 for the eight queries
    by_pair = [(2 * p, 2 * p + 1, p // 2 * 2, p // 2 * 2 + 1) for p in range(4)]
    repeated = k.repeat_interleave(2, dim=1)
    alike = all(torch.equal(repeated[:, m], repeated[:, n]) for m, n, _, _ in by_head)
    measured.value("pairs with one key head, repeated by head", 4 * alike, equals=4)
    difference = (naive_maps(q, k, share, by_head) - naive_maps(q, k, share, by_pair)).abs().max().item()
    measured.value("max |Δ| of the weights", difference, above=0.1)


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    for mode in MODES:
        layer, x = small(mode)
        changed = torch.cat([x[:, :3], torch.randn_like(x[:, 3:])], dim=1)
        measured.close(layer(changed)[:, :3], layer(x)[:, :3], tolerance=0)
        assert not torch.isclose(layer(changed), layer(x))[:, 3:].any()


def test_parameters_of_both_versions(measured: Measured) -> None:
    """At E = 512 with eight pairs: 4 E² + 6 d with d = 32, and 5 E² + 8 E."""
    for mode, expected in zip(MODES, (1_048_768, 1_314_816), strict=True):
        measured.count(sum(p.numel() for p in DifferentialAttention(512, 8, mode).parameters()), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((12, 4), "embed_dim 12 must be divisible by heads 8"),
        ((13, 4, "v2"), "embed_dim 13 must be divisible by heads 4"),
        ((64, 0), "num_heads 0 and layer 1 must be at least 1"),
        ((64, 4, "v1", 0), "layer 0 must be at least 1"),
        ((64, 4, "v3"), "mode 'v3' must be one of v1, v2"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DifferentialAttention(*arguments)


def test_refuses_caches_whose_halves_do_not_fit() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    with pytest.raises(ValueError, match=r"^state values \(2, 4, 9, 16\) of torch.float32 must be"):
        layer.step(x, DifferentialCache(state.keys, state.values[:, :, 1:]))
