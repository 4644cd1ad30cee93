"""Proofs of rotary positions in two and three axes."""

import math
from collections.abc import Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DINOv3ViTConfig, Qwen2VLConfig
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTRopePositionEmbedding
from transformers.models.hunyuan_vl.modeling_hunyuan_vl import HunYuanVLRotaryEmbedding
from transformers.models.hunyuan_vl.modeling_hunyuan_vl import apply_rotary_pos_emb as turn_as_hunyuan
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig, Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VLAttention,
    Qwen2VLModel,
    Qwen2VLRotaryEmbedding,
    Qwen2VLVisionRotaryEmbedding,
)
from transformers.models.vjepa2.modeling_vjepa2 import rotate_queries_or_keys

from snippets.foundations import rotary
from snippets.foundations.rotary_axes import (
    RotaryAxesAttention,
    Turns,
    angles,
    axial,
    example,
    grid,
    mixed,
    mrope,
)
from tests.measure import Measured

PAIRS, T, BASE = (4, 2, 2), 9, 100.0
WAYS = {
    "axial": axial((3, 5), BASE),
    "contiguous": mrope(PAIRS, BASE),
    "interleaved": mrope(PAIRS, BASE, "interleaved"),
}
each_way = pytest.mark.parametrize("way", WAYS)
each_order = pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])


def naive_axial(place: Sequence[float], pairs: Sequence[int], base: float) -> list[float]:
    """Return the angles of axis 0, then those of axis 1, ..., f_i = b^(-2 i / (2 n)) for n pairs."""
    return [p * base ** (-2 * i / (2 * n)) for p, n in zip(place, pairs, strict=True) for i in range(n)]


def naive_axes(sections: Sequence[int], interleaved: bool) -> list[int]:
    """Return the axis of every pair: together, or t, h, w, t, ... with axis 0 where another is used up."""
    if not interleaved:
        return [axis for axis, n in enumerate(sections) for _ in range(n)]
    out = []
    for i in range(sum(sections)):
        turn, axis = divmod(i, len(sections))
        out.append(axis if turn < sections[axis] else 0)
    return out


def naive_angles(place: Sequence[float], way: str) -> list[float]:
    """Return the angle of every pair at a place."""
    if way == "axial":
        return naive_axial(place, (3, 5), BASE)
    d = 2 * sum(PAIRS)
    axes = naive_axes(PAIRS, way == "interleaved")
    return [place[a] * BASE ** (-2 * i / d) for i, a in enumerate(axes)]


def naive_turn(x: Tensor, angles: Sequence[float]) -> Tensor:
    """Return x (d,) with its pairs (i, i + d / 2) turned."""
    half = x.shape[0] // 2
    first, second = [], []
    for i, a in enumerate(angles):
        first.append(x[i] * math.cos(a) - x[i + half] * math.sin(a))
        second.append(x[i] * math.sin(a) + x[i + half] * math.cos(a))
    return torch.stack(first + second)


def naive(query: Tensor, key: Tensor, value: Tensor, position: Tensor, way: str, causal: bool) -> Tensor:
    """Return (B, H, T, d_v) of attention whose tokens are turned at their places."""
    batch, heads, length, d = query.shape
    out = []
    for b in range(batch):
        turns = [naive_angles(position[b, t].tolist(), way) for t in range(length)]
        for h in range(heads):
            q = [naive_turn(query[b, h, t], turns[t]) for t in range(length)]
            k = [naive_turn(key[b, h, t], turns[t]) for t in range(length)]
            for i in range(length):
                seen = range(i + 1 if causal else length)
                e = [torch.exp((q[i] * k[j]).sum() * d**-0.5) for j in seen]
                out.append(sum(a * value[b, h, j] for j, a in enumerate(e)) / sum(e))
    return torch.stack(out).reshape(batch, heads, length, -1)


def small(way: str, B: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys and values of 16 features, and places, those of each sample by themselves."""
    torch.manual_seed(1)
    query, key, value = (torch.randn(B, 2, T, width, dtype=torch.float64) for width in (16, 16, 3))
    position = torch.randint(7, (B, T, 2 if way == "axial" else 3))
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_(), position


def scores(query: Tensor, key: Tensor, turns: Turns, places: tuple[Tensor, Tensor]) -> Tensor:
    """Scores between vectors (N, d) at the places (N, axes) of queries and keys, in float64."""
    turned = []
    for x, place in zip((query, key), places, strict=True):
        angle = angles(place, turns, torch.float64)
        turned.append(rotary.rotate(x, angle.cos(), angle.sin()))
    return turned[0] @ turned[1].T


@each_order
@each_way
def test_equals_naive_reference(measured: Measured, way: str, causal: bool) -> None:
    *inputs, position = small(way)
    y = RotaryAxesAttention(WAYS[way], causal)(*inputs, position)
    expected = naive(*inputs, position, way, causal)
    measured.close(y, expected)
    measured.gradients(y, expected, of=inputs)


@each_order
@each_way
def test_fused_forward_equals_weights_times_values(measured: Measured, way: str, causal: bool) -> None:
    *inputs, position = small(way)
    attend = RotaryAxesAttention(WAYS[way], causal)
    explicit = attend.attention(*inputs, position) @ inputs[2]
    measured.close(attend(*inputs, position), explicit)
    measured.gradients(attend(*inputs, position), explicit, of=inputs)


@each_way
def test_scores_see_the_distance_along_each_axis(measured: Measured, way: str) -> None:
    """All places moved, by another number on each axis: the same scores. Queries alone on one: others."""
    query, key, _, position = small(way, B=1)
    place, axes = position[0], position.shape[2]
    before = scores(query[0, 0], key[0, 0], WAYS[way], (place, place))
    moved = place + torch.tensor([1234, -56, 7])[:axes]
    measured.close(scores(query[0, 0], key[0, 0], WAYS[way], (moved, moved)), before)
    for axis, step in enumerate(torch.eye(axes, dtype=torch.long)):
        after = scores(query[0, 0], key[0, 0], WAYS[way], (place + step, place))
        measured.value(f"axis {axis}, max |Δ|", (after - before).abs().max().item(), above=0.05)


@pytest.mark.parametrize("way", ["contiguous", "interleaved"])
def test_equal_numbers_on_all_axes_are_plain(measured: Measured, way: str) -> None:
    """Text is turned as by one axis. Where the numbers differ it is not, nor ever with the axes of a grid."""
    place = torch.arange(50)
    plain = rotary.angles(place, 16, BASE, torch.float64)
    measured.close(angles(place[:, None].expand(-1, 3), WAYS[way], torch.float64), plain)
    swapped = (angles(mixed(2, (1, 5, 5)), WAYS[way]) - angles(mixed(27), WAYS[way])).abs().max().item()
    measured.value("a picture in the text, max |Δ|", swapped, above=1)
    grid_like = angles(place[:, None].expand(-1, 2), axial((4, 4), BASE), torch.float64)
    measured.value("axial, max |Δ|", (grid_like - plain).abs().max().item(), above=1)


@each_way
def test_row_and_column_are_not_the_same(measured: Measured, way: str) -> None:
    query, key, value, position = small(way)
    attend = RotaryAxesAttention(WAYS[way])
    axes = [*range(position.shape[2])]
    swapped = position[..., [*axes[:-2], axes[-1], axes[-2]]]
    off = attend(query, key, value, swapped) - attend(query, key, value, position)
    measured.value("max |Δ|", off.abs().max().item(), above=0.3)


def test_counted_in_reading_order_the_end_of_a_row_is_next_to_a_start(measured: Measured) -> None:
    """Patches of a picture 8 wide, all alike: score with the next, within a row and around its end."""
    x = torch.ones(64, 64, dtype=torch.float64)
    flat = rotary.angles(torch.arange(64), 64, dtype=torch.float64)
    turned = rotary.rotate(x, flat.cos(), flat.sin())
    in_line = turned @ turned.T
    place = grid(8, 8)
    by_axis = scores(x, x, axial((16, 16)), (place, place))
    for name, found, apart in (("reading order", in_line, False), ("axial", by_axis, True)):
        off = (found[7, 8] - found[6, 7]).abs().item()
        measured.value(f"{name}, |Δ|", off, above=5 if apart else None, at_most=None if apart else 1e-10)


def test_contiguous_leaves_columns_slow_pairs(measured: Measured) -> None:
    """Share of the score lost 8 apart on one axis, among its own pairs, all features alike, base 10^6."""
    limits = {"contiguous": ((0.7, 0.8), (0.003, 0.005), (1e-7, 1e-6)), "interleaved": ((0.15, 0.25),) * 3}
    for mode, pairs in (("contiguous", (16, 24, 24)), ("interleaved", (24, 20, 20))):
        turns = mrope(pairs, 1e6, mode)
        for axis, name in enumerate(("time", "row", "column")):
            own = torch.tensor(turns.axis) == axis
            lost = 1 - angles(8 * torch.eye(3)[axis], turns, torch.float64)[own].cos().mean().item()
            above, below = limits[mode][axis]
            measured.value(f"{mode}, {name}", lost, above=above, below=below)


def dealt(family: str) -> tuple[str, str]:
    """Return which axis turns each of 20 pairs in the code of a family, for both features of the pairs."""
    module = import_module(f"transformers.models.{family}.modeling_{family}")
    (deal,) = {
        kind.recomposition_frequencies
        for name, kind in vars(module).items()
        if getattr(kind, "__module__", "") == module.__name__
        and hasattr(kind, "recomposition_frequencies")
        and not any(part in name for part in ("Vision", "Talker"))
    }
    pairs = (8, 6, 6) if family != "ernie4_5_vl_moe" else (6, 6, 8)  # its rows and columns first
    axes = torch.arange(3.0)[:, None, None, None].expand(3, 1, 1, 20).clone()
    table = "".join(map(str, deal(SimpleNamespace(mrope_section=pairs), axes).long().flatten().tolist()))
    neighbours = hasattr(module, "rotate_half_llm") or hasattr(module, "rotate_half_text")
    return (table[::2], table[1::2]) if neighbours else (table[:20], table[20:])


CONTIGUOUS = "qwen2_vl qwen2_5_vl qwen2_5_omni glm4v glm4v_moe glm_image glm_ocr paddleocr_vl"
INTERLEAVED = "qwen3_vl qwen3_vl_moe qwen3_omni_moe qwen3_5 qwen3_5_moe qwen4_exp cosmos3_edge"
OTHERS = {"ernie4_5_vl_moe": "12" * 6 + "0" * 8, "neomme": "01" * 10}


def test_axes_of_18_families(measured: Measured) -> None:
    for mode, families in (("contiguous", CONTIGUOUS), ("interleaved", INTERLEAVED)):
        ours = "".join(map(str, mrope((8, 6, 6), mode=mode).axis))
        assert {dealt(family) for family in families.split()} == {(ours, ours)}
        measured.count(len(families.split()), 8 if mode == "contiguous" else 7)
    for family, axes in OTHERS.items():
        assert dealt(family) == (axes, axes)
    measured.count(len(OTHERS), 2)
    first, second = dealt("hunyuan_vl")
    measured.count(sum(a != b for a, b in zip(first, second, strict=True)), 20)


def test_equals_qwen2_vl(measured: Measured) -> None:
    """Its text layer, with tables of ours: contiguous axes, words and a picture."""
    sections = {"rope_type": "default", "rope_theta": BASE, "mrope_section": list(PAIRS)}
    config = Qwen2VLTextConfig(
        hidden_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        rope_parameters=sections,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    theirs = Qwen2VLAttention(config, layer_idx=0).double().eval()
    x = torch.randn(2, T, 32, dtype=torch.float64, requires_grad=True)
    position = mixed(2, (1, 2, 2), 3).expand(2, -1, -1)
    cos, sin = Qwen2VLRotaryEmbedding(config)(x.float(), position.movedim(-1, 0))
    angle = angles(position, WAYS["contiguous"], torch.float64)
    for found, wave in ((cos, angle.cos()), (sin, angle.sin())):
        measured.close(found.double(), torch.cat([wave, wave], dim=-1), tolerance=1e-5)
    tables = tuple(torch.cat([wave, wave], dim=-1) for wave in (angle.cos(), angle.sin()))
    expected, _ = theirs(x, position_embeddings=tables, attention_mask=None)
    heads = [getattr(theirs, f"{name}_proj")(x).unflatten(2, (2, -1)).transpose(1, 2) for name in "qkv"]
    read = RotaryAxesAttention(WAYS["contiguous"], causal=True)(*heads, position)
    y = theirs.o_proj(read.transpose(1, 2).flatten(2))
    measured.close(y, expected)
    measured.gradients(y, expected, of=(x, *theirs.parameters()))


def test_tables_equal_those_of_vision_encoders(measured: Measured) -> None:
    """Qwen2-VL counts patches; DINOv3 takes centres between -1 and 1, times 2 pi, and base 100."""
    place = grid(5, 7)
    vision = Qwen2VLVisionRotaryEmbedding(Qwen2VLVisionConfig(embed_dim=64, num_heads=2))
    cos, sin = vision(torch.zeros(35, 64), place.T[:, None].movedim(0, 1))
    angle = angles(place, axial((8, 8))).repeat(1, 2)
    measured.close(cos.squeeze(), angle.cos(), tolerance=1e-5)
    measured.close(sin.squeeze(), angle.sin(), tolerance=1e-5)
    config = DINOv3ViTConfig(hidden_size=64, num_attention_heads=2, patch_size=4)
    cos, sin = DINOv3ViTRopePositionEmbedding(config).eval()(torch.zeros(1, 3, 20, 28))
    centre = 2 * math.pi * ((2 * place + 1) / torch.tensor([5, 7]) - 1)
    angle = angles(centre, axial((8, 8), base=100.0)).repeat(1, 2)
    measured.close(cos, angle.cos(), tolerance=1e-5)
    measured.close(sin, angle.sin(), tolerance=1e-5)


def theirs_behind(frames: int) -> tuple[Tensor, int]:
    """Places of two words, a clip of one patch a frame and three words by Qwen2-VL, and of the next word."""
    rotary_parameters = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "rope_parameters": rotary_parameters}
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2}
    config = Qwen2VLConfig(text_config=text, vision_config=vision)
    with torch.device("meta"):
        model = Qwen2VLModel(config)
    tokens = torch.tensor([[1, 2] + [config.video_token_id] * frames + [5, 6, 7]])
    kinds = torch.tensor([[0, 0] + [2] * frames + [0, 0, 0]])
    position, more = model.get_rope_index(tokens, kinds, video_grid_thw=torch.tensor([[frames, 2, 2]]))
    return position[:, 0].T, tokens.shape[1] + int(more)


def test_what_follows_a_clip(measured: Measured) -> None:
    """Behind one frame both agree. Behind ten, transformers puts words among the frames, then jumps."""
    found, following = theirs_behind(1)
    measured.close(found.double(), mixed(2, (1, 1, 1), 3).double(), tolerance=0)
    assert following == 6
    found, following = theirs_behind(10)
    ours = mixed(2, (10, 1, 1), 3)
    measured.close(found[:12].double(), ours[:12].double(), tolerance=0)
    measured.value("last frame", int(found[11, 0]), equals=11)
    for name, place, first, last in (("here", ours, 12, 14), ("transformers", found, 3, 5)):
        measured.value(f"{name}, first word behind", int(place[12, 0]), equals=first)
        measured.value(f"{name}, last word", int(place[-1, 0]), equals=last)
    measured.value("transformers, next word", following, equals=12)
    shared = (found[2:12, 0, None] == found[12:, 0]).any(0).sum().item()
    measured.value("words at the time of a frame", shared, equals=3)


def test_some_released_code_does_not_rotate(measured: Measured) -> None:
    """Two features of a pair turned by different angles: lengths change. V-JEPA 2, HunYuan-VL's pictures."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, 50, 16, dtype=torch.float64)
    stretched = rotate_queries_or_keys(x, torch.arange(50.0, dtype=torch.float64)).norm(dim=-1)
    off = (stretched / x.norm(dim=-1) - 1).abs().max().item()
    measured.value("V-JEPA 2, change of length", off, above=0.2)
    for name, place in (("words", mixed(50)), ("a picture", mixed((1, 5, 10)))):
        angle = place.T[:, None, :, None] * torch.tensor(mrope(PAIRS, BASE).pace, dtype=torch.float64)
        tables = (
            HunYuanVLRotaryEmbedding.recomposition_frequencies(SimpleNamespace(mrope_section=PAIRS), wave)
            for wave in (angle.cos(), angle.sin())
        )
        turned, _ = turn_as_hunyuan(x, x, *tables)
        off = (turned.norm(dim=-1) / x.norm(dim=-1) - 1).abs().max().item()
        limit: dict[str, Any] = {"at_most": 1e-5} if name == "words" else {"above": 0.2}
        measured.value(f"HunYuan-VL, {name}", off, **limit)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mrope((4, 2, 2), mode="zigzag"), "mode 'zigzag' must be one of contiguous, interleaved"),
        (lambda: mrope(()), r"pairs \(\) must hold one or more numbers of at least 1"),
        (lambda: axial((4, 0)), r"pairs \(4, 0\) must hold one or more numbers of at least 1"),
        (
            lambda: mrope((6, 6, 1), mode="interleaved"),
            r"pairs \(6, 6, 1\) must hold what is dealt in turn, which is \(8, 4, 1\)",
        ),
        (lambda: mixed(2, (1, 0, 3)), r"part \(1, 0, 3\) must hold numbers of at least 1"),
        (lambda: RotaryAxesAttention(Turns((0, 1), (1.0,))), "must hold as many axes as paces"),
    ],
)
def test_refuses_impossible_arguments(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_refuses_places_that_do_not_fit() -> None:
    attend, (query, key, value, position) = example()
    for wrong in (position[..., :2], position[:1], position[:, 1:], position[0]):
        with pytest.raises(ValueError, match=r"must be \(B, T, axes\) = \(2, 10, 3\)"):
            attend(query, key, value, wrong)
