"""Proofs of SKNet."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pytorchcv.models.sknet import SKConvBlock
from torch import Tensor, nn

from snippets.attention_domain.branch.sknet import SelectiveKernel
from tests.measure import Measured
from tests.resnet import conv_bn, macs, parameters, resnet50

Stats = tuple[Tensor, Tensor, Tensor, Tensor]
"""Eval-mode batch norm of n channels: running mean, running var, weight, bias, each (n,)."""


def batch_norm(v: Tensor, c: int, stats: Stats, eps: float) -> Tensor:
    mean, var, weight, bias = stats
    return (v - mean[c]) / torch.sqrt(var[c] + eps) * weight[c] + bias[c]


def relu(v: Tensor) -> Tensor:
    return torch.where(v > 0, v, torch.zeros_like(v))


def conv_channel(x: Tensor, weight: Tensor, c: int, dilation: int) -> Tensor:
    """Channel c of a grouped 3x3, stride 1, padding = dilation; x (C,H,W), weight (C,C/G,3,3) -> (H,W)."""
    C, H, W = x.shape
    per = weight.shape[1]
    first = c // (weight.shape[0] // (C // per)) * per
    out = []
    for i in range(H):
        for j in range(W):
            total = x.new_zeros(())
            for k in range(per):
                for u in range(3):
                    for v in range(3):
                        p, q = i + (u - 1) * dilation, j + (v - 1) * dilation
                        if 0 <= p < H and 0 <= q < W:
                            total = total + weight[c, k, u, v] * x[first + k, p, q]
            out.append(total)
    return torch.stack(out).reshape(H, W)


def naive_sk(
    x: Tensor,
    conv_weights: Sequence[Tensor],
    conv_stats: Sequence[Stats],
    fc_weight: Tensor,
    fc_stats: Stats,
    select_weight: Tensor,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """x (B,C,H,W); conv_weights[m] (C,C/G,3,3); fc_weight (d,C); select_weight (M*C,d), branch-major rows.

    Returns weights (B,M,C) and y (B,C,H,W).
    """
    (B, C, H, W), M = x.shape, len(conv_weights)
    weights, ys = [], []
    for b in range(B):
        U = []
        for m in range(M):
            maps = [conv_channel(x[b], conv_weights[m], c, m + 1) for c in range(C)]
            U.append([relu(batch_norm(maps[c], c, conv_stats[m], eps)) for c in range(C)])
        s = torch.stack([sum((U[m][c].sum() for m in range(M)), x.new_zeros(())) / (H * W) for c in range(C)])
        z = [relu(batch_norm((fc_weight[k] * s).sum(), k, fc_stats, eps)) for k in range(fc_weight.shape[0])]
        hidden = torch.stack(z)
        exps = [[torch.exp((select_weight[m * C + c] * hidden).sum()) for c in range(C)] for m in range(M)]
        a = [[exps[m][c] / sum(exps[n][c] for n in range(M)) for c in range(C)] for m in range(M)]
        weights.append(torch.stack([torch.stack(row) for row in a]))
        ys.append(
            torch.stack([sum((a[m][c] * U[m][c] for m in range(M)), x.new_zeros(H, W)) for c in range(C)])
        )
    return torch.stack(weights), torch.stack(ys)


def small(size: tuple[int, int, int, int] = (2, 6, 4, 3), **options: Any) -> tuple[SelectiveKernel, Tensor]:
    torch.manual_seed(1)
    options = {"groups": 2, "reduction": 3, "min_width": 5} | options
    block = SelectiveKernel(size[1], **options)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    return block.double().eval(), torch.randn(size, dtype=torch.float64, requires_grad=True)


def branches(block: SelectiveKernel, x: Tensor) -> Tensor:
    """Outputs of the branches: (B, M, C, H, W)."""
    return torch.stack([branch(x) for branch in block.split], dim=1)


def statistics(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Stats:
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


@pytest.mark.parametrize(("M", "groups"), [(2, 2), (3, 6), (3, 1)])
def test_equals_naive_reference(measured: Measured, M: int, groups: int) -> None:
    block, x = small(branches=M, groups=groups)
    weights, y = naive_sk(
        x,
        [branch[0].weight for branch in block.split],
        [statistics(branch[1]) for branch in block.split],
        block.fuse[0].weight,
        statistics(block.fuse[1]),
        block.select.weight,
    )
    measured.close(block.attention(x)[..., 0, 0], weights)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("M", "stride"), [(2, 1), (2, 2), (3, 1)])
def test_equals_pytorchcv(measured: Measured, M: int, stride: int, training: bool) -> None:
    block, x = small((6, 64, 9, 8), branches=M, groups=32, reduction=16, min_width=32, stride=stride)
    public = SKConvBlock(64, 64, stride, num_branches=M).train(training)
    tensors = dict(zip(public.state_dict(), block.state_dict(keep_vars=True).values(), strict=True))
    tensors = {key: tensor.view_as(public.state_dict()[key]).clone() for key, tensor in tensors.items()}
    expected = torch.func.functional_call(public, tensors, (x,))
    y = block.train(training)(x)
    measured.close(y, expected)
    measured.gradients(y, expected, of=(x, *block.parameters()))


def test_weights_sum_to_one_over_branches(measured: Measured) -> None:
    block, x = small(branches=3)
    weights = block.attention(x)
    measured.close(weights.sum(dim=1), torch.ones(2, 6, 1, 1, dtype=torch.float64))
    total = weights.sum(dim=2)
    measured.value("Σ over channels", total.max().item(), above=1.5)


def test_without_selection_the_branches_are_averaged(measured: Measured) -> None:
    block, x = small(branches=3)
    nn.init.zeros_(block.select.weight)
    measured.close(block(x), branches(block, x).mean(dim=1))


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_wide_logit_gap_selects_one_branch(measured: Measured, chosen: int) -> None:
    block, x = small()
    nn.init.constant_(block.fuse[1].bias, 9)  # keeps z positive
    with torch.no_grad():
        block.select.weight.view(2, 6, 5).copy_(torch.tensor([100.0, -100.0]).roll(chosen)[:, None, None])
    measured.close(block(x), branches(block, x)[:, chosen], tolerance=0)


def test_output_lies_between_the_branches(measured: Measured) -> None:
    block, x = small((4, 24, 9, 8), branches=3)
    low, high = branches(block, x).aminmax(dim=1)
    inside = (low - 1e-12 <= block(x)) & (block(x) <= high + 1e-12)
    measured.count(int(inside.sum()), 4 * 24 * 9 * 8)


def test_swapped_branches_leave_the_output(measured: Measured) -> None:
    block, x = small(branches=3)
    before, weights = block(x), block.attention(x)
    order = [2, 0, 1]
    block.split = nn.ModuleList(block.split[m] for m in order)
    block.select.weight = nn.Parameter(block.select.weight.view(3, 6, 5)[order].flatten(0, 1))
    measured.close(block(x), before)
    measured.close(block.attention(x), weights[:, order])


@pytest.mark.parametrize("m", [1, 2, 3])
def test_branch_reaches_nine_positions_m_apart(measured: Measured, m: int) -> None:
    block, x = small((1, 6, 9, 11), branches=3)
    gradient = torch.autograd.grad(block.split[m - 1][0](x)[0, :, 4, 5].sum(), x)[0]
    rows, columns = gradient.abs().sum(dim=(0, 1)).nonzero(as_tuple=True)
    assert {(r - 4, c - 5) for r, c in zip(rows.tolist(), columns.tolist(), strict=True)} == {
        (r, c) for r in (-m, 0, m) for c in (-m, 0, m)
    }
    measured.count(len(rows), 9)


def resnext(middle: Any) -> nn.Module:
    return resnet50(middle=middle, width_factor=2)


def grouped(channels: int, stride: int) -> nn.Module:
    return nn.Sequential(conv_bn(channels, channels, 3, stride, groups=32), nn.ReLU())


def selective(channels: int, stride: int) -> SelectiveKernel:
    return SelectiveKernel(channels, stride=stride)


def test_resnext50_parameters(measured: Measured) -> None:
    measured.count(parameters(resnext(grouped)), 25_028_904)


def test_sknet50_parameters(measured: Measured) -> None:
    measured.count(parameters(resnext(selective)), 27_479_784)


def test_sknet50_parameters_with_three_branches(measured: Measured) -> None:
    network = resnext(lambda channels, stride: SelectiveKernel(channels, branches=3, stride=stride))
    measured.count(parameters(network), 29_249_512)


def test_parameters_of_two_branches_without_selection(measured: Measured) -> None:
    named = resnext(selective).named_parameters()
    measured.count(
        sum(p.numel() for key, p in named if ".fuse." not in key and ".select." not in key), 26_458_664
    )


def test_parameters_of_101_layers(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README counts running means and variances here, and only here."""
    monkeypatch.setattr("tests.resnet.STAGES", ((64, 3), (128, 4), (256, 23), (512, 3)))
    for middle, count, with_statistics in (
        (grouped, 44_177_704, 44_315_560),
        (selective, 48_736_040, 48_908_712),
    ):
        network = resnext(middle)
        statistics = sum(b.numel() for key, b in network.named_buffers() if "running" in key)
        measured.count(parameters(network), count)
        measured.count(parameters(network) + statistics, with_statistics)


def test_sknet50_multiply_adds(measured: Measured) -> None:
    measured.count(macs(resnext(selective).eval()), 4_462_710_784)


def test_starts_as_the_released_unit() -> None:
    """He's normal convolutions over the fan-in, linear layers of deviation 0.01: nearly even weights."""
    torch.manual_seed(0)
    block = SelectiveKernel(256)
    for branch in block.split:
        assert branch[0].weight.std().item() == pytest.approx((2 / (9 * 256 / 32)) ** 0.5, rel=0.05)
    for linear in (block.fuse[0], block.select):
        assert linear.weight.std().item() == pytest.approx(0.01, rel=0.05)
    weights = block.attention(torch.randn(8, 256, 7, 7))
    assert (weights - 0.5).abs().max() < 0.1


def test_one_sample_cannot_be_trained_on() -> None:
    block, x = small()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        block.train()(x[:1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"branches": 1}, "branches 1 must be at least 2"),
        ({"groups": 0}, "groups 0 must be at least 1"),
        ({"groups": 5}, "channels 64 must be divisible by groups 5"),
        ({"reduction": 24}, "channels 64 must be divisible by reduction 24"),
        ({"channels": 0}, "channels 0 must be at least 1"),
        ({"min_width": 0}, "min_width 0"),
        ({"min_width": float("nan")}, "min_width nan"),
        ({"stride": 0}, "stride 0"),
    ],
)
def test_refuses_impossible_arguments(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelectiveKernel(**{"channels": 64} | arguments)


@pytest.mark.parametrize("argument", ["stride", "min_width"])
def test_sizes_are_integers_from_the_start(argument: str) -> None:
    with pytest.raises(TypeError, match="integer"):
        SelectiveKernel(64, **{argument: 2.0})
