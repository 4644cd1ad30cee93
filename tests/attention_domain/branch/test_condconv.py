"""Proofs of CondConv."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorchcv.models.efficientnet import EffiInvResUnit, efficientnet_b0, efficientnet_b1
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from snippets.attention_domain.branch.condconv import CondConv2d
from tests.measure import Measured
from tests.resnet import macs, parameters


def condconv_routing(x: Tensor, w_route: Tensor, b_route: Tensor | None) -> Tensor:
    """alpha = sigmoid(R GAP(x) + b), w_route (n, C), b_route (n,); (B, n), rows do not sum to 1."""
    logits = torch.einsum("nc,bc->bn", w_route, x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3]))
    if b_route is not None:
        logits = logits + b_route
    return 1 / (1 + torch.exp(-logits))


def naive_condconv(
    x: Tensor,
    w_route: Tensor,
    b_route: Tensor | None,
    experts: Tensor,
    biases: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    outputs: bool = False,
) -> tuple[Tensor, Tensor]:
    """(alpha, y): one convolution per sample with its own mixed kernel; experts (n, O, C/groups, k, k),
    biases (n, O) or None. outputs=True mixes the n outputs instead (equal by linearity). BN and activation
    are outside."""
    alpha = condconv_routing(x, w_route, b_route)
    results = []
    for b in range(x.shape[0]):
        n = experts.shape[0]
        if outputs:
            parts = [
                F.conv2d(x[b : b + 1], experts[i], None, stride, padding, dilation, groups) for i in range(n)
            ]
            y = sum(alpha[b, i] * parts[i] for i in range(n))
        else:
            kernel = sum(alpha[b, i] * experts[i] for i in range(n))
            y = F.conv2d(x[b : b + 1], kernel, None, stride, padding, dilation, groups)
        if biases is not None:
            y = y + sum(alpha[b, i] * biases[i] for i in range(n))[None, :, None, None]
        results.append(y[0])
    return alpha, torch.stack(results)


def small(size: tuple[int, int, int, int] = (3, 4, 7, 6), **options: Any) -> tuple[CondConv2d, Tensor]:
    torch.manual_seed(1)
    options = {"out_channels": 6, "experts": 3} | options
    layer = CondConv2d(size[1], **options).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(size, dtype=torch.float64) + torch.randn(*size[:2], 1, 1, dtype=torch.float64)
    return layer, x.requires_grad_()


def kernels(layer: CondConv2d) -> Tensor:
    """The experts as kernels: (n, D, C / G, k, k)."""
    return layer.experts.unflatten(1, layer.kernel_shape)


CONVOLUTIONS = [
    {},
    {"stride": 2},
    {"stride": 3, "kernel_size": 5},
    {"groups": 2, "stride": 2},
    {"groups": 4, "out_channels": 4},
    {"kernel_size": 1, "experts": 8},
]


def naive(layer: CondConv2d, x: Tensor, outputs: bool) -> tuple[Tensor, Tensor]:
    return naive_condconv(
        x,
        layer.routing.weight,
        layer.routing.bias,
        kernels(layer),
        stride=layer.stride,
        padding=layer.kernel_shape[-1] // 2,
        groups=layer.groups,
        outputs=outputs,
    )


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_equals_naive_reference(measured: Measured, options: dict[str, int]) -> None:
    layer, x = small(**options)
    weights, y = naive(layer, x, outputs=False)
    measured.close(layer.attention(x), weights)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x, *layer.parameters()))


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_equals_the_mixture_of_the_experts_outputs(measured: Measured, options: dict[str, int]) -> None:
    layer, x = small(**options)
    _, y = naive(layer, x, outputs=True)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x, *layer.parameters()))


def test_a_nonlinearity_in_the_experts_breaks_the_equality(measured: Measured) -> None:
    layer, x = small()
    outputs = torch.stack([F.conv2d(x, kernel, padding=1).relu() for kernel in kernels(layer)], dim=1)
    mixture = torch.einsum("bn,bndhw->bdhw", layer.attention(x), outputs)
    measured.value("max |Δ|", (layer(x).relu() - mixture).abs().max().item(), above=1)


@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_one_open_weight_is_that_experts_convolution(measured: Measured, chosen: int) -> None:
    layer, x = small(stride=2)
    nn.init.zeros_(layer.routing.weight)
    layer.routing.bias.data = torch.where(torch.arange(3) == chosen, 1000.0, -1000.0).double()
    measured.close(layer(x), F.conv2d(x, kernels(layer)[chosen], stride=2, padding=1))


def test_all_open_weights_add_the_experts_up(measured: Measured) -> None:
    layer, x = small()
    nn.init.constant_(layer.routing.bias, 1000)
    measured.close(layer(x), F.conv2d(x, kernels(layer).sum(dim=0), padding=1))
    measured.value("Σ weights", layer.attention(x)[0].sum().item(), equals=3)


def test_each_sample_has_its_own_kernel(measured: Measured) -> None:
    """The same square in the middle of five pictures gives five answers there, as many as with one sample."""
    layer, x = small((5, 4, 9, 9))
    with torch.no_grad():
        x[:, :, 2:7, 2:7] = x[:1, :, 2:7, 2:7]
    middle = layer(x)[:, 0, 4, 4]
    measured.count(middle.unique().numel(), 5)
    measured.close(middle, torch.cat([layer(sample[None])[:, 0, 4, 4] for sample in x]))


def test_weights_depend_on_channel_means_alone(measured: Measured) -> None:
    layer, x = small()
    other = torch.randn_like(x)
    other += x.mean((2, 3), keepdim=True) - other.mean((2, 3), keepdim=True)
    measured.close(layer.attention(other), layer.attention(x))


class Convolutions(TorchDispatchMode):
    """Counts convolutions."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


def test_a_batch_takes_one_convolution(measured: Measured) -> None:
    layer, x = small((16, 4, 7, 6))
    with torch.no_grad(), Convolutions() as convolutions:
        layer(x)
    measured.count(convolutions.count, 1)


def handed(layer: CondConv2d, weights: list[Tensor]) -> nn.Module:
    """The layer with weights that somebody else computed, the last of `weights`; it has no routing."""
    layer.routing = None  # type: ignore[assignment]
    layer.forward = lambda x: layer.convolve(x, weights[-1])  # type: ignore[method-assign]
    return layer


def condconv_efficientnet(network: Callable[[], nn.Module], experts: int) -> nn.Module:
    """EfficientNet with CondConv in the blocks of its last three stages, weights computed once a block."""
    with torch.device("meta"):
        efficientnet = network().eval()
        for unit in efficientnet.modules():
            if not isinstance(unit, EffiInvResUnit) or unit.conv3.conv.out_channels < 112:
                continue
            weights: list[Tensor] = []
            for block in (unit.conv1, unit.conv2, unit.conv3):
                plain = block.conv
                channels = plain.in_channels, plain.out_channels
                layer = CondConv2d(*channels, plain.kernel_size[0], experts, plain.stride[0], plain.groups)
                if block is unit.conv1:  # its input is the input of the block
                    layer.routing.register_forward_hook(lambda _, x, y, w=weights: w.append(y.sigmoid()))
                block.conv = layer if block is unit.conv1 else handed(layer, weights)
    return efficientnet


@pytest.mark.parametrize(
    ("network", "experts", "expected"),
    [
        (efficientnet_b0, 4, 13_314_116),
        (efficientnet_b0, 8, 24_013_284),
        (efficientnet_b1, 8, 39_715_968),
    ],
)
def test_efficientnet_parameters(
    measured: Measured, network: Callable[[], nn.Module], experts: int, expected: int
) -> None:
    measured.count(parameters(condconv_efficientnet(network, experts)), expected)


@pytest.mark.parametrize(
    ("network", "experts", "size", "expected"),
    [
        (efficientnet_b0, 4, 224, 396_513_888),
        (efficientnet_b0, 8, 224, 407_213_024),
        (efficientnet_b1, 8, 224, 606_131_552),
    ],
)
def test_efficientnet_multiply_adds(
    measured: Measured, network: Callable[[], nn.Module], experts: int, size: int, expected: int
) -> None:
    measured.count(macs(condconv_efficientnet(network, experts), size), expected)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis, by TensorFlow's rule for "SAME": as few as give ceil(size / stride)."""
    outputs = (size + stride - 1) // stride
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("size", [(8, 6), (8, 7), (9, 7)], ids=str)
def test_a_row_in_front_gives_the_released_layer_at_stride_2(
    measured: Measured, size: tuple[int, int], kernel_size: int
) -> None:
    """Where a side is even, windows of the released layers lie one pixel further on."""
    layer, x = small((3, 4, *size), kernel_size=kernel_size, stride=2)
    rows, columns = (same_padding(side, kernel_size, 2) for side in size)
    padded = F.pad(x, (*columns, *rows))
    weights = layer.attention(x)
    mixed = torch.einsum("bn,nokij->bokij", weights, kernels(layer))
    released = torch.cat(
        [F.conv2d(sample[None], kernel, stride=2) for sample, kernel in zip(padded, mixed, strict=True)]
    )
    top, left = (1 - side % 2 for side in size)
    y = layer.convolve(F.pad(x, (left, left, top, top)), weights)[..., top:, left:]
    measured.close(y, released)
    measured.gradients(y, released, of=(x, *layer.parameters()))
    if top or left:
        assert (layer(x) - released).abs().max() > 1


def test_starts_as_the_released_layer() -> None:
    """Normal experts with variance 2 / fan-out; Glorot's uniform routing; even weights for a silent map."""
    torch.manual_seed(0)
    layer = CondConv2d(64, 96, kernel_size=3, experts=8, groups=2)
    expected = torch.full((8,), (2 / (9 * 96 / 2)) ** 0.5)
    torch.testing.assert_close(layer.experts.std(dim=1), expected, rtol=0.02, atol=0)
    bound = (6 / (64 + 8)) ** 0.5
    assert 0.95 * bound < layer.routing.weight.abs().max() <= bound
    assert (layer.attention(torch.zeros(2, 64, 5, 5)) == 0.5).all()


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
        CondConv2d(8, 12, stride=2.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": 0}, "experts 0 must be at least 1"),
        ({"stride": 0}, "stride 0 must be at least 1"),
        ({"groups": 0}, "groups 0 must be at least 1"),
        ({"kernel_size": 2}, "kernel_size 2 must be odd"),
        ({"groups": 3}, "in_channels 8 must be divisible by groups 3"),
        ({"groups": 8}, "out_channels 12 must be divisible by groups 8"),
        ({"out_channels": 0}, "out_channels 0 must be at least 1"),
    ],
)
def test_refuses_impossible_arguments(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CondConv2d(**{"in_channels": 8, "out_channels": 12} | options)
