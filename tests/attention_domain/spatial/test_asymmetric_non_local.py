"""Proofs of the asymmetric non-local blocks."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from snippets.attention_domain.spatial.asymmetric_non_local import AFNB, APNB, PYRAMID, pyramid
from snippets.attention_domain.spatial.non_local import NonLocalBlock
from tests.measure import Measured
from tests.memory import peak_bytes
from tests.resnet import parameters

BatchNorm = tuple[Tensor, Tensor, Tensor, Tensor]  # weight, bias, running mean, running var, each (D,)


def conv_bn(x: Tensor, w: Tensor, b: Tensor, bn: BatchNorm, relu: bool, eps: float = 1e-5) -> Tensor:
    """1x1 conv w (D, C), b (D,), then eval BatchNorm (affine formula), then ReLU if asked; x (B, C, H, W)."""
    y = torch.einsum("dc,bchw->bdhw", w, x) + b[None, :, None, None]
    weight, bias, mean, var = (t[None, :, None, None] for t in bn)
    y = (y - mean) / torch.sqrt(var + eps) * weight + bias
    return torch.relu(y) if relu else y


def pyramid_anchors(x: Tensor, sizes: tuple[int, ...] = (1, 3, 6, 8)) -> Tensor:
    """Mean over each adaptive bin [floor(i H / s), ceil((i + 1) H / s)) x same for W; gives (B, C, S)."""
    height, width = x.shape[2:]
    anchors = []
    for s in sizes:
        for i in range(s):
            for j in range(s):
                top, bottom = (i * height) // s, math.ceil((i + 1) * height / s)
                left, right = (j * width) // s, math.ceil((j + 1) * width / s)
                area = (bottom - top) * (right - left)
                anchors.append(x[:, :, top:bottom, left:right].sum(dim=(2, 3)) / area)
    return torch.stack(anchors, dim=2)


def anchor_attention(
    query: Tensor, key: Tensor, value: Tensor, sizes: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """a_is = softmax_s(K^-1/2 q_i . k_s), context_i = sum_s a_is v_s; k, v pooled to S anchors.

    query (B, K, H, W), key (B, K, h, w), value (B, V, h, w); returns a (B, H*W, S), context (B, V, H, W).
    """
    k, v = pyramid_anchors(key, sizes), pyramid_anchors(value, sizes)
    s = torch.einsum("bkn,bks->bns", query.flatten(2), k) / query.shape[1] ** 0.5
    e = torch.exp(s - s.max(dim=2, keepdim=True).values.detach())
    a = e / e.sum(dim=2, keepdim=True)
    context = torch.einsum("bns,bvs->bvn", a, v)
    return a, context.reshape(*context.shape[:2], *query.shape[2:])


def naive_apnb(
    x: Tensor,
    w_key: Tensor,
    b_key: Tensor,
    bn_key: BatchNorm,
    w_value: Tensor,
    b_value: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    w_fuse: Tensor,
    b_fuse: Tensor,
    bn_fuse: BatchNorm,
    sizes: tuple[int, ...] = (1, 3, 6, 8),
) -> tuple[Tensor, Tensor]:
    """APNB: y = ReLU(BN(W_fuse [W_out context, x])), f_query = f_key the same conv + BN + ReLU; returns y, a.

    x (B, C, H, W); w_key (K, C), b_key (K,); w_value (V, C), b_value (V,) without BN or ReLU;
    w_out (C', V), b_out (C',);
    w_fuse (O, C' + C), b_fuse (O,): context channels first. a (B, N, S), y (B, O, H, W).
    """
    q = conv_bn(x, w_key, b_key, bn_key, relu=True)
    value = torch.einsum("vc,bchw->bvhw", w_value, x) + b_value[None, :, None, None]
    a, context = anchor_attention(q, q, value, sizes)
    context = torch.einsum("cv,bvhw->bchw", w_out, context) + b_out[None, :, None, None]
    return conv_bn(torch.cat([context, x], dim=1), w_fuse, b_fuse, bn_fuse, relu=True), a


def naive_afnb(
    low: Tensor,
    high: Tensor,
    w_query: Tensor,
    b_query: Tensor,
    bn_query: BatchNorm,
    w_key: Tensor,
    b_key: Tensor,
    bn_key: BatchNorm,
    w_value: Tensor,
    b_value: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    w_fuse: Tensor,
    b_fuse: Tensor,
    bn_fuse: BatchNorm,
    sizes: tuple[int, ...] = (1, 3, 6, 8),
) -> tuple[Tensor, Tensor]:
    """AFNB: y = BN(W_fuse [W_out context, high]), no ReLU; query from high, key, value from low.

    low (B, L, h, w), high (B, C, H, W); w_query (K, C), w_key (K, L), w_value (V, L), w_out (C', V),
    w_fuse (O, C' + C): context channels first; every b_* as long as its output. Returns y, a.
    """
    q = conv_bn(high, w_query, b_query, bn_query, relu=True)
    k = conv_bn(low, w_key, b_key, bn_key, relu=True)
    value = torch.einsum("vc,bchw->bvhw", w_value, low) + b_value[None, :, None, None]
    a, context = anchor_attention(q, k, value, sizes)
    context = torch.einsum("cv,bvhw->bchw", w_out, context) + b_out[None, :, None, None]
    return conv_bn(torch.cat([context, high], dim=1), w_fuse, b_fuse, bn_fuse, relu=False), a


Block = APNB | AFNB


def randomise(block: Block) -> None:
    torch.manual_seed(1)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    block.double().eval()


def apnb(size: tuple[int, int, int, int] = (2, 6, 7, 9), **options: Any) -> tuple[APNB, Tensor]:
    block = APNB(size[1], **options)
    randomise(block)
    return block, torch.randn(size, dtype=torch.float64, requires_grad=True)


def conv(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return layer.weight.flatten(1), layer.bias


def conv_and_norm(layers: nn.Sequential) -> tuple[Tensor, Tensor, BatchNorm]:
    norm = layers[1]
    return *conv(layers[0]), (norm.weight, norm.bias, norm.running_mean, norm.running_var)


@pytest.mark.parametrize("sides", [PYRAMID, (1, 2), (5,)], ids=str)
@pytest.mark.parametrize("size", [(2, 6, 7, 9), (1, 4, 1, 5), (1, 4, 1, 1)], ids=str)
def test_apnb_equals_naive_reference(
    measured: Measured, size: tuple[int, int, int, int], sides: tuple[int, ...]
) -> None:
    block, x = apnb(size, sides=sides)
    y, a = naive_apnb(
        x,
        *conv_and_norm(block.key),
        *conv(block.value),
        *conv(block.W),
        *conv_and_norm(block.fuse),
        sides,
    )
    measured.close(block.attention(x), a)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


@pytest.mark.parametrize("low_size", [(2, 5, 7, 9), (2, 5, 13, 4)], ids=str)
def test_afnb_equals_naive_reference(measured: Measured, low_size: tuple[int, int, int, int]) -> None:
    block = AFNB(5, 8, reduction=4)
    randomise(block)
    low = torch.randn(low_size, dtype=torch.float64, requires_grad=True)
    high = torch.randn(2, 8, 7, 9, dtype=torch.float64, requires_grad=True)
    y, a = naive_afnb(
        low,
        high,
        *conv_and_norm(block.query),
        *conv_and_norm(block.key),
        *conv(block.value),
        *conv(block.W),
        *conv_and_norm(block.fuse),
    )
    measured.close(block.attention(low, high), a)
    measured.close(block(low, high), y)
    measured.gradients(block(low, high), y, of=(low, high, *block.parameters()))


@pytest.mark.parametrize("size", [(2, 6, 7, 9), (1, 6, 3, 40)], ids=str)
def test_110_anchors_share_the_weight_of_a_position(
    measured: Measured, size: tuple[int, int, int, int]
) -> None:
    block, x = apnb(size)
    weights = block.attention(x)
    measured.count(weights.shape[-1], 1 + 9 + 36 + 64)
    measured.close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
    assert (weights.sum(dim=1) - 1).abs().max() > 0.1


def test_values_may_be_averaged_first_but_not_keys(measured: Measured) -> None:
    block, x = apnb((2, 16, 10, 13))
    measured.close(block.value(pyramid(x)), pyramid(block.value(x)))
    gap = (block.key(pyramid(x)) - pyramid(block.key(x))).abs().max().item()
    measured.value("keys, max |Δ|", gap, above=0.1)


def test_a_single_cell_gives_every_position_the_mean(measured: Measured) -> None:
    block, x = apnb((2, 6, 7, 9), sides=(1,))
    mean = block.W(block.value(x).mean(dim=(2, 3), keepdim=True))
    expected = torch.relu(block.fuse(torch.cat([mean.expand_as(x), x], dim=1)))
    measured.close(block(x), expected)


def test_a_grid_as_fine_as_the_map_is_a_non_local_block(measured: Measured) -> None:
    """Gaussian, on the map that is query and key, with the scale of the released non-local code."""
    block, x = apnb((2, 6, 7, 7), sides=(7,))
    dense = NonLocalBlock(3, "gaussian", reduction=1, scale=3**-0.5)
    measured.close(block.attention(x), dense.attention(block.key(x)))
    values = block.value(x).flatten(2) @ dense.attention(block.key(x)).mT
    context = block.W(values.view(2, 3, 7, 7))
    measured.close(block(x), torch.relu(block.fuse(torch.cat([context, x], dim=1))))


def test_context_starts_at_zero_but_the_block_is_not_the_identity(measured: Measured) -> None:
    x = torch.randn(2, 8, 5, 7)
    block = APNB(8).eval()
    without = torch.relu(block.fuse(torch.cat([torch.zeros_like(x), x], dim=1)))
    measured.close(block(x), without, tolerance=0)
    measured.value("max |y − x|", (block(x) - x).abs().max().item(), above=0.1)


@pytest.mark.parametrize("side", [8, 16, 9, 12])
def test_cells_overlap_unless_the_grid_divides_the_map(measured: Measured, side: int) -> None:
    """Cells that do not overlap have anchors whose mean is the mean of the map."""
    x = torch.randn(1, 3, side, side, dtype=torch.float64)
    distance = (pyramid(x, (8,)).mean(dim=2).flatten() - x.mean(dim=(0, 2, 3))).abs().max().item()
    if side % 8:
        measured.value("9², 12²", distance, above=1e-3)
    else:
        measured.value("8², 16²", distance, below=1e-15)


@pytest.mark.parametrize(("block", "expected"), [(APNB(512), 920_576), (AFNB(1024, 2048), 9_971_456)])
def test_parameters_of_the_released_network(measured: Measured, block: Block, expected: int) -> None:
    measured.count(parameters(block), expected)


def test_memory_is_linear_in_positions(measured: Measured) -> None:
    block = APNB(16).eval()
    large, usual = torch.randn(1, 16, 64, 64), torch.randn(1, 16, 32, 32)
    with torch.no_grad():
        growth = peak_bytes(block, large) / peak_bytes(block, usual)
        measured.value("bytes(64²) / bytes(32²)", growth, above=3, below=4.1)
        share = peak_bytes(block, large) / (4 * 4096 * 110)
    measured.value("bytes(64²) / bytes of 4,096 × 110", share, below=1)


def test_weights_of_the_abstract_are_298_times_fewer(measured: Measured) -> None:
    with torch.device("meta"):
        weights = APNB(4).eval().attention(torch.empty(1, 4, 128, 256))
    measured.count(weights.numel(), 128 * 256 * 110)
    measured.value("N² / N S", (128 * 256) ** 2 / weights.numel(), equals=298, within=0.5)


def test_afnb_keeps_dtypes_and_all_its_parameters_learn() -> None:
    block = AFNB(6, 8, reduction=2).eval()
    low, high = torch.randn(2, 6, 9, 4), torch.randn(2, 8, 5, 7)
    half = block.bfloat16()(1000 * low.bfloat16(), high.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()
    block.train().float()
    nn.init.normal_(block.W.weight)
    block(low, high).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in block.parameters())


@pytest.mark.parametrize(
    ("block", "arguments", "message"),
    [
        (APNB, (0,), r"channels \(0, 0\)"),
        (APNB, (64, 0), "reduction 0 must be at least 1"),
        (APNB, (65,), "channels 65 must be divisible by reduction 2"),
        (APNB, (64, 2, ()), r"sides \(\) must hold one or more"),
        (APNB, (64, 2, (0, 3)), r"sides \(0, 3\)"),
        (AFNB, (0, 64), r"channels \(0, 64\)"),
    ],
)
def test_refuses_impossible_arguments(block: type[Block], arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        block(*arguments)


def test_refuses_maps_of_different_batches() -> None:
    block, low, high = AFNB(6, 8, 2).eval(), torch.randn(1, 6, 9, 4), torch.randn(3, 8, 5, 7)
    message = r"low \(1, 6, 9, 4\) and high \(3, 8, 5, 7\) must be .* with the same B"
    for run in (block, block.attention):
        with pytest.raises(ValueError, match=message):
            run(low, high)


def test_sides_are_whole_numbers() -> None:
    assert APNB(8, sides=[2, 3]).attention(torch.randn(2, 8, 5, 7)).shape == (2, 35, 13)
    with pytest.raises(TypeError, match="float"):
        APNB(8, sides=(2.0, 3.0))


@pytest.mark.parametrize("autocast", [False, True], ids=["cast", "autocast"])
def test_scores_beyond_65504_in_float16(autocast: bool) -> None:
    """Before they are divided by the root of P."""
    torch.manual_seed(1)
    block, x = APNB(512).eval(), 60 * torch.randn(1, 512, 5, 7).abs()
    nn.init.constant_(block.key[0].weight, 0.002)
    exact = copy.deepcopy(block).double().attention(x.double())
    with torch.autocast("cpu", torch.float16, enabled=autocast):
        weights = block.attention(x) if autocast else block.half().attention(x.half())
    assert torch.equal(weights.argmax(dim=-1), exact.argmax(dim=-1))


def test_second_derivatives_under_the_math_kernel() -> None:
    block, x = apnb((1, 4, 2, 3), sides=(1, 2))
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(block, (x,))
