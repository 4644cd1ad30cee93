"""Proofs of rotary positions."""

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CohereConfig, GPTNeoXConfig, LlamaConfig
from transformers.models.cohere.modeling_cohere import CohereAttention
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXAttention
from transformers.models.llama.modeling_llama import LlamaAttention

from snippets.foundations.rotary import MODES, RotaryAttention, RotaryCache, angles, example, rotate, to_half
from tests.measure import Measured

E, HEADS, T = 24, 3, 6  # heads of 8 features
each_mode = pytest.mark.parametrize("mode", MODES)
each_layout = pytest.mark.parametrize(
    ("mode", "rotary_dim"), [("half", 8), ("interleaved", 8), ("half", 4), ("interleaved", 4)]
)


def linear(x: Tensor, w: Tensor) -> Tensor:
    """Return x W^T."""
    return torch.einsum("...i,oi->...o", x, w)


def naive_pairs(d: int, interleaved: bool) -> list[tuple[int, int]]:
    """Return the features of pair i, (2 i, 2 i + 1) or (i, i + d / 2)."""
    if interleaved:
        return [(2 * i, 2 * i + 1) for i in range(d // 2)]
    return [(i, i + d // 2) for i in range(d // 2)]


def naive_turn(x: Tensor, angles: Sequence[float], interleaved: bool) -> Tensor:
    """Return x (d,) with its first 2 len(angles) features turned and the rest kept."""
    out = [x[n] for n in range(x.shape[0])]
    pairs = naive_pairs(2 * len(angles), interleaved)
    for (m, n), a in zip(pairs, angles, strict=True):
        c, s = math.cos(a), math.sin(a)
        out[m], out[n] = x[m] * c - x[n] * s, x[m] * s + x[n] * c
    return torch.stack(out)


def naive_rotate(x: Tensor, base: float, interleaved: bool, rotated: int) -> Tensor:
    """Return x (B, H, T, d) with token t turned to position t."""
    rows = []
    for b in range(x.shape[0]):
        for h in range(x.shape[1]):
            for t in range(x.shape[2]):
                turn = [t * base ** (-2 * i / rotated) for i in range(rotated // 2)]
                rows.append(naive_turn(x[b, h, t], turn, interleaved))
    return torch.stack(rows).reshape(x.shape)


def naive_core(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return (B, H, T, d) where query i reads the keys up to its own."""
    batch, heads, length, d = q.shape
    out = []
    for b in range(batch):
        for h in range(heads):
            for i in range(length):
                e = [torch.exp((q[b, h, i] * k[b, h, j]).sum() * d**-0.5) for j in range(i + 1)]
                read = sum(a * v[b, h, j] for j, a in enumerate(e))
                out.append(read / sum(e))
    return torch.stack(out).reshape(q.shape)


def naive(
    x: Tensor, weights: Sequence[Tensor], heads: int, base: float, interleaved: bool, rotated: int
) -> Tensor:
    """Return (B, T, E) of attention whose queries and keys, not values, are turned."""
    w_q, w_k, w_v, w_o = weights
    q, k, v = (linear(x, w).unflatten(-1, (heads, -1)).transpose(1, 2) for w in (w_q, w_k, w_v))
    q, k = (naive_rotate(one, base, interleaved, rotated) for one in (q, k))
    return linear(naive_core(q, k, v).transpose(1, 2).flatten(2), w_o)


def small(mode: str = "half", rotary_dim: int = 8, base: float = 100.0) -> tuple[RotaryAttention, Tensor]:
    """A layer with large random weights, and tokens."""
    torch.manual_seed(1)
    layer = RotaryAttention(E, HEADS, rotary_dim, base, mode).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    return layer, torch.randn(2, T, E, dtype=torch.float64, requires_grad=True)


def weights_of(layer: RotaryAttention) -> list[Tensor]:
    return [layer.get_parameter(f"{name}_proj.weight") for name in ("q", "k", "v", "out")]


def turns(position: Tensor, width: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine for each position, in float64."""
    angle = angles(position, width, base, torch.float64)
    return angle.cos(), angle.sin()


@each_layout
def test_equals_naive_reference(measured: Measured, mode: str, rotary_dim: int) -> None:
    layer, x = small(mode, rotary_dim)
    expected = naive(x, weights_of(layer), HEADS, 100.0, mode == "interleaved", rotary_dim)
    measured.close(layer(x), expected)
    measured.gradients(layer(x), expected, of=(x, *layer.parameters()))


@each_layout
def test_fused_forward_equals_weights_times_values(measured: Measured, mode: str, rotary_dim: int) -> None:
    layer, x = small(mode, rotary_dim)
    values = layer.v_proj(x).unflatten(2, (HEADS, -1))
    explicit = layer.out_proj(torch.einsum("bhts,bshd->bthd", layer.attention(x), values).flatten(2))
    measured.close(layer(x), explicit)
    measured.gradients(layer(x), explicit, of=(x, *layer.parameters()))


@each_layout
def test_scores_depend_on_the_distance_alone(measured: Measured, mode: str, rotary_dim: int) -> None:
    """All positions moved by 1234: the same scores. One token moved by one: others."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 5, 8, dtype=torch.float64)
    place = torch.tensor([0, 3, 4, 9, 200])

    def scores(of_queries: Tensor, of_keys: Tensor) -> Tensor:
        at = (turns(position, rotary_dim) for position in (of_queries, of_keys))
        turned = [rotate(x, *turn, mode) for x, turn in zip((q, k), at, strict=True)]
        return turned[0] @ turned[1].T

    measured.close(scores(place + 1234, place + 1234), scores(place, place))
    moved = (scores(place + 1, place) - scores(place, place)).abs().max().item()
    measured.value("keys one further away, max |Δ|", moved, above=0.1)


@each_mode
def test_rotations_keep_lengths_and_add_up(measured: Measured, mode: str) -> None:
    torch.manual_seed(0)
    x, one, other = torch.randn(4, 8, dtype=torch.float64), torch.arange(4), torch.tensor([5, 0, 300, 7])
    turned = rotate(x, *turns(one, 8), mode)
    measured.close(turned.norm(dim=-1), x.norm(dim=-1))
    measured.close(rotate(turned, *turns(other, 8), mode), rotate(x, *turns(one + other, 8), mode))
    measured.close(rotate(turned, *turns(-one, 8), mode), x)
    measured.close(turned[0], x[0], tolerance=0)  # position 0


def test_one_order_of_features_leads_from_one_layout_to_the_other(measured: Measured) -> None:
    """Exactly; and between layers, if the rows are reordered within each head."""
    torch.manual_seed(0)
    x, turn, order = torch.randn(T, 8, dtype=torch.float64), turns(torch.arange(T), 8), to_half(8)
    measured.close(rotate(x[:, order], *turn), rotate(x, *turn, "interleaved")[:, order], tolerance=0)
    layer, tokens = small("interleaved")
    other = small("half")[0]
    rows = (torch.arange(HEADS)[:, None] * 8 + order).flatten()
    state = layer.state_dict()
    other.load_state_dict(state | {name: state[name][rows] for name in ("q_proj.weight", "k_proj.weight")})
    measured.close(other(tokens), layer(tokens))


def test_mixed_layouts_give_other_outputs(measured: Measured) -> None:
    """The weights of one layout in the other; rows reordered across all heads at once; keys alone."""
    layer, x = small("interleaved")
    other, state = small("half")[0], layer.state_dict()
    rows = (torch.arange(HEADS)[:, None] * 8 + to_half(8)).flatten()
    wrong = {
        "as they are": state,
        "across heads": state
        | {f"{name}_proj.weight": state[f"{name}_proj.weight"][to_half(E)] for name in "qk"},
        "keys alone": state | {"k_proj.weight": state["k_proj.weight"][rows]},
    }
    for name, loaded in wrong.items():
        other.load_state_dict(loaded)
        measured.value(f"{name}, max |Δ|", (other(x) - layer(x)).abs().max().item(), above=0.5)


HALF = "llama olmo persimmon gpt_neox phi stablelm esm minicpm3 exaone4 afmoe dia evolla mistral4"
INTERLEAVED = "glm glm4 ernie4_5 helium moonshine cohere cohere2 blt"
REPEATED = ("cohere", "cohere2", "blt")  # their tables hold each cosine twice in a row


def layout(family: str) -> str:
    """Return which mode turns as the code of this family does, by its numbers."""
    torch.manual_seed(0)
    x, angle = torch.randn(1, 2, T, 8, dtype=torch.float64), angles(torch.arange(T), 8, dtype=torch.float64)
    table = angle.repeat_interleave(2, dim=-1) if family in REPEATED else torch.cat([angle, angle], dim=-1)
    turn = import_module(f"transformers.models.{family}.modeling_{family}").apply_rotary_pos_emb
    theirs = turn(x, x, table.cos()[None], table.sin()[None])[0]
    off = {mode: (rotate(x, angle.cos(), angle.sin(), mode) - theirs).abs().max().item() for mode in MODES}
    (found,) = [mode for mode in MODES if off[mode] < 1e-6]  # some compute in float32
    return found


def test_layouts_of_21_families(measured: Measured) -> None:
    found = {family: layout(family) for family in (HALF + " " + INTERLEAVED).split()}
    for mode, families in zip(MODES, (HALF, INTERLEAVED), strict=True):
        assert [family for family in found if found[family] == mode] == families.split()
        measured.count(len(families.split()), {"half": 13, "interleaved": 8}[mode])


def test_equals_llama(measured: Measured) -> None:
    layer, x = small("half", base=10_000.0)
    config = LlamaConfig(
        hidden_size=E, num_attention_heads=HEADS, num_key_value_heads=HEADS, attn_implementation="sdpa"
    )
    theirs = LlamaAttention(config, layer_idx=0).double().eval()
    theirs.load_state_dict({name.replace("out", "o"): w for name, w in layer.state_dict().items()})
    cos, sin = (torch.cat([half, half], dim=-1)[None] for half in turns(torch.arange(T), 8))
    y = theirs(x, (cos, sin))[0]
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x,))


def test_interleaved_equals_cohere(measured: Measured) -> None:
    """Its rotation computes in float32."""
    layer, x = small("interleaved", base=10_000.0)
    config = CohereConfig(
        hidden_size=E, num_attention_heads=HEADS, num_key_value_heads=HEADS, attn_implementation="sdpa"
    )
    theirs = CohereAttention(config, layer_idx=0).double().eval()
    theirs.load_state_dict({name.replace("out", "o"): w for name, w in layer.state_dict().items()})
    cos, sin = (half.repeat_interleave(2, dim=-1)[None] for half in turns(torch.arange(T), 8))
    measured.close(
        layer(x), theirs(x, attention_mask=None, position_embeddings=(cos, sin))[0], tolerance=1e-5
    )


def test_a_part_of_the_features_equals_gpt_neox(measured: Measured) -> None:
    """Its three projections are one, in each head one below the other."""
    layer, x = small("half", rotary_dim=4, base=10_000.0)
    rotary = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    config = GPTNeoXConfig(
        hidden_size=E,
        num_attention_heads=HEADS,
        attention_bias=False,
        rope_parameters=rotary,
        attn_implementation="sdpa",
    )
    theirs = GPTNeoXAttention(config, layer_idx=0).double().eval()
    *inner, outer = weights_of(layer)
    joined = torch.stack([w.unflatten(0, (HEADS, -1)) for w in inner], dim=1).flatten(0, 2)
    theirs.load_state_dict({"query_key_value.weight": joined, "dense.weight": outer})
    cos, sin = (torch.cat([half, half], dim=-1)[None] for half in turns(torch.arange(T), 4))
    y = theirs(x, attention_mask=None, position_embeddings=(cos, sin))[0]
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x,))


def test_a_new_key_turned_from_zero_is_wrong(measured: Measured) -> None:
    layer, x = small()
    _, state = layer.step(x[:, :3])
    right, _ = layer.step(x[:, 3:], state)
    measured.close(right, layer(x)[:, 3:])
    _, afresh = layer.step(x[:, 3:])  # the same tokens as if they were the first
    keys = torch.cat([state.keys, afresh.keys], dim=2)
    values = torch.cat([state.values, afresh.values], dim=2)
    wrong, _ = layer.step(x[:, :1], RotaryCache(keys, values))
    right, _ = layer.step(x[:, :1], layer.step(x)[1])
    measured.value("max |Δ|", (wrong - right).abs().max().item(), above=0.1)


def test_there_is_no_steady_decay(measured: Measured) -> None:
    """The mean over 64 pairs of cos(angle) is the score of two equal vectors of ones, by their distance."""
    mean = angles(torch.arange(10_001), 128, dtype=torch.float64).cos().mean(dim=-1)
    for distance, expected in ((1, 0.970), (10, 0.669), (100, 0.477), (1000, 0.159), (10_000, -0.028)):
        measured.value(f"at {distance}", mean[distance].item(), equals=expected, within=0.0006)
    rises = (mean.diff() > 0).double().mean().item()
    measured.value("share of steps at which it rises", rises, above=0.3)


def test_the_slowest_pair_of_128_features(measured: Measured) -> None:
    """Tokens until it has turned once, for the bases of Llama 2 and Llama 3."""
    for base, tokens in ((1e4, 54_410), (5e5, 2_559_196)):
        slowest = angles(torch.tensor(1), 128, base, torch.float64)[-1].item()
        measured.count(round(2 * math.pi / slowest), tokens)


def test_half_precision_knows_few_positions(measured: Measured) -> None:
    position = torch.arange(5000)
    for dtype, first in ((torch.bfloat16, 257), (torch.float16, 2049)):
        wrong = (position.to(dtype).long() != position).nonzero()
        measured.count(int(wrong[0]), first)
    for at in (1000, 32_768, 1_000_000):
        exact, single = (
            angles(torch.tensor(at), 128, dtype=dtype).cos().double()
            for dtype in (torch.float64, torch.float32)
        )
        off = (exact - single).abs().max().item()
        measured.value(f"cosine off in float32 at {at:,}", off, below=at * 1e-7)


@each_mode
def test_gradients_and_forward_mode(mode: str) -> None:
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    cos, sin = turns(torch.arange(3), 6)

    def turned(x: Tensor) -> Tensor:
        return rotate(x, cos, sin, mode)

    gradcheck: Any = torch.autograd.gradcheck
    assert gradcheck(turned, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(turned, x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((65, 4), "embed_dim 65 must be divisible by num_heads 4"),
        ((0, 4), "embed_dim 0 and num_heads 4 must be at least 1"),
        ((60, 4), "rotary_dim 15 must be even and at least 2"),
        ((64, 4, 0), "rotary_dim 0 must be even and at least 2"),
        ((64, 4, 18), "rotary_dim 18 must be at most head_dim 16"),
        ((64, 4, 8, 0.0), "base 0.0 must be above 0 and finite"),
        ((64, 4, 8, 1e4, "complex"), "mode 'complex' must be one of half, interleaved"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RotaryAttention(*arguments)


def test_refuses_rotations_that_do_not_fit() -> None:
    cos, sin = turns(torch.arange(3), 8)
    with pytest.raises(ValueError, match="two of the d features for each pair"):
        rotate(torch.randn(3, 6), cos, sin)
    with pytest.raises(ValueError, match="mode 'neox' must be one of half, interleaved"):
        rotate(torch.randn(3, 8), cos, sin, "neox")


def test_refuses_caches_whose_halves_do_not_fit() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    with pytest.raises(ValueError, match=r"^state values \(.*\) of torch.float32 must be \(B, heads, S, d\)"):
        layer.step(x, RotaryCache(state.keys, state.values[:, :, 1:]))
