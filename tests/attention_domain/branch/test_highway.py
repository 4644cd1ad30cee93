"""Proofs of the highway network."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.attention_domain.branch.highway import HighwayLayer
from tests.measure import Measured
from tests.resnet import parameters


def mix(x: Tensor, h: Tensor, t_logits: Tensor) -> tuple[Tensor, Tensor]:
    """T = sigmoid(t_logits); returns (T, h T + x (1 - T)); all of one shape."""
    t = 1 / (1 + torch.exp(-t_logits))
    return t, h * t + x * (1 - t)


def naive_highway(x: Tensor, w_h: Tensor, b_h: Tensor, w_t: Tensor, b_t: Tensor) -> tuple[Tensor, Tensor]:
    """Dense layer: H = ReLU(W_H x + b_H), T = sigmoid(W_T x + b_T); x (..., n), weights (n, n), biases (n,);
    (T, y)."""
    h = torch.einsum("oi,...i->...o", w_h, x) + b_h
    return mix(x, h * (h > 0), torch.einsum("oi,...i->...o", w_t, x) + b_t)


def naive_highway_conv(
    x: Tensor, w_h: Tensor, b_h: Tensor, w_t: Tensor, b_t: Tensor
) -> tuple[Tensor, Tensor]:
    """Convolutional layer: same-padding stride-1 k x k kernels (C, C, k, k), odd k; x (B, C, H, W); (T,
    y)."""
    pad = w_h.shape[-1] // 2
    h = F.conv2d(x, w_h, b_h, padding=pad)
    return mix(x, h * (h > 0), F.conv2d(x, w_t, b_t, padding=pad))


def small(
    size: tuple[int, int, int, int] = (2, 3, 5, 4), kernel_size: int = 3
) -> tuple[HighwayLayer, Tensor]:
    torch.manual_seed(1)
    layer = HighwayLayer(size[1], kernel_size).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer, torch.randn(size, dtype=torch.float64, requires_grad=True)


def deep(gate_bias: float, layers: int = 50, width: int = 64) -> tuple[nn.Sequential, Tensor]:
    """New dense layers one after the other, and a batch for them."""
    torch.manual_seed(0)
    network = nn.Sequential(*(HighwayLayer(width, 1, gate_bias) for _ in range(layers))).double()
    return network, torch.randn(32, width, 1, 1, dtype=torch.float64, requires_grad=True)


def gradient_left(network: nn.Sequential, x: Tensor) -> float:
    """Norm of the gradient at the input, as a share of the one behind the last layer."""
    (gradient,) = torch.autograd.grad(network(x), x, cotangent := torch.randn_like(x))
    return (gradient.norm() / cotangent.norm()).item()


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_equals_naive_reference(measured: Measured, kernel_size: int) -> None:
    layer, x = small(kernel_size=kernel_size)
    gates, y = naive_highway_conv(
        x, layer.transform.weight, layer.transform.bias, layer.gate.weight, layer.gate.bias
    )
    measured.close(layer.attention(x), gates)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x, *layer.parameters()))


def test_kernel_of_one_is_the_dense_layer(measured: Measured) -> None:
    layer, x = small((4, 6, 1, 1), kernel_size=1)
    w_h, w_t = (convolution.weight[:, :, 0, 0] for convolution in (layer.transform, layer.gate))
    gates, y = naive_highway(x[:, :, 0, 0], w_h, layer.transform.bias, w_t, layer.gate.bias)
    measured.close(layer.attention(x)[:, :, 0, 0], gates)
    measured.close(layer(x)[:, :, 0, 0], y)
    measured.gradients(layer(x)[:, :, 0, 0], y, of=(x, *layer.parameters()))


@pytest.mark.parametrize(
    ("name", "gate_bias", "low", "high"),
    [
        ("no gate", 1000, 0, 1e-6),
        ("bias 0", 0, 0, 1e-6),
        ("bias −1", -1, 1e-6, 1e-3),
        ("bias −3", -3, 0.05, 0.5),
    ],
)
def test_gradient_through_50_layers(
    measured: Measured, name: str, gate_bias: float, low: float, high: float
) -> None:
    """Weights by Glorot's rule, 1 / sqrt(2) of the released ones, which shrink what passes a ReLU."""
    network, x = deep(gate_bias)
    for layer in network:
        for convolution in (layer.transform, layer.gate):
            nn.init.xavier_uniform_(convolution.weight)
    measured.value(name, gradient_left(network, x), at_least=low, at_most=high)


@pytest.mark.parametrize(
    ("name", "gate_bias", "low", "high"),
    [("no gate", 1000, 0.1, 10), ("bias 0", 0, 1e-6, 1e-3), ("bias −3", -3, 0.05, 0.5)],
)
def test_gradient_with_the_released_start(
    measured: Measured, name: str, gate_bias: float, low: float, high: float
) -> None:
    measured.value(name, gradient_left(*deep(gate_bias)), at_least=low, at_most=high)


def test_closed_gates_are_the_identity_at_any_depth(measured: Measured) -> None:
    network, x = deep(-1000)
    measured.close(network(x), x, tolerance=0)
    measured.gradients(network(x), x, of=(x,), tolerance=0)


def test_open_gate_leaves_the_plain_layer(measured: Measured) -> None:
    layer, x = small()
    nn.init.constant_(layer.gate.bias, 1000)
    plain = F.relu(F.conv2d(x, layer.transform.weight, layer.transform.bias, padding=1))
    measured.close(layer(x), plain, tolerance=0)
    measured.gradients(layer(x), plain, of=(x, layer.transform.weight, layer.transform.bias))


@pytest.mark.parametrize("gate_bias", [-1.0, -2.0, -3.0])
def test_new_layer_carries_most(measured: Measured, gate_bias: float) -> None:
    torch.manual_seed(0)
    layer, x = HighwayLayer(32, gate_bias=gate_bias), torch.randn(4, 32, 8, 8)
    measured.value("mean gate", layer.attention(x).mean().item(), below=0.5)
    silent = layer.attention(torch.zeros_like(x))
    torch.testing.assert_close(silent, torch.full_like(x, gate_bias).sigmoid())


def test_output_lies_between_the_two_branches(measured: Measured) -> None:
    layer, x = small((4, 8, 9, 7))
    branches = torch.stack([x, layer.transform(x).relu()])
    low, high = branches.aminmax(dim=0)
    inside = (low - 1e-12 <= layer(x)) & (layer(x) <= high + 1e-12)
    measured.count(int(inside.sum()), 4 * 8 * 9 * 7)


def test_a_gate_is_its_units_own(measured: Measured) -> None:
    """An expectation that would fail for a gate per channel or per position."""
    layer, x = small((2, 8, 9, 7))
    measured.count(layer.attention(x).unique().numel(), 2 * 8 * 9 * 7)


def test_a_gate_sees_its_neighbourhood_in_all_channels(measured: Measured) -> None:
    layer, x = small((1, 8, 9, 7))
    (gradient,) = torch.autograd.grad(layer.attention(x)[0, 5, 4, 3], x)
    rows, columns = gradient[0].all(dim=0).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 5, 2, 4)
    measured.count(int(gradient.count_nonzero()), 8 * 3 * 3)


def test_gate_doubles_the_parameters_of_a_plain_layer(measured: Measured) -> None:
    plain = nn.Conv2d(32, 32, 3, padding=1)
    measured.count(parameters(HighwayLayer(32)), 2 * parameters(plain))


def highways(channels: int, layers: int, gate_bias: float) -> list[nn.Module]:
    return [HighwayLayer(channels, gate_bias=gate_bias) for _ in range(layers)]


def test_mnist_network_parameters(measured: Measured) -> None:
    """The released network of ten layers for MNIST, as its prototxt lists them; dropout left out."""
    network = nn.Sequential(
        nn.Conv2d(1, 32, 5),
        nn.ReLU(),
        *highways(32, 2, -1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        *highways(32, 3, -1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        *highways(32, 3, -1),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(288, 10),
    )
    assert network(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    measured.count(parameters(network), 151_690)


@pytest.mark.parametrize(("classes", "expected"), [(10, 2_256_838), (100, 2_265_928)])
def test_cifar_network_parameters(measured: Measured, classes: int, expected: int) -> None:
    """The released networks of nineteen layers for CIFAR-10 and CIFAR-100, likewise."""
    layers: list[nn.Module] = []
    inputs = 3
    for width, repeats in ((32, 4), (80, 5), (128, 5)):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(), *highways(width, repeats, -2)]
        layers += [nn.MaxPool2d(2)] if width < 128 else [nn.Conv2d(width, 100, 1), nn.ReLU()]
        inputs = width
    network = nn.Sequential(*layers, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(100, classes))
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, classes)
    measured.count(parameters(network), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels 0 must be at least 1"),
        ({"kernel_size": 4}, "kernel_size 4 must be odd"),
        ({"kernel_size": 0}, "kernel_size 0 must be odd"),
        ({"kernel_size": -1}, "kernel_size -1 must be odd"),
        ({"gate_bias": float("nan")}, "gate_bias nan must be finite"),
    ],
)
def test_refuses_impossible_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HighwayLayer(**{"channels": 8} | options)


def test_starts_as_the_released_layer() -> None:
    """Normal weights of variance 2 / fan-in; b_H at zero, b_T at `gate_bias`."""
    torch.manual_seed(0)
    layer = HighwayLayer(32, kernel_size=5, gate_bias=-1.5)
    for convolution in (layer.transform, layer.gate):
        assert convolution.weight.std().item() == pytest.approx((2 / (32 * 25)) ** 0.5, rel=0.02)
        assert convolution.weight.abs().max() > 3 * convolution.weight.std()
    assert not layer.transform.bias.any()
    assert (layer.gate.bias == -1.5).all()
