"""Proofs of shared keys and values."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.cache_utils import KVSharingDict
from transformers.models.gemma3n.configuration_gemma3n import Gemma3nTextConfig
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nTextAttention

from snippets.weight_assignment.self_attention.kv_sharing import (
    KVSharingStack,
    SharedCache,
    last_of_kind,
    rotate,
)
from tests.measure import Measured

E, HEADS = 8, 2
each_pattern = pytest.mark.parametrize("sources", [(0, 1, 2), (0, 0, 2, 2), (0, 1, 1, 1), (0, 1, 0, 1)])


def linear(x: Tensor, w: Tensor) -> Tensor:
    """Return x W^T."""
    return torch.einsum("...i,oi->...o", x, w)


def naive_core(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Return causal reads (B, T, H d) of q, k and v (B, T, H d)."""
    d = q.shape[-1] // heads
    out = []
    for b in range(q.shape[0]):
        rows = []
        for i in range(q.shape[1]):
            parts = []
            for h in range(heads):
                here = slice(h * d, (h + 1) * d)
                e, read = [], []
                for j in range(i + 1):
                    e.append(torch.exp((q[b, i, here] * k[b, j, here]).sum() * d**-0.5))
                    read.append(e[-1] * v[b, j, here])
                parts.append(sum(read) / sum(e))
            rows.append(torch.cat(parts))
        out.append(torch.stack(rows))
    return torch.stack(out)


def naive_rotate(u: Tensor, position: float, base: float) -> Tensor:
    """Return u (d) with its features turned by the position, pairs being half the width apart."""
    half = u.shape[0] // 2
    out = list(u)
    for i in range(half):
        a = position * base ** (-2 * i / u.shape[0])
        out[i] = u[i] * math.cos(a) - u[i + half] * math.sin(a)
        out[i + half] = u[i] * math.sin(a) + u[i + half] * math.cos(a)
    return torch.stack(out)


def naive_turned(x: Tensor, heads: int, sign: int, base: float = 1e4) -> Tensor:
    """Return (B, T, H d) with every head of token i turned by sign * i."""
    d = x.shape[-1] // heads
    rows = [
        torch.cat([naive_rotate(x[b, i, h * d : (h + 1) * d], sign * i, base) for h in range(heads)])
        for b in range(x.shape[0])
        for i in range(x.shape[1])
    ]
    return torch.stack(rows).reshape(x.shape)


def naive(x: Tensor, layers: list[dict[str, Tensor]], sources: tuple[int, ...], heads: int) -> Tensor:
    """Return a stack over dicts w_q, w_o and, for owners, w_k and w_v, or w_k alone for both."""
    kept: dict[int, tuple[Tensor, Tensor]] = {}
    for n, (p, source) in enumerate(zip(layers, sources, strict=True)):
        if source == n:
            k = naive_turned(linear(x, p["w_k"]), heads, 1)
            kept[n] = (k, linear(x, p["w_v"]) if "w_v" in p else k)
        k, v = kept[source]
        o = naive_core(naive_turned(linear(x, p["w_q"]), heads, 1), k, v, heads)
        x = x + linear(naive_turned(o, heads, -1) if k is v else o, p["w_o"])
    return x


def naive_sources(types: list[str], shared: int) -> list[int]:
    """Return the layer whose k, v each layer reads, the last `shared` sharing."""
    own = len(types) - shared
    return [n if n < own else max(m for m in range(own) if types[m] == types[n]) for n in range(len(types))]


def small(sources: tuple[int, ...], tied: bool = False, T: int = 4) -> tuple[KVSharingStack, Tensor]:
    """A stack with large random weights, and tokens."""
    torch.manual_seed(1)
    stack = KVSharingStack(E, HEADS, sources, tied).double().eval()
    for parameter in stack.parameters():
        nn.init.normal_(parameter, std=0.5)
    return stack, torch.randn(2, T, E, dtype=torch.float64, requires_grad=True)


def weights(stack: KVSharingStack) -> list[dict[str, Tensor]]:
    """The parameters of each layer under the names of the reference."""
    names = {"q_proj.weight": "w_q", "k_proj.weight": "w_k", "v_proj.weight": "w_v", "out_proj.weight": "w_o"}
    return [{names[name]: w for name, w in layer.named_parameters()} for layer in stack.layers]


def gemma(stack: KVSharingStack, kinds: list[str], own: int) -> list[Gemma3nTextAttention]:
    """Layers of transformers with the same weights and the scale of this page, without their norms."""
    config = Gemma3nTextConfig(
        hidden_size=E,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=E // HEADS,
        num_hidden_layers=len(kinds),
        num_kv_shared_layers=len(kinds) - own,
        layer_types=kinds,
        intermediate_size=E,
        activation_sparsity_pattern=[0.0] * len(kinds),
        attn_implementation="sdpa",
    )
    theirs = []
    for number, layer in enumerate(stack.layers):
        attention = Gemma3nTextAttention(config, layer_idx=number).double().eval()
        for name in ("q_norm", "k_norm", "v_norm"):
            if hasattr(attention, name):
                setattr(attention, name, nn.Identity())
        attention.scaling = (E // HEADS) ** -0.5
        attention.load_state_dict({name.replace("out", "o"): w for name, w in layer.state_dict().items()})
        theirs.append(attention)
    return theirs


def through(theirs: list[Gemma3nTextAttention], x: Tensor) -> Tensor:
    """Run the layers of transformers with residuals, as its decoder hands shared keys and values on."""
    T, d = x.shape[1], E // HEADS
    angle = torch.arange(T, dtype=torch.float64)[:, None] * 1e4 ** (-torch.arange(0, d, 2).double() / d)
    angles = torch.cat([angle, angle], dim=1)[None]
    mask = torch.ones(1, 1, T, T, dtype=torch.bool).tril()
    shared = KVSharingDict()
    for attention in theirs:
        x = x + attention(x, (angles.cos(), angles.sin()), mask, shared_kv_states=shared)[0]
    return x


@each_pattern
@pytest.mark.parametrize("tied", [False, True])
def test_equals_naive_reference(measured: Measured, sources: tuple[int, ...], tied: bool) -> None:
    stack, x = small(sources, tied)
    expected = naive(x, weights(stack), sources, HEADS)
    measured.close(stack(x), expected)
    measured.gradients(stack(x), expected, of=(x, *stack.parameters()))


@pytest.mark.parametrize("tied", [False, True])
def test_layers_equal_weights_times_values(measured: Measured, tied: bool) -> None:
    stack, x = small((0, 1, 0), tied)
    position, y, kept = torch.arange(4), x, {}
    for number, (layer, found) in enumerate(zip(stack.layers, stack.attention(x).unbind(1), strict=True)):
        if stack.sources[number] == number:
            kept[number] = layer.keep(y, position)
        own = kept[stack.sources[number]]
        read = found @ own[-1]
        read = rotate(read, -position, 1e4) if tied else read
        measured.close(layer(y, own, position), layer.out_proj(read.transpose(1, 2).flatten(2)))
        y = y + layer(y, own, position)
    measured.close(stack(x), y)


KINDS = ["sliding_attention", "full_attention"] * 3


@pytest.mark.parametrize(("kinds", "own"), [(KINDS, 2), (KINDS, 3), (KINDS[1::2], 1), (KINDS[1::2], 3)])
def test_equals_gemma(measured: Measured, kinds: list[str], own: int) -> None:
    stack, x = small(last_of_kind(kinds, own))
    y = through(gemma(stack, kinds, own), x)
    measured.close(stack(x), y)
    measured.gradients(stack(x), y, of=(x,))


def test_another_source_gives_another_output(measured: Measured) -> None:
    stack, x = small((0, 1, 1))
    other, _ = small((0, 1, 0))
    other.load_state_dict(stack.state_dict())
    measured.value("max |Δ|", (stack(x) - other(x)).abs().max().item(), above=0.1)


def test_a_sharing_layer_is_one_with_the_keys_of_its_source(measured: Measured) -> None:
    """With a residual stream that the first layer leaves as it is, the two have the same input."""
    stack, x = small((0, 0))
    alone, _ = small((0, 1))
    with torch.no_grad():
        stack.layers[0].out_proj.weight.zero_()
    state = stack.state_dict()
    state |= {f"layers.1.{name}.weight": state[f"layers.0.{name}.weight"] for name in ("k_proj", "v_proj")}
    alone.load_state_dict(state)
    measured.close(stack(x), alone(x))


@each_pattern
@pytest.mark.parametrize("tied", [False, True])
def test_a_prompt_needs_its_last_token_alone_in_the_last_layers(
    measured: Measured, sources: tuple[int, ...], tied: bool
) -> None:
    stack, x = small(sources, tied)
    y, state = stack.prompt(x)
    measured.close(y, stack(x)[:, -1:])
    after, _ = stack.step(x, state)
    measured.close(after, stack(torch.cat([x, x], dim=1))[:, 4:])


def test_a_prompt_through_four_of_seven_layers_takes_fewer_multiply_adds(measured: Measured) -> None:
    with torch.device("meta"):
        stack, x = KVSharingStack(512, 8, (0, 1, 2, 3, 3, 3, 3)), torch.empty(1, 4096, 512)
    counts = []
    for call in (stack, stack.prompt):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call(x)
        counts.append(counter.get_total_flops())
    measured.value("all / last alone", counts[0] / counts[1], equals=1.675, within=0.001)


def test_tied_a_shift_of_all_positions_changes_nothing(measured: Measured) -> None:
    stack, x = small((0, 1, 1), tied=True)
    layer = stack.layers[0]

    def read(start: int) -> Tensor:
        position = torch.arange(start, start + 4)
        return layer(x, layer.keep(x, position), position)

    measured.close(read(1000), read(0))
    moved = [stack.layers[0].out_proj(read_unturned(stack, x, start)) for start in (0, 1000)]
    measured.value("not rotated back, max |Δ|", (moved[1] - moved[0]).abs().max().item(), above=0.1)


def read_unturned(stack: KVSharingStack, x: Tensor, start: int) -> Tensor:
    """What the first layer reads at positions from `start` on, values left as they are rotated."""
    layer, position = stack.layers[0], torch.arange(start, start + 4)
    kept = layer.keep(x, position)
    return (layer.weigh(x, kept, position) @ kept[-1]).transpose(1, 2).flatten(2)


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    stack, x = small((0, 1, 1))
    changed = torch.cat([x[:, :2], torch.randn_like(x[:, 2:])], dim=1)
    measured.close(stack(changed)[:, :2], stack(x)[:, :2], tolerance=0)
    assert not torch.isclose(stack(changed), stack(x))[:, 2:].any()


def test_bytes_per_token_of_the_full_layers_of_gemma_3n(measured: Measured) -> None:
    """Seven of 35 layers see all tokens, three of them share; two heads of 256, in 16 bits."""
    config = Gemma3nTextConfig()
    own = config.num_hidden_layers - config.num_kv_shared_layers
    sources = last_of_kind(config.layer_types, own)
    assert list(sources) == naive_sources(config.layer_types, config.num_kv_shared_layers)
    measured.count(len(set(sources)), 20)
    full = [n for n, kind in enumerate(config.layer_types) if kind == "full_attention"]
    among = tuple(full.index(sources[n]) for n in full)
    for pattern, expected in ((tuple(range(7)), 14_336), (among, 8_192)):
        with torch.device("meta"):
            stack = KVSharingStack(512, 2, pattern).bfloat16()
            _, state = stack.step(torch.empty(1, 1, 512, dtype=torch.bfloat16))
        measured.count(sum(tensor.nbytes for kept in state.kept for tensor in kept), expected)


@pytest.mark.parametrize("sources", [(), (1, 1), (0, 2, 2), (0, 0, 1), (-1,), (0, 3)])
def test_refuses_sources_that_are_no_earlier_layer_with_keys(sources: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"sources \(.*\) must hold earlier layers with keys of their own"):
        KVSharingStack(E, HEADS, sources)


def test_refuses_kinds_that_no_layer_keeps() -> None:
    with pytest.raises(ValueError, match=r"kinds .* must hold each kind among the first 1"):
        last_of_kind(["full", "window"], own=1)


def test_refuses_heads_of_odd_width() -> None:
    with pytest.raises(ValueError, match="head_dim 3 must be even and at least 2"):
        KVSharingStack(6, 2, (0,))


def test_refuses_states_of_other_stacks() -> None:
    stack, x = KVSharingStack(E, HEADS, (0, 1, 1)), torch.randn(2, 4, E)
    for other in (KVSharingStack(E, HEADS, (0, 0)), KVSharingStack(E, HEADS, stack.sources, tied=True)):
        with pytest.raises(ValueError, match=r"^state .* must be"):
            stack.step(x, other.step(x)[1])
    first, second = stack.step(x)[1].kept
    for kept in ((first, (second[0][:, :, 1:], second[1])), ((first[0], first[1][:, :, 1:]), second)):
        with pytest.raises(ValueError, match=r"^state .* must be"):
            stack.step(x, SharedCache(kept))
