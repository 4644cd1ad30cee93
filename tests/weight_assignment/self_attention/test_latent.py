"""Proofs of multi-head latent attention."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DeepseekV3Config, DynamicCache
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention

from snippets.weight_assignment.self_attention.latent import LatentAttention, LatentCache, example, rotate
from tests.measure import Measured

E, HEADS, R, N, P, V, R_Q = 10, 3, 8, 4, 6, 5, 7
each_kind_of_query = pytest.mark.parametrize("query_dim", [R_Q, None])


def linear(x: Tensor, w: Tensor) -> Tensor:
    """Return x W^T."""
    return torch.einsum("...i,oi->...o", x, w)


def naive_norm(x: Tensor, w: Tensor, eps: float = 1e-6) -> Tensor:
    """Return w x / sqrt(mean x^2 + eps) over the last axis."""
    return w * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def naive_rotate(u: Tensor, position: float, base: float = 1e4) -> Tensor:
    """Return a vector (d) with pair i turned by position * base^(-2 i / d)."""
    d = u.shape[0]
    out = list(u)
    for i in range(d // 2):
        a = position * base ** (-2 * i / d)
        out[2 * i] = u[2 * i] * math.cos(a) - u[2 * i + 1] * math.sin(a)
        out[2 * i + 1] = u[2 * i] * math.sin(a) + u[2 * i + 1] * math.cos(a)
    return torch.stack(out)


def naive(
    x: Tensor,
    w_q: Tensor,
    w_kva: Tensor,
    kv_norm: Tensor,
    w_uk: Tensor,
    w_uv: Tensor,
    w_o: Tensor,
    heads: int,
    d_rope: int,
    w_qa: Tensor | None = None,
    q_norm: Tensor | None = None,
) -> Tensor:
    """Return (B, T, E) from expanded keys and values, w_q being W_qb given w_qa."""
    t, r = x.shape[1], kv_norm.shape[0]
    d_n, d_v = w_uk.shape[0] // heads, w_uv.shape[0] // heads
    width = d_n + d_rope
    c_q = x if w_qa is None or q_norm is None else naive_norm(linear(x, w_qa), q_norm)
    q, a = linear(c_q, w_q), linear(x, w_kva)
    c = naive_norm(a[..., :r], kv_norm)
    k_n, v = linear(c, w_uk), linear(c, w_uv)
    out = []
    for b in range(x.shape[0]):
        k_r = [naive_rotate(a[b, j, r:], j) for j in range(t)]
        rows = []
        for i in range(t):
            parts = []
            for h in range(heads):
                both = q[b, i, h * width : (h + 1) * width]
                query = torch.cat([both[:d_n], naive_rotate(both[d_n:], i)])
                e, values = [], []
                for j in range(i + 1):
                    key = torch.cat([k_n[b, j, h * d_n : (h + 1) * d_n], k_r[j]])
                    e.append(torch.exp((query * key).sum() * width**-0.5))
                    values.append(v[b, j, h * d_v : (h + 1) * d_v])
                parts.append(sum(p * y for p, y in zip(e, values, strict=True)) / sum(e))
            rows.append(torch.cat(parts))
        out.append(torch.stack(rows))
    return linear(torch.stack(out), w_o)


def small(query_dim: int | None = R_Q, T: int = 6) -> tuple[LatentAttention, Tensor]:
    """A layer with large random weights, and tokens."""
    torch.manual_seed(1)
    layer = LatentAttention(E, HEADS, R, N, P, V, query_dim).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer, torch.randn(2, T, E, dtype=torch.float64, requires_grad=True)


def weights(layer: LatentAttention) -> dict[str, Tensor]:
    """The parameters under the names of the reference."""
    names = {"w_q": "q_up.weight", "w_kva": "kv_down.weight", "kv_norm": "kv_norm.weight"}
    names |= {"w_uk": "k_up.weight", "w_uv": "v_up.weight", "w_o": "out_proj.weight"}
    if not isinstance(layer.q_down, nn.Identity):
        names |= {"w_qa": "q_down.0.weight", "q_norm": "q_down.1.weight"}
    return {theirs: layer.get_parameter(ours) for theirs, ours in names.items()}


def deepseek(layer: LatentAttention) -> DeepseekV3Attention:
    """The layer of transformers with the same weights, its norms in float64."""
    query_dim = None if isinstance(layer.q_down, nn.Identity) else R_Q
    config = DeepseekV3Config(
        hidden_size=E,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        q_lora_rank=query_dim,
        kv_lora_rank=R,
        qk_nope_head_dim=N,
        qk_rope_head_dim=P,
        v_head_dim=V,
        attn_implementation="sdpa",
    )
    theirs = DeepseekV3Attention(config, layer_idx=0).double().eval()
    theirs.kv_a_layernorm = nn.RMSNorm(R, eps=1e-6).double()
    ups = [linear.weight.unflatten(0, (HEADS, -1)) for linear in (layer.k_up, layer.v_up)]
    state = {
        "kv_a_proj_with_mqa.weight": layer.kv_down.weight,
        "kv_a_layernorm.weight": layer.kv_norm.weight,
        "kv_b_proj.weight": torch.cat(ups, dim=1).flatten(0, 1),
        "o_proj.weight": layer.out_proj.weight,
    }
    if query_dim is None:
        state["q_proj.weight"] = layer.q_up.weight
    else:
        theirs.q_a_layernorm = nn.RMSNorm(R_Q, eps=1e-6).double()
        state["q_a_proj.weight"] = layer.get_parameter("q_down.0.weight")
        state["q_a_layernorm.weight"] = layer.get_parameter("q_down.1.weight")
        state["q_b_proj.weight"] = layer.q_up.weight
    theirs.load_state_dict(state)
    return theirs


def angles(positions: range) -> tuple[Tensor, Tensor]:
    """Cosines and sines (1, T, p) as transformers wants them: each pair's twice, in halves."""
    speed = 1e4 ** (-torch.arange(0, P, 2, dtype=torch.float64) / P)
    angle = torch.tensor(positions, dtype=torch.float64)[:, None] * speed
    both = torch.cat([angle, angle], dim=1)[None]
    return both.cos(), both.sin()


def causal(length: int) -> Tensor:
    return torch.ones(1, 1, length, length, dtype=torch.bool).tril()


@each_kind_of_query
def test_equals_naive_reference(measured: Measured, query_dim: int | None) -> None:
    layer, x = small(query_dim)
    expected = naive(x, **weights(layer), heads=HEADS, d_rope=P)
    measured.close(layer(x), expected)
    measured.gradients(layer(x), expected, of=(x, *layer.parameters()))


def test_forward_equals_weights_times_values(measured: Measured) -> None:
    layer, x = small()
    _, entries = layer._project(x, start=0)
    values = layer.v_up(entries[..., :R]).unflatten(2, (HEADS, V))
    explicit = layer.out_proj(torch.einsum("bhts,bshv->bthv", layer.attention(x), values).flatten(2))
    measured.close(layer(x), explicit)
    measured.gradients(layer(x), explicit, of=(x, *layer.parameters()))


@each_kind_of_query
@pytest.mark.parametrize("T", [1, 2, 6])
def test_absorbed_equals_expanded(measured: Measured, T: int, query_dim: int | None) -> None:
    """Of six tokens the last T ask."""
    layer, x = small(query_dim)
    q, entries = layer._project(x, start=0)
    q = q[:, :, -T:]
    absorbed, expanded = layer.read_absorbed(q, entries), layer.read_expanded(q, entries)
    measured.close(absorbed, expanded)
    measured.gradients(absorbed, expanded, of=(x, layer.k_up.weight, layer.v_up.weight))


@each_kind_of_query
def test_equals_deepseek(measured: Measured, query_dim: int | None) -> None:
    layer, x = small(query_dim)
    y = deepseek(layer)(x, angles(range(6)), causal(6))[0]
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x,))


@each_kind_of_query
def test_steps_equal_deepseek_with_its_cache(measured: Measured, query_dim: int | None) -> None:
    layer, x = small(query_dim)
    theirs, cache, state = deepseek(layer), DynamicCache(), None
    for start, tokens in zip((0, 3, 4, 5), x.split([3, 1, 1, 1], dim=1), strict=True):
        y, state = layer.step(tokens, state)
        mask = causal(3) if start == 0 else None
        here = angles(range(start, start + tokens.shape[1]))
        measured.close(y, theirs(tokens, here, mask, past_key_values=cache)[0])
    latents, keys = state.entries.split([R, P], dim=2)
    halves = torch.cat([keys[..., 0::2], keys[..., 1::2]], dim=2)
    measured.close(latents, cache.layers[0].keys[:, 0])
    measured.close(halves, cache.layers[0].values[:, 0])
    measured.value("keys unpermuted", (keys - cache.layers[0].values[:, 0]).abs().max().item(), above=0.1)


def test_absorbed_is_multi_query_with_the_scale_of_the_expanded_head(measured: Measured) -> None:
    layer, x = small()
    q, entries = layer._project(x, start=0)
    w_uk, w_uv = (linear.weight.unflatten(0, (HEADS, -1)) for linear in (layer.k_up, layer.v_up))
    asked = torch.cat([torch.einsum("bhtn,hnr->bhtr", q[..., :N], w_uk), q[..., N:]], dim=3)
    one = entries[:, None].expand(-1, HEADS, -1, -1)

    def output(scale: float) -> Tensor:
        read = F.scaled_dot_product_attention(asked, one, one[..., :R], is_causal=True, scale=scale)
        return torch.einsum("bhtr,hvr->bhtv", read, w_uv)

    measured.close(output((N + P) ** -0.5), layer.read_expanded(q, entries))
    wrong = (output((R + P) ** -0.5) - layer.read_expanded(q, entries)).abs().max()
    measured.value("scale 1 / √(r + p), max |Δ|", wrong.item(), above=0.1)


def test_a_shift_of_all_positions_changes_nothing(measured: Measured) -> None:
    layer, x = small()
    measured.close(
        layer.read_absorbed(*layer._project(x, start=1000)), layer.read_absorbed(*layer._project(x, start=0))
    )


def test_latents_could_not_be_rotated(measured: Measured) -> None:
    """Keys of rotated latents say where they stand, not how far apart: hence a part of its own."""
    layer, x = small()
    q, entries = layer._project(x, start=0)
    w_uk = layer.k_up.weight.unflatten(0, (HEADS, -1))

    def scores(first: int, rotate_latents: bool) -> Tensor:
        positions = torch.arange(first, first + 6)
        asked = rotate(q[..., :N], positions, 1e4)
        latents = rotate(entries[..., :R], positions, 1e4) if rotate_latents else entries[..., :R]
        keys = torch.einsum("bsr,hnr->bhsn", latents, w_uk)
        return asked @ (keys if rotate_latents else rotate(keys, positions, 1e4)).mT

    measured.close(scores(50, rotate_latents=False), scores(0, rotate_latents=False))
    moved = (scores(50, rotate_latents=True) - scores(0, rotate_latents=True)).abs().max()
    measured.value("rotated latents, max |Δ|", moved.item(), above=0.1)


def test_order_is_in_the_rotated_part_alone(measured: Measured) -> None:
    layer, x = small()
    order = [2, 0, 4, 1, 3, 5]
    moved = (layer(x[:, order]) - layer(x))[:, -1].abs().max()
    measured.value("permuted, max |Δ|", moved.item(), above=0.1)
    with torch.no_grad():
        layer.kv_down.weight[R:] = 0
    measured.close(layer(x[:, order])[:, -1], layer(x)[:, -1])


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    layer, x = small()
    changed = torch.cat([x[:, :3], torch.randn_like(x[:, 3:])], dim=1)
    measured.close(layer(changed)[:, :3], layer(x)[:, :3], tolerance=0)
    assert not torch.isclose(layer(changed), layer(x))[:, 3:].any()


def deepseek_v3() -> LatentAttention:
    """A layer of DeepSeek-V3, with shapes but no values."""
    with torch.device("meta"):
        return LatentAttention(7168, 128, 512, 128, 64, 128, query_dim=1536).bfloat16()


def multiply_adds(layer: LatentAttention, kind: str, T: int, S: int) -> int:
    """Count those with which T queries read S latents."""
    width = layer.head_dim + layer.rotated_dim
    like = {"device": "meta", "dtype": layer.k_up.weight.dtype}
    q = torch.empty(1, layer.num_heads, T, width, **like)
    entries = torch.empty(1, S, layer.latent_dim + layer.rotated_dim, **like)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        getattr(layer, f"read_{kind}")(q, entries)
    return counter.get_total_flops() // 2


def test_parameters_and_cache_of_deepseek_v3(measured: Measured) -> None:
    layer = deepseek_v3()
    norms = 1536 + 512
    measured.count(sum(p.numel() for p in layer.parameters()) - norms, 187_105_280)
    _, state = layer.step(torch.empty(1, 1, 7168, device="meta", dtype=torch.bfloat16))
    measured.count(61 * state.entries.nbytes, 70_272)


def test_one_query_of_4096_latents_costs_a_117th_absorbed(measured: Measured) -> None:
    layer = deepseek_v3()
    absorbed, expanded = (multiply_adds(layer, kind, 1, 4096) for kind in ("absorbed", "expanded"))
    measured.count(absorbed, 587_202_560)
    measured.value("expanded / absorbed", expanded / absorbed, equals=117.3, within=0.1)
    kept = 4096 * 128 * (192 + 128)  # keys and values ready in the cache
    measured.value("absorbed / uncompressed cache", absorbed / kept, equals=3.5, within=0.01)


def test_a_prompt_of_4096_costs_three_times_as_much_absorbed(measured: Measured) -> None:
    layer = deepseek_v3()
    absorbed, expanded = (multiply_adds(layer, kind, 4096, 4096) for kind in ("absorbed", "expanded"))
    measured.value("absorbed / expanded", absorbed / expanded, equals=3.18, within=0.01)


def test_absorbing_pays_up_to_163_queries_of_4096_latents(measured: Measured) -> None:
    layer = deepseek_v3()
    paying = [T for T in range(1, 4097) if layer.absorbing_pays(T, 4096)]
    measured.count(len(paying), max(paying))
    measured.count(max(paying), 163)


@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 2), (2, 2), (4, 9), (5, 9), (7, 40), (8, 40)])
def test_absorbing_pays_where_it_takes_fewer_multiply_adds(T: int, S: int) -> None:
    layer, _ = example()
    layer.to("meta")
    absorbed, expanded = (multiply_adds(layer, kind, T, S) for kind in ("absorbed", "expanded"))
    assert layer.absorbing_pays(T, S) is (absorbed < expanded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_dim": 0}, "latent_dim 0"),
        ({"rotated_dim": 5}, "rotated_dim 5 must be even and at least 2"),
        ({"rotated_dim": 0}, "rotated_dim 0 must be even and at least 2"),
        ({"query_dim": 0}, "query_dim 0 must be at least 1"),
        ({"base": 0.0}, "base 0.0 must be above 0 and finite"),
        ({"base": math.inf}, "base inf must be above 0 and finite"),
    ],
)
def test_refuses_impossible_arguments(change: dict[str, float], message: str) -> None:
    sizes = {"latent_dim": R, "head_dim": N, "rotated_dim": P, "value_dim": V}
    with pytest.raises(ValueError, match=message):
        LatentAttention(E, HEADS, **sizes | change)


def test_refuses_entries_of_another_shape() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    for entries in (state.entries[0], state.entries[..., 1:], state.entries[:, None]):
        with pytest.raises(ValueError, match=r"^state .* must be "):
            layer.step(x, LatentCache(entries))
