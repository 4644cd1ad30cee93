"""Proofs of ECA-Net."""

import math
import re

import pytest
import torch
from torch import Tensor, nn

from snippets.attention_domain.channel.eca import ECALayer, adaptive_kernel_size, example
from tests.measure import Measured
from tests.resnet import macs, parameters, resnet50


def eca_kernel_size(channels: int, gamma: float = 2.0, b: float = 1.0) -> int:
    """k = |log2(C)/gamma + b/gamma|_odd: t = int(|(log2 C + b)/gamma|), t if odd else t + 1."""
    t = int(abs((math.log2(channels) + b) / gamma))
    return t if t % 2 == 1 else t + 1


def naive_eca(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """gate_c = sigmoid(sum_o w[o] y[c + o - (k-1)/2]), y = GAP, w (k,), no bias, zeros beyond the ends; x *
    gate."""
    channels, k = x.shape[1], w.shape[0]
    y = x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3])
    logits = []
    for c in range(channels):
        acc = torch.zeros_like(y[:, 0])
        for o in range(k):
            source = c + o - (k - 1) // 2
            if 0 <= source < channels:
                acc = acc + w[o] * y[:, source]
        logits.append(acc)
    gate = 1 / (1 + torch.exp(-torch.stack(logits, dim=1)))
    return gate, x * gate[:, :, None, None]


def small(kernel_size: int, channels: int = 6) -> tuple[ECALayer, Tensor]:
    torch.manual_seed(1)
    block = ECALayer(channels, kernel_size).double()
    nn.init.normal_(block.conv.weight)
    x = torch.randn(2, channels, 5, 4, dtype=torch.float64) + torch.randn(2, channels, 1, 1)
    return block, x.requires_grad_()


@pytest.mark.parametrize(("kernel_size", "channels"), [(1, 6), (3, 6), (5, 6), (7, 4)])
def test_equals_naive_reference(measured: Measured, kernel_size: int, channels: int) -> None:
    block, x = small(kernel_size, channels)
    gates, y = naive_eca(x, block.conv.weight[0, 0])
    measured.close(block.attention(x)[:, :, 0, 0], gates)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


def test_equals_a_linear_layer_with_a_band_matrix(measured: Measured) -> None:
    block, x = small(kernel_size=5, channels=32)
    band = torch.zeros(32, 32, dtype=torch.float64)
    for offset, weight in zip(range(-2, 3), block.conv.weight.flatten(), strict=True):
        band += weight * torch.ones(32 - abs(offset)).double().diag(offset)
    expected = torch.sigmoid(nn.functional.linear(x.mean((2, 3)), band))
    measured.close(block.attention(x)[:, :, 0, 0], expected)


def test_gate_sees_k_neighbours(measured: Measured) -> None:
    block, (x,) = example()
    jacobian = torch.autograd.functional.jacobian(lambda v: block.attention(v)[0].flatten(), x[:1])
    touched = jacobian.abs().sum((-1, -2))[:, 0]
    distance = (torch.arange(128)[:, None] - torch.arange(128)).abs()
    assert torch.equal(touched != 0, distance <= 2)
    measured.count(touched.count_nonzero().item(), 5 * 128 - 2 * (2 + 1))


def test_gate_depends_on_channel_means_alone(measured: Measured) -> None:
    block, x = small(kernel_size=3, channels=32)
    other = torch.randn_like(x)
    other += x.mean((2, 3), keepdim=True) - other.mean((2, 3), keepdim=True)
    measured.close(block.attention(other), block.attention(x))


def test_order_of_channels_matters(measured: Measured) -> None:
    block, x = small(kernel_size=3, channels=32)
    order = torch.randperm(32)
    gates, shuffled = block.attention(x), block.attention(x[:, order])
    change = (shuffled - gates[:, order]).abs().mean().item()
    measured.value("mean |change of a gate|", change, above=0.1)


def test_moved_along_the_channels_the_gates_move_along(measured: Measured) -> None:
    block, x = small(kernel_size=5, channels=32)
    moved = x.roll(7, dims=1)
    measured.close(block.attention(moved)[:, 9:-2], block.attention(x).roll(7, dims=1)[:, 9:-2])


def test_kernel_size_is_the_nearest_odd_number(measured: Measured) -> None:
    sizes = range(1, 4097)
    distance = max(abs(adaptive_kernel_size(C) - (math.log2(C) + 1) / 2) for C in sizes)
    measured.value("max |k − t|", distance, at_most=1)
    assert all(adaptive_kernel_size(C) == eca_kernel_size(C) for C in sizes)


@pytest.mark.parametrize(("first", "k"), [(1, 1), (8, 3), (128, 5), (2048, 7)])
def test_kernel_grows_at_8_128_and_2048_channels(measured: Measured, first: int, k: int) -> None:
    assert adaptive_kernel_size(first) == k == adaptive_kernel_size(max(1, first - 1)) + 2 * (first > 1)
    assert ECALayer(first).conv.kernel_size == (k,)
    measured.count(adaptive_kernel_size(first), k)


RELEASED = {256: 3, 512: 5, 1024: 5, 2048: 7}


def test_resnet50_parameters(measured: Measured) -> None:
    network = resnet50(lambda channels: ECALayer(channels, RELEASED[channels]))
    measured.count(parameters(network), 25_557_112)


@pytest.mark.parametrize(("kernel_size", "added"), [(None, 86), (3, 48), (5, 80)])
def test_resnet50_parameters_by_kernel_size(measured: Measured, kernel_size: int | None, added: int) -> None:
    network = resnet50(lambda channels: ECALayer(channels, kernel_size))
    measured.count(parameters(network) - 25_557_032, added)


def test_resnet50_multiply_adds(measured: Measured) -> None:
    network = resnet50(lambda channels: ECALayer(channels, RELEASED[channels]))
    measured.count(macs(network) - macs(resnet50()), 86_272)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels 0"),
        ((64, 4), "kernel_size 4 must be odd"),
        ((64, -1), "kernel_size -1 must be odd and at least 1"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ECALayer(*arguments)


@pytest.mark.parametrize("channels", [64.0, math.nan])
def test_refuses_channels_that_are_no_integer(channels: float) -> None:
    with pytest.raises(TypeError, match="integer"):
        ECALayer(channels, kernel_size=3)


@pytest.mark.parametrize(
    "shape", [(2, 5, 4, 6), (2, 12, 5, 4), (2, 1, 5, 4), (6, 5, 4), (2, 6, 3, 5, 4)], ids=str
)
def test_refuses_maps_of_another_shape(shape: tuple[int, ...]) -> None:
    """The kernel slides over any number of channels; channels-last maps would be gated by row."""
    block, _ = small(kernel_size=3)
    message = re.escape(f"x {shape} must be (B, C, H, W) with C = 6")
    with pytest.raises(ValueError, match=message):
        block(torch.randn(shape, dtype=torch.float64))


def test_kernel_size_is_never_below_one() -> None:
    """The listing takes the absolute value of t."""
    assert adaptive_kernel_size(2, b=-7) == 3
