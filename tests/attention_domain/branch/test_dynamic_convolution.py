"""Proofs of dynamic convolution."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorchcv.models.mobilenetv2 import LinearBottleneck, MobileNetV2
from torch import Tensor, nn

from snippets.attention_domain.branch.dynamic_convolution import DynamicConv2d
from tests.measure import Measured
from tests.resnet import macs, parameters


def kernel_attention(
    x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, tau: float = 1.0
) -> Tensor:
    """pi = softmax((W2 ReLU(W1 GAP(x) + b1) + b2) / tau); w1 (h, C), w2 (K, h), biases may be None; (B,
    K)."""
    z = torch.einsum("hc,bc->bh", w1, x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3]))
    z = z if b1 is None else z + b1
    z = torch.einsum("kh,bh->bk", w2, z * (z > 0))
    z = (z if b2 is None else z + b2) / tau
    e = torch.exp(z - z.amax(dim=1, keepdim=True))
    return e / e.sum(dim=1, keepdim=True)


def naive_dynamic_convolution(
    x: Tensor,
    pi: Tensor,
    kernels: Tensor,
    biases: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """y_b = (sum_k pi_bk W_k) * x_b + sum_k pi_bk b_k; kernels (K, O, C/groups, k, k), biases (K, O) or None;
    BN and activation are outside."""
    results = []
    for b in range(x.shape[0]):
        kernel = sum(pi[b, k] * kernels[k] for k in range(kernels.shape[0]))
        bias = None if biases is None else sum(pi[b, k] * biases[k] for k in range(kernels.shape[0]))
        results.append(F.conv2d(x[b : b + 1], kernel, bias, stride, padding, dilation, groups)[0])
    return torch.stack(results)


def small(
    size: tuple[int, int, int, int] = (3, 4, 7, 6), epoch: int = 10, **options: Any
) -> tuple[DynamicConv2d, Tensor]:
    torch.manual_seed(1)
    options = {"out_channels": 6, "kernels": 3, "reduction": 1} | options
    layer = DynamicConv2d(size[1], **options).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    layer.anneal(epoch)
    x = torch.randn(size, dtype=torch.float64) + torch.randn(*size[:2], 1, 1, dtype=torch.float64)
    return layer, x.requires_grad_()


def naive_weights(layer: DynamicConv2d, x: Tensor, tau: float) -> Tensor:
    first, second = layer.scores[0], layer.scores[2]
    return kernel_attention(x, first.weight, first.bias, second.weight, second.bias, tau)


def kernels(layer: DynamicConv2d) -> Tensor:
    """The kernels, no longer flattened: (K, D, C / G, k, k)."""
    return layer.kernels.unflatten(1, layer.kernel_shape)


def outputs(layer: DynamicConv2d, x: Tensor) -> Tensor:
    """What each kernel with its bias gives by itself: (B, K, D, H', W')."""
    padding = layer.kernel_shape[-1] // 2
    biases = [None] * len(layer.kernels) if layer.biases is None else layer.biases
    pairs = zip(kernels(layer), biases, strict=True)
    return torch.stack(
        [F.conv2d(x, W, b, layer.stride, padding, groups=layer.groups) for W, b in pairs], dim=1
    )


CONVOLUTIONS = [
    {},
    {"stride": 2, "bias": False},
    {"stride": 3, "kernel_size": 5, "epoch": 5},
    {"groups": 2, "stride": 2, "reduction": 2, "epoch": 0},
    {"groups": 4, "out_channels": 4},
    {"kernel_size": 1, "kernels": 8, "temperature": 7.0, "epoch": 2},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_equals_naive_reference(measured: Measured, options: dict[str, Any]) -> None:
    layer, x = small(**options)
    tau = {0: 30.0, 2: 7 - 6 * 0.2, 5: 15.5, 10: 1.0}[options.get("epoch", 10)]
    weights = naive_weights(layer, x, tau)
    y = naive_dynamic_convolution(
        x, weights, kernels(layer), layer.biases, layer.stride, layer.kernel_shape[-1] // 2, 1, layer.groups
    )
    measured.close(layer.attention(x), weights)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x, *layer.parameters()))


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_equals_the_mixture_of_the_outputs(measured: Measured, options: dict[str, Any]) -> None:
    layer, x = small(**options)
    mixture = torch.einsum("bk,bkdhw->bdhw", layer.attention(x), outputs(layer, x))
    measured.close(layer(x), mixture)
    measured.gradients(layer(x), mixture, of=(x, *layer.parameters()))


def test_output_lies_between_the_kernels_outputs(measured: Measured) -> None:
    layer, x = small((4, 8, 9, 7), epoch=7)
    low, high = outputs(layer, x).aminmax(dim=1)
    inside = (low - 1e-12 <= layer(x)) & (layer(x) <= high + 1e-12)
    measured.count(int(inside.sum()), 4 * 6 * 9 * 7)


def test_temperature_divides_the_differences_of_scores(measured: Measured) -> None:
    hot, x = small(epoch=0)
    cold, _ = small(epoch=10)
    ratios = [layer.attention(x).log().diff(dim=1) for layer in (hot, cold)]
    measured.close(30 * ratios[0], ratios[1])


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 30.0), (1, 27.1), (5, 15.5), (9, 3.9), (10, 1.0), (50, 1.0)]
)
def test_anneals_in_a_straight_line_to_one(measured: Measured, epoch: int, expected: float) -> None:
    layer, _ = small(epoch=epoch)
    measured.close(layer.temperature, torch.tensor(expected, dtype=torch.float64), tolerance=1e-5)
    measured.value("τ", layer.temperature.item(), at_least=1)


@pytest.mark.parametrize(("epoch", "low", "high"), [(0, 0.9, 1.0), (10, 0.0, 0.7)])
def test_entropy_falls_with_the_temperature(measured: Measured, epoch: int, low: float, high: float) -> None:
    """Mean entropy of the weights, one for even weights, zero for a choice."""
    layer, x = small((64, 16, 3, 3), epoch, kernels=4)
    weights = layer.attention(x)
    entropy = -(weights * weights.log()).sum(dim=1).mean() / torch.tensor(4.0).log()
    measured.value(f"τ {layer.temperature:g}", entropy.item(), at_least=low, at_most=high)


@pytest.mark.parametrize(("epoch", "low", "high"), [(0, 0.4, 1.0), (10, 0.0, 0.1)])
def test_all_kernels_learn_while_it_is_hot(measured: Measured, epoch: int, low: float, high: float) -> None:
    """Smallest over largest gradient norm of the kernels, for one picture."""
    layer, x = small((1, 16, 9, 9), epoch, kernels=4)
    (gradient,) = torch.autograd.grad(layer(x).sum(), layer.kernels)
    norms = gradient.flatten(1).norm(dim=1)
    measured.value(f"τ {layer.temperature:g}", (norms.min() / norms.max()).item(), at_least=low, at_most=high)


def test_equal_kernels_are_a_plain_convolution(measured: Measured) -> None:
    layer, x = small(stride=2)
    layer.kernels.data[:], layer.biases.data[:] = (
        layer.kernels.data[:1].clone(),
        layer.biases.data[:1].clone(),
    )
    measured.close(layer(x), F.conv2d(x, kernels(layer)[0], layer.biases[0], stride=2, padding=1))


def test_temperature_is_saved_with_the_weights(measured: Measured) -> None:
    trained, x = small(epoch=10)
    fresh, _ = small(epoch=0)
    assert not torch.allclose(fresh(x), trained(x))
    fresh.load_state_dict(trained.state_dict())
    measured.close(fresh(x), trained(x), tolerance=0)


WIDTHS = {
    1.0: ([[16], [24] * 2, [32] * 3, [64] * 4 + [96] * 3, [160] * 3 + [320]], 32),
    0.5: ([[8], [16] * 2, [16] * 3, [32] * 4 + [48] * 3, [80] * 3 + [160]], 16),
}
"""Channels of the blocks and of the stem of MobileNetV2, rounded to multiples of 8."""


def mobilenet(
    width: float, convolution: Callable[..., nn.Module] | None = None, bias: bool = False
) -> nn.Module:
    """MobileNetV2 on the meta device, if asked with other convolutions in the inverted residual blocks."""
    channels, stem = WIDTHS[width]
    with torch.device("meta"):
        network = MobileNetV2(channels, stem, final_block_channels=1280, remove_exp_conv=True).eval()
        blocks = [unit for unit in network.modules() if isinstance(unit, LinearBottleneck)]
        for block in [child for unit in blocks for child in unit.children()]:
            if convolution is not None:
                plain = block.conv
                options = {"stride": plain.stride[0], "groups": plain.groups, "bias": bias}
                sizes = plain.in_channels, plain.out_channels, plain.kernel_size[0]
                block.conv = convolution(*sizes, **options)
    return network


@pytest.mark.parametrize(("width", "expected"), [(1.0, 3_503_872), (0.5, 1_967_680)])
def test_the_skeleton_is_mobilenet(width: float, expected: int) -> None:
    assert parameters(mobilenet(width)) == expected


@pytest.mark.parametrize(
    ("width", "bias", "expected"),
    [(1.0, False, 11_148_736), (0.5, False, 3_945_334), (1.0, True, 11_211_712), (0.5, True, 3_977_238)],
)
def test_dynamic_mobilenet_parameters(measured: Measured, width: float, bias: bool, expected: int) -> None:
    measured.count(parameters(mobilenet(width, DynamicConv2d, bias)), expected)


@pytest.mark.parametrize(("width", "expected"), [(1.0, 310_194_368), (0.5, 99_571_240)])
def test_dynamic_mobilenet_multiply_adds(measured: Measured, width: float, expected: int) -> None:
    measured.count(macs(mobilenet(width, DynamicConv2d)), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernels": 0}, "kernels 0 must be at least 1"),
        ({"reduction": 0}, "reduction 0 must be at least 1"),
        ({"stride": 0}, "stride 0 must be at least 1"),
        ({"groups": 0}, "groups 0 must be at least 1"),
        ({"temperature": 0.5}, "temperature 0.5 must be at least 1"),
        ({"temperature": float("nan")}, "temperature nan must be at least 1"),
        ({"temperature": float("inf")}, "temperature inf must be at least 1 and finite"),
        ({"kernel_size": 2}, "kernel_size 2 must be odd"),
        ({"in_channels": 3}, "in_channels 3 must be divisible by reduction 4"),
        ({"groups": 3}, "in_channels 8 must be divisible by groups 3"),
        ({"groups": 8}, "out_channels 12 must be divisible by groups 8"),
    ],
)
def test_refuses_impossible_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicConv2d(**{"in_channels": 8, "out_channels": 12} | options)


def test_refuses_annealing_without_epochs() -> None:
    with pytest.raises(ValueError, match="epochs 0 must be at least 1"):
        small()[0].anneal(1, epochs=0)
    with pytest.raises(ValueError, match="epoch -1 must be at least 0"):
        small()[0].anneal(-1)


def test_a_whole_number_as_temperature_anneals_like_a_fraction() -> None:
    layers = [DynamicConv2d(8, 12, temperature=start) for start in (30, 30.0)]
    for epoch in (1, 5, 9):
        for layer in layers:
            layer.anneal(epoch)
        assert layers[0].temperature == layers[1].temperature == torch.tensor(30 - 2.9 * epoch)


def test_an_empty_batch_gives_an_empty_result() -> None:
    layer, x = small(stride=2)
    y = layer(x[:0])
    assert y.shape == (0, 6, 4, 3)
    y.sum().backward()


def test_a_network_with_the_layer_can_be_laid_out_channels_last() -> None:
    layer, x = small()
    expected = layer(x)
    nn.Sequential(layer).to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), expected)


def test_stride_is_an_integer_from_the_start() -> None:
    with pytest.raises(TypeError, match="integer"):
        DynamicConv2d(8, 12, stride=2.0)  # type: ignore[arg-type]


def test_kernels_start_each_by_itself() -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(64, 96, groups=2)
    bound = (6 / (9 * 32)) ** 0.5
    assert (layer.kernels.abs().amax(dim=1) <= bound).all()
    expected = torch.full((4,), bound / 3**0.5)
    torch.testing.assert_close(layer.kernels.std(dim=1), expected, rtol=0.02, atol=0)
    assert not layer.biases.any()
