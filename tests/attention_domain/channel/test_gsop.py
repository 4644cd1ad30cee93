"""Proofs of GSoP-Net."""

import pytest
import torch
from pytorchcv.models.isqrtcovresnet import CovPool
from torch import Tensor, nn

from snippets.attention_domain.channel.gsop import GSoPBlock, GSoPPositionBlock, covariance
from tests.measure import Measured
from tests.resnet import STAGES, Bottleneck, macs, parameters, resnet50

BN = tuple[Tensor, Tensor, Tensor, Tensor]  # gamma (d,), beta (d,), running mean (d,), running var (d,)


def naive_bn(x: Tensor, bn: BN, eps: float = 1e-5) -> Tensor:
    """BatchNorm in eval mode over dim 1 of x (B, d, h, w)."""
    gamma, beta, mean, var = (p[None, :, None, None] for p in bn)
    return gamma * (x - mean) / torch.sqrt(var + eps) + beta


def naive_covariance(x: Tensor) -> Tensor:
    """P = (1/M) X (I - 11'/M) X', X (B, d, M): P_ij = mean_m (x_im - mean_i)(x_jm - mean_j); (B, d, d)."""
    d, m = x.shape[1:]
    centred = x - x.sum(dim=2, keepdim=True) / m
    rows = [[(centred[:, i] * centred[:, j]).sum(dim=1) / m for j in range(d)] for i in range(d)]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def naive_gsop(
    x: Tensor,
    w_reduce: Tensor,
    b_reduce: Tensor,
    bn_reduce: BN,
    bn_row: BN,
    w_row: Tensor,
    b_row: Tensor,
    w_adapt: Tensor,
    b_adapt: Tensor,
    stride: int = 1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """(P, gate (B, C), x * gate). w_reduce (d, C), b_reduce (d,); w_row (4d, d): output 4 i + n reads row i
    of BN(P); b_row (4d,); w_adapt (C, 4d), b_adapt (C,). ReLU on the copy that feeds P only; none between row
    conv and adapt."""
    v = (x * (x > 0))[:, :, ::stride, ::stride]
    z = naive_bn(torch.einsum("dc,bchw->bdhw", w_reduce, v) + b_reduce[None, :, None, None], bn_reduce, eps)
    p = naive_covariance((z * (z > 0)).flatten(2))
    scaled = naive_bn(p[:, :, :, None], bn_row, eps)[:, :, :, 0]  # one affine pair per row i
    per_row = w_row.shape[0] // w_row.shape[1]
    q = [(scaled[:, o // per_row] * w_row[o]).sum(dim=1) + b_row[o] for o in range(w_row.shape[0])]
    logits = torch.einsum("co,bo->bc", w_adapt, torch.stack(q, dim=1)) + b_adapt
    gate = 1 / (1 + torch.exp(-logits))
    return p, gate, x * gate[:, :, None, None]


def naive_position(
    x: Tensor, reduce: nn.Conv2d, bn_reduce: BN, bn_row: BN, row: nn.Conv1d, adapt: nn.Linear, side: int
) -> tuple[Tensor, Tensor]:
    """(gate (B, 1, H, W), relu(gate * x)) for H and W that `side` divides: each gate fills a rectangle."""
    B, _, H, W = x.shape
    h, w = H // side, W // side
    z = torch.einsum("dc,bchw->bdhw", reduce.weight[:, :, 0, 0], x * (x > 0)) + reduce.bias[:, None, None]
    z = naive_bn(z, bn_reduce)
    parts = [(slice(i * h, i * h + h), slice(j * w, j * w + w)) for i in range(side) for j in range(side)]
    positions = torch.stack([z[:, :, rows, columns].mean(dim=(2, 3)) for rows, columns in parts], dim=1)
    scaled = naive_bn(naive_covariance(positions)[..., None], bn_row)[..., 0]
    q = [(scaled[:, o // 4] * row.weight[o, 0]).sum(dim=1) + row.bias[o] for o in range(4 * side**2)]
    hidden = torch.stack(q, dim=1)
    gates = 1 / (1 + torch.exp(-((hidden * (hidden > 0)) @ adapt.weight.T + adapt.bias)))
    gate = torch.zeros(B, 1, H, W, dtype=x.dtype)
    for index, (rows, columns) in enumerate(parts):
        gate[:, 0, rows, columns] = gates[:, index, None, None]
    return gate, gate * x * (x > 0)


def statistics(norm: nn.Module) -> BN:
    return norm.weight, norm.bias, norm.running_mean, norm.running_var


def randomised(block: nn.Module) -> nn.Module:
    """The block in float64 and evaluation mode, all parameters and running statistics drawn."""
    torch.manual_seed(1)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    return block.double().eval()


def small(stride: int = 1) -> tuple[GSoPBlock, Tensor]:
    block = randomised(GSoPBlock(6, width=4, stride=stride))
    return block, torch.randn(2, 6, 5, 7, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("stride", [1, 2])
def test_equals_naive_reference(measured: Measured, stride: int) -> None:
    block, x = small(stride)
    _, reduce, norm, _ = block.mix
    matrix, gates, y = naive_gsop(
        x,
        reduce.weight[:, :, 0, 0],
        reduce.bias,
        statistics(norm),
        statistics(block.rows.norm),
        block.rows.conv.weight[:, 0],
        block.rows.conv.bias,
        block.expand.weight,
        block.expand.bias,
        stride,
    )
    measured.close(covariance(block.mix(x).flatten(2)), matrix)
    measured.close(block.attention(x)[:, :, 0, 0], gates)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


def test_position_mode_equals_naive_reference(measured: Measured) -> None:
    block = randomised(GSoPPositionBlock(6, width=5, side=3))
    x = torch.randn(2, 6, 9, 6, dtype=torch.float64, requires_grad=True)
    _, reduce, norm = block.mix
    row_norm, row, adapt = statistics(block.rows.norm), block.rows.conv, block.expand[1]
    gate, y = naive_position(x, reduce, statistics(norm), row_norm, row, adapt, side=3)
    measured.close(block.attention(x), gate)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


def test_covariance_equals_pytorchcv(measured: Measured) -> None:
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    public = CovPool.apply(x)
    measured.close(covariance(x.flatten(2)), public)
    measured.gradients(covariance(x.flatten(2)), public, of=(x,))


def test_covariance_has_no_negative_eigenvalue(measured: Measured) -> None:
    x = torch.randn(3, 12, 8, dtype=torch.float64)
    matrix = covariance(x)
    assert torch.equal(matrix, matrix.transpose(1, 2))
    assert (torch.linalg.matrix_rank(matrix) == 7).all()
    smallest = torch.linalg.eigvalsh(matrix).min().item()
    measured.value("smallest eigenvalue", smallest, equals=0, within=1e-12)


def test_pixels_shuffled_together_keep_the_gates(measured: Measured) -> None:
    block, x = small()
    shuffled = x.flatten(2)[..., torch.randperm(35)].view_as(x)
    measured.close(block.attention(shuffled), block.attention(x))


def test_a_channel_moved_against_the_others_changes_the_gates(measured: Measured) -> None:
    block = randomised(GSoPBlock(6, width=16))
    x = 3 * torch.randn(2, 1, 5, 7, dtype=torch.float64) + torch.randn(2, 6, 5, 7)
    moved = torch.cat([x[:, :3].roll(2, dims=3), x[:, 3:]], dim=1)
    assert torch.allclose(moved.mean((2, 3)), x.mean((2, 3)))
    assert torch.allclose(moved.var((2, 3)), x.var((2, 3)))
    change = (block.attention(moved) - block.attention(x)).abs().max().item()
    measured.value("largest change of a gate", change, above=0.1)


def test_scores_are_affine_in_the_covariance(measured: Measured) -> None:
    block, x = small()
    first, second = 3 * torch.randn(2, 4, 4, dtype=torch.float64)
    scores = block.expand(block.rows(torch.stack([first, second, 0.3 * first + 0.7 * second])))
    measured.close(scores[2], 0.3 * scores[0] + 0.7 * scores[1])
    scores = block.expand(block.rows(covariance(block.mix(x).flatten(2))))
    measured.close(block.attention(x)[:, :, 0, 0], torch.sigmoid(scores))


def test_each_number_reads_one_row(measured: Measured) -> None:
    block, _ = small()
    matrix = torch.randn(1, 4, 4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda p: block.rows(p)[0], matrix)[:, 0]  # (4 d, d, d)
    touched = jacobian.count_nonzero(dim=2)  # (4 d, d)
    assert torch.equal(touched, 4 * torch.eye(4, dtype=torch.long).repeat_interleave(4, dim=0))
    measured.count(touched.sum().item(), 4 * 4 * 4)


def test_position_gates_fill_rectangles(measured: Measured) -> None:
    block = GSoPPositionBlock(6, width=5).double().eval()
    gates = block.attention(torch.randn(1, 6, 24, 16, dtype=torch.float64))[0, 0]
    measured.count(gates.unique().numel(), 8 * 8)
    assert torch.equal(gates, gates[::3, ::2].repeat_interleave(3, 0).repeat_interleave(2, 1))


def gsop_net1(with_blocks: bool = True) -> nn.Sequential:
    """GSoP-Net1: a block in the last bottleneck of each stage, and no stride in the last stage.

    The stride of a stage stands on the 3 x 3 convolution, as in the released code.
    """
    last = iter([repeat == repeats - 1 for _, repeats in STAGES for repeat in range(repeats)])

    def block(channels: int) -> nn.Module:
        stride = 2 if channels == 256 else 1
        return GSoPBlock(channels, stride=stride) if next(last) and with_blocks else nn.Identity()

    network = resnet50(block)
    for bottleneck in network:
        if isinstance(bottleneck, Bottleneck) and bottleneck.residual[0][0].stride == (2, 2):
            strides = (1, 1) if bottleneck.residual[0][0].in_channels == 1024 else (2, 2)
            bottleneck.residual[0][0].stride = (1, 1)
            bottleneck.residual[2][0][0].stride = bottleneck.shortcut[0].stride = strides
    return network


def test_gsop_net1_parameters(measured: Measured) -> None:
    measured.count(parameters(gsop_net1()), 28_285_224)


@pytest.mark.parametrize(
    ("channels", "expected"), [(256, 230_784), (512, 394_880), (1024, 723_072), (2048, 1_379_456)]
)
def test_parameters_by_stage(measured: Measured, channels: int, expected: int) -> None:
    measured.count(parameters(GSoPBlock(channels)), expected)


@pytest.mark.parametrize(("with_blocks", "expected"), [(True, 6_397_100_032), (False, 6_208_618_496)])
def test_gsop_net1_multiply_adds(measured: Measured, with_blocks: bool, expected: int) -> None:
    measured.count(macs(gsop_net1(with_blocks)), expected)


def test_covariance_of_large_maps_in_float16() -> None:
    """A sum over 3136 products of this size is too large for float16, its mean is not."""
    torch.manual_seed(1)
    x = 100 * torch.randn(1, 4, 3136).half()
    matrix, expected = covariance(x), covariance(x.double())
    assert matrix.isfinite().all()
    torch.testing.assert_close(matrix.double(), expected, rtol=5e-3, atol=5.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels 0, width 128 and side 8 must be at least 1"),
        ((8, 0), "width 0"),
        ((8, 16, 0), "side 0 must be at least 1"),
    ],
)
def test_position_mode_refuses_impossible_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GSoPPositionBlock(*arguments)


def test_refuses_a_stride_that_is_no_integer() -> None:
    with pytest.raises(TypeError, match="integer"):
        GSoPBlock(8, stride=2.0)


def test_refuses_impossible_arguments() -> None:
    with pytest.raises(ValueError, match="channels 0, width 128 and stride 1 must be at least 1"):
        GSoPBlock(0)
    with pytest.raises(ValueError, match="stride 0"):
        GSoPBlock(8, stride=0)
