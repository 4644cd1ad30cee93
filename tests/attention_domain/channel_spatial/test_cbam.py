"""Proofs of CBAM."""

from typing import Any

import pytest
import torch
from pytorchcv.models.cbamresnet import CbamBlock
from torch import Tensor, nn

from snippets.attention_domain.channel_spatial.cbam import CBAM, SpatialGate, example
from tests.measure import Measured
from tests.resnet import macs, parameters, resnet50


def sigmoid(z: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-z))


def mlp(z: Tensor, W1: Tensor, b1: Tensor | None, W2: Tensor, b2: Tensor | None) -> Tensor:
    u = W1 @ z if b1 is None else W1 @ z + b1
    hidden = torch.where(u > 0, u, torch.zeros_like(u))
    return W2 @ hidden if b2 is None else W2 @ hidden + b2


def conv_at(stack: list[Tensor], weight: Tensor, i: int, j: int) -> Tensor:
    """Output (i, j) of a stride-1, zero-padded (k-1)/2 correlation of two (H,W) maps; weight (2,k,k)."""
    (H, W), k = stack[0].shape, weight.shape[-1]
    total = stack[0].new_zeros(())
    for channel in range(2):
        for u in range(k):
            for v in range(k):
                p, q = i + u - k // 2, j + v - k // 2
                if 0 <= p < H and 0 <= q < W:
                    total = total + weight[channel, u, v] * stack[channel][p, q]
    return total


def naive_cbam(
    x: Tensor,
    W1: Tensor,
    b1: Tensor | None,
    W2: Tensor,
    b2: Tensor | None,
    conv_weight: Tensor,
    bn_mean: Tensor | None = None,
    bn_var: Tensor | None = None,
    bn_weight: Tensor | None = None,
    bn_bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """x (B,C,H,W), W1 (C/r,C), b1 (C/r,), W2 (C,C/r), b2 (C,), conv_weight (1,2,k,k) k odd, bn_* (1,).

    bn_mean None means no BN. Returns channel gate (B,C), spatial gate (B,1,H,W), y (B,C,H,W).
    """
    B, C, H, W = x.shape
    channel_gates, spatial_gates, ys = [], [], []
    for b in range(B):
        mean = torch.stack([x[b, c].sum() / (H * W) for c in range(C)])
        peak = torch.stack([x[b, c].reshape(-1).max() for c in range(C)])
        M_c = sigmoid(mlp(mean, W1, b1, W2, b2) + mlp(peak, W1, b1, W2, b2))
        x1 = [M_c[c] * x[b, c] for c in range(C)]
        max_map = torch.stack([torch.stack([m[i, j] for m in x1]).max() for i in range(H) for j in range(W)])
        mean_map = sum(x1, torch.zeros_like(x1[0])) / C
        stack = [max_map.reshape(H, W), mean_map]
        logit = torch.stack([conv_at(stack, conv_weight[0], i, j) for i in range(H) for j in range(W)])
        if bn_mean is not None:
            logit = (logit - bn_mean) / torch.sqrt(bn_var + eps) * bn_weight + bn_bias
        M_s = sigmoid(logit).reshape(H, W)
        channel_gates.append(M_c)
        spatial_gates.append(M_s.reshape(1, H, W))
        ys.append(torch.stack([M_s * m for m in x1]))
    return torch.stack(channel_gates), torch.stack(spatial_gates), torch.stack(ys)


def small(
    size: tuple[int, int, int, int] = (2, 6, 5, 4), reduction: int = 3, **options: Any
) -> tuple[CBAM, Tensor]:
    torch.manual_seed(1)
    block = CBAM(size[1], reduction, **options)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(size) + torch.randn(*size[:2], 1, 1)
    return block.double().eval(), x.double().requires_grad_()


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_equals_naive_reference(measured: Measured, kernel_size: int, batch_norm: bool) -> None:
    block, x = small(kernel_size=kernel_size, batch_norm=batch_norm)
    first, _, second = block.channel_gate.mlp
    norm = block.spatial_gate.norm
    statistics = (norm.running_mean, norm.running_var, norm.weight, norm.bias) if batch_norm else ()
    channel, spatial, y = naive_cbam(
        x, first.weight, first.bias, second.weight, second.bias, block.spatial_gate.conv.weight, *statistics
    )
    channel = channel[:, :, None, None]
    measured.close(block.channel_gate(x), channel)
    measured.close(block.spatial_gate(channel * x), spatial)
    measured.close(block.attention(x), channel * spatial)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


@pytest.mark.parametrize("training", [False, True])
def test_equals_pytorchcv(measured: Measured, training: bool) -> None:
    block, x = small(size=(2, 32, 14, 10), reduction=16)
    public = CbamBlock(32).train(training)
    tensors = dict(zip(public.state_dict(), block.state_dict(keep_vars=True).values(), strict=True))
    expected = torch.func.functional_call(public, {key: t.clone() for key, t in tensors.items()}, (x,))
    y = block.train(training)(x)
    measured.close(y, expected)
    measured.gradients(y, expected, of=(x, *block.parameters()))


def test_of_equal_maxima_one_gets_the_gradient(measured: Measured) -> None:
    block, x = small(size=(2, 32, 14, 10), reduction=2)
    tied = x.detach().round().requires_grad_()
    assert (tied == tied.amax((2, 3), keepdim=True)).sum() > 2 * 32  # more peaks than channels
    public = CbamBlock(32, reduction_ratio=2).eval()
    tensors = dict(zip(public.state_dict(), block.state_dict(keep_vars=True).values(), strict=True))
    expected = torch.func.functional_call(public, {key: t.clone() for key, t in tensors.items()}, (tied,))
    measured.gradients(block(tied), expected, of=(tied, *block.parameters()))


def test_forward_equals_the_product_of_both_gates(measured: Measured) -> None:
    block, x = small(size=(2, 32, 14, 10), reduction=16)
    measured.close(block(x), block.attention(x) * x)
    measured.gradients(block(x), block.attention(x) * x, of=(x, *block.parameters()))


def test_weights_of_a_sample_have_rank_one(measured: Measured) -> None:
    block, x = small(size=(2, 32, 14, 10), reduction=16)
    first, second = torch.linalg.svdvals(block.attention(x).flatten(2))[:, :2].unbind(dim=1)
    measured.value("second / first singular value", (second / first).max().item(), below=1e-14)


def test_moved_pixels_change_the_spatial_gate_alone(measured: Measured) -> None:
    block, x = small(size=(2, 32, 14, 10), reduction=16)
    moved = x.flatten(2)[..., torch.randperm(140)].view_as(x)
    measured.close(block.channel_gate(moved), block.channel_gate(x))
    assert (block.spatial_gate(moved) - block.spatial_gate(x)).abs().max() > 0.1


def test_constant_channels_pass_the_shared_mlp_twice(measured: Measured) -> None:
    block, x = small()
    constant = x[..., :1, :1].expand_as(x)
    expected = torch.sigmoid(2 * block.channel_gate.mlp(x[..., 0, 0]))
    measured.close(block.channel_gate(constant)[..., 0, 0], expected)


def test_spatial_gate_sees_k_by_k_positions(measured: Measured) -> None:
    gate = SpatialGate(7, batch_norm=True).double().eval()
    x = torch.randn(1, 6, 15, 13, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(gate(x)[0, 0, 7, 6], x)[0]
    measured.count(gradient[0, 0].count_nonzero().item(), 7 * 7)
    assert gradient[:, :, 4:11, 3:10].all()


def test_order_of_the_gates_matters(measured: Measured) -> None:
    block, x = small(size=(2, 32, 14, 10), reduction=16)
    swapped = block.spatial_gate(x) * x
    swapped = block.channel_gate(swapped) * swapped
    change = ((swapped - block(x)).norm() / block(x).norm()).item()
    measured.value("|channel first − spatial first| / |output|", change, above=0.1)


def test_released_start_opens_the_spatial_gate_by_half(measured: Measured) -> None:
    block, (x,) = example()
    for name, parameter in block.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.zeros_(parameter)
    gate = block.train().spatial_gate(x)
    measured.close(gate, torch.full_like(gate, 0.5), tolerance=0)


def test_resnet50_parameters(measured: Measured) -> None:
    measured.count(parameters(resnet50(CBAM)), 28_089_624)


def test_resnet50_multiply_adds(measured: Measured) -> None:
    measured.count(macs(resnet50(CBAM)) - macs(resnet50()), 6_388_854)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels 0"),
        ((64, 0), "reduction 0"),
        ((65, 16), "channels 65 must be divisible by reduction 16"),
        ((64, 16, 6), "kernel_size 6 must be odd"),
        ((64, 16, -1), "kernel_size -1 must be odd and at least 1"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CBAM(*arguments)
