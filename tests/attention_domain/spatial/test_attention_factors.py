"""Proofs of generalized attention, the four attention factors."""

import math
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import GeneralizedAttention as PublicAttention
from torch import Tensor, nn

from snippets.attention_domain.spatial.attention_factors import GeneralizedAttention
from tests.measure import Measured

EXCEPTIONS = {
    "test_attention_changes_with_the_input": {
        "attention_factors:e4": "the relative position alone decides: all inputs have the same weights",
    },
    "test_a_choice_is_called_mode": {
        "attention_factors": "`factors` is the paper's code of four digits, no choice from a list",
    },
}
"""Checks of the contract that it cannot pass, with the reason."""

SUBSETS = ["".join(digits) for digits in product("01", repeat=4) if "1" in digits]
WRONG_IN_MMCV = [factors for factors in SUBSETS if factors[1] == "1" and factors[3] == "0"]


def relative_sinusoid(difference: float, dim: int, like: Tensor, wave_length: float = 1000.0) -> Tensor:
    """(dim/2,) = [sin(d / t_r), cos(d / t_r)], t_r = wave_length^(4 r / dim), r = 0 .. dim/4 - 1."""
    angles = [difference / wave_length ** (4.0 * r / dim) for r in range(dim // 4)]
    return like.new_tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


def attention_factors_logits(
    x: Tensor,
    heads: int,
    factors: str = "1111",
    w_query: Tensor | None = None,
    w_key: Tensor | None = None,
    w_x: Tensor | None = None,
    w_y: Tensor | None = None,
    u: Tensor | None = None,
    v: Tensor | None = None,
    kv_stride: int = 1,
    sign: float = 1.0,
) -> Tensor:
    """E[b, m, q, k] = E1 + E2 + E3 + E4, no 1/sqrt(d); bits of factors: q content x k content, q content x
    position, k content, position. w_query, w_key (heads d, C); w_x, w_y (heads d, pos_dim/2), each geometric
    term / sqrt(2); u (E3), v (E4) (heads d,); rows head-major. Position = sinusoid of
    sign * (query - key) in pixels."""
    batch, _, height, width = x.shape
    e1, e2, e3, e4 = (bit == "1" for bit in factors)
    q_positions = [(i, j) for i in range(height) for j in range(width)]
    k_positions = [(i, j) for i in range(0, height, kv_stride) for j in range(0, width, kv_stride)]
    rows = []
    for qy, qx in q_positions:
        row = []
        for ky, kx in k_positions:
            energy = x.new_zeros(batch, heads)
            if e1 or e2:
                z = torch.einsum("dc,bc->bd", w_query, x[:, :, qy, qx]).reshape(batch, heads, -1)
            if e1 or e3:
                key = torch.einsum("dc,bc->bd", w_key, x[:, :, ky, kx]).reshape(batch, heads, -1)
            if e2 or e4:
                dim = 2 * w_x.shape[1]
                r_x = w_x @ relative_sinusoid(sign * (qx - kx), dim, x) / math.sqrt(2)
                r_y = w_y @ relative_sinusoid(sign * (qy - ky), dim, x) / math.sqrt(2)
                r = (r_x + r_y).reshape(heads, -1)
            if e1:
                energy = energy + torch.einsum("bmd,bmd->bm", z, key)
            if e2:
                energy = energy + torch.einsum("bmd,md->bm", z, r)
            if e3:
                energy = energy + torch.einsum("md,bmd->bm", u.reshape(heads, -1), key)
            if e4:
                energy = energy + torch.einsum("md,md->m", v.reshape(heads, -1), r)
            row.append(energy)
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)  # (B, heads, HW, number of keys)


def naive_attention_factors(
    x: Tensor,
    logits: Tensor,
    w_value: Tensor,
    w_proj: Tensor,
    b_proj: Tensor,
    gamma: Tensor,
    kv_stride: int = 1,
) -> tuple[Tensor, Tensor]:
    """A = softmax over keys; y = gamma (W concat_m(sum_k A_m W'_m x_k) + b) + x; w_value (heads dv, C),
    w_proj (C, heads dv), b_proj (C,), gamma scalar; keys are x[::kv_stride] in both
    directions. Returns (A, y)."""
    batch, _, height, width = x.shape
    heads = logits.shape[1]
    e = torch.exp(logits - logits.amax(dim=-1, keepdim=True))
    a = e / e.sum(dim=-1, keepdim=True)
    keys = x[:, :, ::kv_stride, ::kv_stride].flatten(2)
    value = torch.einsum("dc,bck->bdk", w_value, keys).reshape(batch, heads, -1, keys.shape[2])
    out = [torch.einsum("bqk,bdk->bdq", a[:, m], value[:, m]) for m in range(heads)]
    out = torch.einsum("cd,bdq->bcq", w_proj, torch.cat(out, dim=1)) + b_proj[None, :, None]
    return a, gamma * out.reshape(batch, -1, height, width) + x


def block_and_map(
    factors: str, channels: int = 8, heads: int = 2, stride: int = 1, size: tuple[int, int] = (3, 4)
) -> tuple[GeneralizedAttention, Tensor]:
    """A block in float64 with all its parameters drawn anew, and a map of two samples."""
    torch.manual_seed(1)
    block = GeneralizedAttention(channels, heads, factors, stride).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block, torch.randn(2, channels, *size, dtype=torch.float64, requires_grad=True)


def public_forward(block: GeneralizedAttention, x: Tensor, factors: str) -> Tensor:
    """Output of mmcv's block run with the very tensors of ours, so that gradients reach them.

    mmcv's offset is q - k, ours and the paper's is k - q: the weights of the sines change their sign.
    """
    public = PublicAttention(
        block.proj.out_channels, num_heads=block.num_heads, kv_stride=block.stride, attention_type=factors
    )
    names = {
        "query.weight": "query_conv.weight",
        "key.weight": "key_conv.weight",
        "value.weight": "value_conv.weight",
        "position_x.weight": "appr_geom_fc_x.weight",
        "position_y.weight": "appr_geom_fc_y.weight",
        "u": "appr_bias",
        "v": "geom_bias",
        "proj.weight": "proj_conv.weight",
        "proj.bias": "proj_conv.bias",
        "gamma": "gamma",
    }
    tensors = {}
    for name, parameter in block.named_parameters():
        sine, cosine = parameter.chunk(2, dim=1) if name.startswith("position") else (None, None)
        tensors[names[name]] = parameter if sine is None else torch.cat([-sine, cosine], dim=1)
        if name in ("u", "v"):
            tensors[names[name]] = parameter.flatten()
    return torch.func.functional_call(public, tensors, (x,), strict=True)


@pytest.mark.parametrize(("size", "stride"), [((3, 3), 1), ((2, 4), 1), ((3, 4), 2)], ids=str)
@pytest.mark.parametrize("factors", SUBSETS)
def test_equals_naive_reference(measured: Measured, factors: str, size: tuple[int, int], stride: int) -> None:
    block, x = block_and_map(factors, stride=stride, size=size)
    with_names = dict(block.named_parameters())
    names = {"query": "query", "key": "key", "x": "position_x", "y": "position_y"}
    weights = {f"w_{key}": with_names.get(f"{name}.weight") for key, name in names.items()}
    matrices = {key: None if weight is None else weight.flatten(1) for key, weight in weights.items()}
    logits = attention_factors_logits(
        x, 2, factors, **matrices, u=with_names.get("u"), v=with_names.get("v"), kv_stride=stride, sign=-1
    )
    w_value, w_proj = block.value.weight.flatten(1), block.proj.weight.flatten(1)
    a, y = naive_attention_factors(x, logits, w_value, w_proj, block.proj.bias, block.gamma, stride)
    measured.close(block.attention(x).expand_as(a), a)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 6), (5, 7)], ids=str)
@pytest.mark.parametrize("factors", [factors for factors in SUBSETS if factors not in WRONG_IN_MMCV])
def test_equals_mmcv(measured: Measured, factors: str, size: tuple[int, int], stride: int) -> None:
    block, x = block_and_map(factors, stride=stride, size=size)
    public = public_forward(block, x, factors)
    measured.close(block(x), public)
    measured.gradients(block(x), public, of=(x, *block.parameters()))


@pytest.mark.parametrize("factors", WRONG_IN_MMCV)
def test_mmcv_is_wrong_with_e2_but_without_e4(measured: Measured, factors: str) -> None:
    block, x = block_and_map(factors, size=(6, 6))
    off = (public_forward(block, x, factors) - block(x)).abs().max().item()
    measured.value("max |Δ|, square map", off, above=0.1)
    block, x = block_and_map(factors, size=(5, 7))
    with pytest.raises(RuntimeError, match="must match"):
        public_forward(block, x, factors)


@pytest.mark.parametrize(("silent", "left"), [("u", "1101"), ("v", "1110"), ("query", "0011")])
def test_a_factor_without_weights_is_a_factor_left_out(measured: Measured, silent: str, left: str) -> None:
    block, x = block_and_map("1111")
    for name, parameter in block.named_parameters():
        if name.startswith(silent):
            nn.init.zeros_(parameter)
    without = GeneralizedAttention(8, 2, left).double()
    without.load_state_dict(block.state_dict(), strict=False)
    measured.close(block.attention(x), without.attention(x).expand(2, 2, 12, 12))
    measured.close(block(x), without(x))


def test_e3_adds_the_same_everywhere(measured: Measured) -> None:
    block, x = block_and_map("0010", size=(5, 7))
    added = (block(x) - x).flatten(2)
    measured.close(added, added[..., :1].expand_as(added))
    assert block.attention(x).shape == (2, 2, 1, 35)


def test_e4_ignores_the_input_and_makes_the_block_linear(measured: Measured) -> None:
    block, x = block_and_map("0001", size=(5, 7))
    nn.init.zeros_(block.proj.bias)
    other = torch.randn_like(x)
    measured.close(block.attention(other), block.attention(x), tolerance=0)
    measured.close(block(2 * x - 3 * other), 2 * block(x) - 3 * block(other))


@pytest.mark.parametrize("factors", ["0100", "0001"])
def test_relative_scores_move_with_the_query(measured: Measured, factors: str) -> None:
    block, x = block_and_map(factors, size=(5, 7))
    same = x[..., :1, :1].expand_as(x)  # every query has the same content
    score = block.scores(same)[0, 0].view(5, 7, 5, 7)
    measured.close(score[3, 4, 2:, 3:], score[1, 1, :-2, :-3])
    mirrored = score[2, 3] - score[2, 3].flip(1)
    assert mirrored.abs().max() > 0.01  # left and right differ: the sign of an offset counts


@pytest.mark.parametrize("factors", SUBSETS)
def test_only_relative_factors_know_positions(measured: Measured, factors: str) -> None:
    block, x = block_and_map(factors)
    order = torch.randperm(12)
    permuted = block(x.flatten(2)[..., order].view_as(x)).flatten(2)
    difference = (permuted - block(x).flatten(2)[..., order]).abs().max().item()
    if "1" in (factors[1], factors[3]):
        measured.value("max |Δ|, with E2 or E4", difference, above=1e-2)
    else:
        measured.value("max |Δ|, without", difference, below=1e-12)


def test_nine_sharp_heads_of_e4_are_a_3x3_convolution(measured: Measured) -> None:
    block, x = block_and_map("0001", channels=36, heads=9, size=(6, 8))
    nn.init.ones_(block.gamma)
    steps = torch.tensor([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], dtype=torch.float64)
    frequency = 1000 ** (-torch.arange(9, dtype=torch.float64) / 9)
    with torch.no_grad():
        block.v.copy_(torch.tensor([1e3, 0, 0, 0]).expand(9, 1, 4))  # reads the first channel of each head
        for axis, layer in enumerate((block.position_y, block.position_x)):
            angle = steps[:, axis, None] * frequency
            layer.weight.zero_()[::4] = torch.cat([angle.sin(), angle.cos()], dim=1)  # peak at the step
    weights = block.attention(x)[0].view(9, 6, 8, 6, 8)
    for head, (dy, dx) in enumerate(steps.int().tolist()):
        measured.close(weights[head, 2, 3, 2 + dy, 3 + dx], torch.ones((), dtype=torch.float64))
    proj, value = block.proj.weight.view(36, 9, 4), block.value.weight.view(9, 4, 36)
    kernel = torch.einsum("omd,mdi->oim", proj, value).view(36, 36, 3, 3)
    inside = (block(x) - x)[..., 1:-1, 1:-1]
    measured.close(inside, F.conv2d(x, kernel, block.proj.bias))


@pytest.mark.parametrize("factors", SUBSETS)
def test_starts_as_the_identity(measured: Measured, factors: str) -> None:
    x = torch.randn(2, 16, 5, 7)
    measured.close(GeneralizedAttention(16, 4, factors)(x), x, tolerance=0)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [("1111", 5_217), ("1000", 4_129), ("0100", 4_129), ("0010", 3_137), ("0001", 3_137)],
)
def test_parameters_equal_those_of_mmcv(measured: Measured, factors: str, expected: int) -> None:
    public = PublicAttention(32, num_heads=8, attention_type=factors)
    assert sum(parameter.numel() for parameter in public.parameters()) == expected
    ours = GeneralizedAttention(32, 8, factors).parameters()
    measured.count(sum(parameter.numel() for parameter in ours), expected)


@pytest.mark.parametrize("factors", ["1000", "0100", "0010", "0001"])
def test_every_factor_compiles_and_runs_in_bfloat16(factors: str) -> None:
    block, x = GeneralizedAttention(16, 4, factors, stride=2).eval(), torch.randn(2, 16, 5, 7)
    nn.init.ones_(block.gamma)
    torch.compiler.reset()
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), block(x))
    half = block.bfloat16()(1000 * x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()
    assert block.to("meta")(half.to("meta")).shape == x.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "channels 0"),
        ((16, 0), "num_heads 0"),
        ((16, 4, "1111", 0), "stride 0"),
        ((18, 2), "channels 18 must be divisible by num_heads 2 and 4"),
        ((64, 9), "channels 64 must be divisible by num_heads 9 and 4"),
        ((16, 4, "0000"), "factors '0000' must hold four digits"),
        ((16, 4, "111"), "factors '111' must hold four digits"),
        ((16, 4, "1112"), "factors '1112' must hold four digits"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeneralizedAttention(*arguments)


@pytest.mark.parametrize("arguments", [(16, 4.0, "1000"), (16, 4, "1000", 2.0)], ids=str)
def test_refuses_floats_for_counts(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="float"):
        GeneralizedAttention(*arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_offsets_are_computed_in_float32_at_least(dtype: torch.dtype) -> None:
    """In bfloat16 there is no offset 257; its waves must not be those of 256."""
    block, _ = block_and_map("0001", channels=8, heads=2)
    row = torch.zeros(1, 8, 1, 300, dtype=torch.float64)
    exact = block._offsets(block.position_x, 300, row)
    half = block.to(dtype)._offsets(block.position_x, 300, row.to(dtype))
    torch.testing.assert_close(half.double(), exact, rtol=0, atol=8 * torch.finfo(dtype).eps)


def test_refuses_a_map_without_a_batch() -> None:
    block, x = block_and_map("1000")
    with pytest.raises(ValueError, match=r"x \(8, 3, 4\) must be \(B, C, H, W\)"):
        block(x[0])
