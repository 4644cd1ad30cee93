"""Proofs of the gated output."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextAttention

from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from snippets.weight_assignment.self_attention.output_gate import (
    MODES,
    GatedAttention,
    GatedCache,
    example,
)
from tests.measure import Measured

each_mode = pytest.mark.parametrize("mode", MODES)


def linear(x: Tensor, w: Tensor) -> Tensor:
    """Return x W^T."""
    return torch.einsum("...i,oi->...o", x, w)


def naive_core(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the ungated reads (B, T, H, d)."""
    out = []
    for b in range(q.shape[0]):
        for i in range(q.shape[1]):
            for h in range(q.shape[2]):
                scale = q.shape[-1] ** -0.5
                e = torch.stack([torch.exp((q[b, i, h] * k[b, j, h]).sum() * scale) for j in range(i + 1)])
                out.append(sum((e[j] * v[b, j, h] for j in range(i + 1)), v.new_zeros(())) / e.sum())
    return torch.stack(out).reshape(v.shape)


def naive_gate(o: Tensor, gate: Tensor) -> Tensor:
    """Return o (B, T, H, d) times the sigmoid of gate (B, T, H d) or (B, T, H)."""
    batch, t, heads, d = o.shape
    rows = []
    for b in range(batch):
        for i in range(t):
            for h in range(heads):
                for n in range(d):
                    a = gate[b, i, h if gate.shape[-1] == heads else h * d + n]
                    rows.append(o[b, i, h, n] / (1 + torch.exp(-a)))
    return torch.stack(rows).reshape(batch, t, heads * d)


def naive(layer: GatedAttention, x: Tensor) -> Tensor:
    """Return (B, T, E)."""
    inner = (layer.q_proj, layer.k_proj, layer.v_proj)
    q, k, v = (linear(x, part.weight).unflatten(-1, (layer.num_heads, -1)) for part in inner)
    gated = naive_gate(naive_core(q, k, v), linear(x, layer.gate_proj.weight))
    return linear(gated, layer.out_proj.weight)


def small(mode: str = "element") -> tuple[GatedAttention, Tensor]:
    """A layer with large random weights, and tokens."""
    torch.manual_seed(1)
    layer = GatedAttention(16, 4, mode).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer, torch.randn(2, 6, 16, dtype=torch.float64, requires_grad=True)


def plain(layer: GatedAttention) -> MultiHeadAttention:
    """The layer of multi-head attention with the same weights."""
    found = MultiHeadAttention(16, 4, bias=False).double().eval()
    found.load_state_dict({name: w for name, w in layer.state_dict().items() if "gate" not in name})
    return found


@each_mode
def test_equals_naive_reference(measured: Measured, mode: str) -> None:
    layer, x = small(mode)
    expected = naive(layer, x)
    measured.close(layer(x), expected)
    measured.gradients(layer(x), expected, of=(x, *layer.parameters()))


@each_mode
def test_forward_equals_weights_times_values_times_gate(measured: Measured, mode: str) -> None:
    layer, x = small(mode)
    read = torch.einsum("bhts,bshd->bthd", layer.attention(x), layer.v_proj(x).unflatten(2, (4, 4)))
    measured.close(layer(x), layer.out_proj((read * layer.gate(x)).flatten(2)))


def qwen3_next(layer: GatedAttention, packed: Tensor) -> Qwen3NextAttention:
    """Its attention with these weights of queries and gates, its norms of queries and keys switched off."""
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 4,
        "attn_implementation": "sdpa",
    }
    found = Qwen3NextAttention(Qwen3NextConfig(**sizes), layer_idx=0).double().eval()
    found.q_norm = found.k_norm = nn.Identity()  # type: ignore[assignment]
    state = {"q_proj.weight": packed, "o_proj.weight": layer.out_proj.weight}
    state |= {f"{name}.weight": layer.get_parameter(f"{name}.weight") for name in ("k_proj", "v_proj")}
    found.load_state_dict(state)
    return found


def unrotated(x: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine 1 and sine 0 for each token of heads with four features: no positions."""
    return x.new_ones(*x.shape[:2], 4), x.new_zeros(*x.shape[:2], 4)


def packed(layer: GatedAttention, heads: int) -> Tensor:
    """Queries of so many heads, then their gates, then the next ones: (2 E, E)."""
    parts = (w.unflatten(0, (-1, heads * 4)) for w in (layer.q_proj.weight, layer.gate_proj.weight))
    return torch.cat(list(parts), dim=1).flatten(0, 1)


def test_equals_qwen3_next(measured: Measured) -> None:
    layer, x = small()
    y, _ = qwen3_next(layer, packed(layer, heads=1))(x, unrotated(x), None)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x,))


@pytest.mark.parametrize("heads", [2, 4])
def test_queries_and_gates_are_packed_by_head(measured: Measured, heads: int) -> None:
    """Packed by groups of heads, the same weights have the same shape and are another function."""
    layer, x = small()
    y, _ = qwen3_next(layer, packed(layer, heads))(x, unrotated(x), None)
    measured.value(f"by groups of {heads}, max |Δ|", (layer(x) - y).abs().max().item(), above=0.1)


@each_mode
def test_a_gate_without_weights_halves_the_output(measured: Measured, mode: str) -> None:
    layer, x = small(mode)
    nn.init.zeros_(layer.gate_proj.weight)
    measured.close(layer(x), plain(layer)(x, is_causal=True) / 2)


@each_mode
def test_an_open_gate_is_plain_attention(measured: Measured, mode: str) -> None:
    layer, x = small(mode)
    with torch.no_grad():
        x[..., 0] = 1
        layer.gate_proj.weight.zero_()[:, 0] = 60
    measured.close(layer(x), plain(layer)(x, is_causal=True))


def test_the_gate_is_a_sigmoid_and_no_silu(measured: Measured) -> None:
    """The gate of a feed-forward layer, often of the same name, may pass more than all, and turn signs."""
    layer, x = small()
    gate, linear = layer.gate(x), layer.gate_proj(x)
    measured.value("smallest", gate.min().item(), above=0)
    measured.value("largest", gate.max().item(), below=1)
    measured.value("largest of a SiLU", nn.functional.silu(linear).max().item(), above=1)
    measured.value("smallest of a SiLU", nn.functional.silu(linear).min().item(), below=0)


@each_mode
def test_a_token_gates_itself_alone(measured: Measured, mode: str) -> None:
    layer, x = small(mode)
    changed = x + torch.eye(6, dtype=torch.float64)[3][:, None] * torch.randn(16, dtype=torch.float64)
    same = (layer.gate(changed) == layer.gate(x)).flatten(2).all(dim=2).all(dim=0)
    assert same.tolist() == [True, True, True, False, True, True]
    measured.value("change of its gate", (layer.gate(changed) - layer.gate(x)).abs().max().item(), above=0.1)


def test_a_gate_per_head_is_one_for_all_its_features(measured: Measured) -> None:
    head, x = small("head")
    element, _ = small("element")
    state = head.state_dict()
    state["gate_proj.weight"] = state["gate_proj.weight"].repeat_interleave(4, dim=0)
    element.load_state_dict(state)
    measured.close(head(x), element(x))


def test_a_gate_does_not_see_the_scores(measured: Measured) -> None:
    """Other tokens before it change what a token reads, and not how much of it passes."""
    layer, x = small()
    other = torch.cat([torch.randn_like(x[:, :-1]), x[:, -1:]], dim=1)
    measured.close(layer.gate(other)[:, -1], layer.gate(x)[:, -1], tolerance=0)
    measured.value(
        "weights, max |Δ|",
        (layer.attention(other) - layer.attention(x))[:, :, -1].abs().max().item(),
        above=0.1,
    )


def test_a_gate_makes_what_arrives_of_a_value_depend_on_who_reads(measured: Measured) -> None:
    """Plainly, a head maps every value by one matrix of rank d, and readers only weigh it."""
    torch.manual_seed(1)
    layer, x = small()
    maps = []  # from the features of the first token to the output of each reader, per unit of weight
    for reader in range(1, 6):
        gate = layer.gate(x)[0, reader, 0]  # (d,)
        maps.append(layer.out_proj.weight[:, :4] * gate @ layer.v_proj.weight[:4])
    assert all(torch.linalg.matrix_rank(each) == 4 for each in maps)
    together = torch.linalg.matrix_rank(torch.stack([each.flatten() for each in maps]))
    measured.value("different maps of five readers", int(together), equals=4)
    ungated = layer.out_proj.weight[:, :4] @ layer.v_proj.weight[:4]
    same = torch.linalg.matrix_rank(torch.stack([ungated.flatten()] * 5))
    measured.value("without a gate", int(same), equals=1)


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    for mode in MODES:
        layer, x = small(mode)
        changed = torch.cat([x[:, :3], torch.randn_like(x[:, 3:])], dim=1)
        measured.close(layer(changed)[:, :3], layer(x)[:, :3], tolerance=0)
        assert not torch.isclose(layer(changed), layer(x))[:, 3:].any()


def test_parameters_of_a_gate_of_16_heads_of_256(measured: Measured) -> None:
    """The widths of Qwen3-Next, whose heads together are twice as wide as its tokens: half of its gate."""
    for mode, expected in zip(MODES, (2048 * 2048, 2048 * 16), strict=True):
        with torch.device("meta"):
            measured.count(GatedAttention(2048, 16, mode).gate_proj.weight.numel(), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((65, 4), "embed_dim 65 must be divisible by num_heads 4"),
        ((64, 0), "num_heads 0 must be at least 1"),
        ((64, 4, "token"), "mode 'token' must be one of element, head"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatedAttention(*arguments)


def test_refuses_caches_whose_halves_do_not_fit() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    with pytest.raises(ValueError, match=r"^state values \(2, 4, 9, 16\) of torch.float32 must be"):
        layer.step(x, GatedCache(state.keys, state.values[:, :, 1:]))
