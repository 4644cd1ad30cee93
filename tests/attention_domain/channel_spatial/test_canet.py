"""Proofs of CANet."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.attention_domain.channel_spatial.canet import AttendedConv, CANet
from tests.measure import Measured
from tests.resnet import parameters


def attended_conv(
    x: Tensor,
    w: Tensor,
    b: Tensor,
    w_down: Tensor,
    b_down: Tensor,
    w_up: Tensor,
    b_up: Tensor,
    w_pixel: Tensor,
    b_pixel: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruction: u = ReLU(conv k x k), channel gate (SE MLP C -> C/r -> C), then pixel gate (1x1, C ->
    1, or C). w (C, C, k, k), w_down (C/r, C), w_up (C, C/r), w_pixel (1 or C, C). Returns (channel gate,
    pixel gate, out)."""
    u = F.conv2d(x, w, b, padding=w.shape[-1] // 2)
    u = u * (u > 0)
    z = torch.einsum("dc,bc->bd", w_down, u.sum(dim=(2, 3)) / (u.shape[2] * u.shape[3])) + b_down
    channel = 1 / (1 + torch.exp(-(torch.einsum("cd,bd->bc", w_up, z * (z > 0)) + b_up)))
    u = u * channel[:, :, None, None]
    pixel = 1 / (1 + torch.exp(-(torch.einsum("pc,bchw->bphw", w_pixel, u) + b_pixel[None, :, None, None])))
    return channel, pixel, u * pixel


def canet_module(x: Tensor, layers: list[tuple[Tensor, ...]]) -> Tensor:
    """Reconstruction of A_n: x + the chain of attended_conv(., *layer)."""
    u = x
    for layer in layers:
        u = attended_conv(u, *layer)[2]
    return x + u


def naive_canet(
    image: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    modules: list[list[tuple[Tensor, ...]]],
    a_layers: list[tuple[Tensor, Tensor]],
    w_fuse: Tensor,
    b_fuse: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    add_first: bool = False,
) -> tuple[list[Tensor], Tensor]:
    """F_0 = conv(I); F_1 = A_1(F_0); F_n = A_n(Alayer_n(concat(F_{n-1}, F_{n-2}))); O = fuse(concat(F_0 ..
    F_N)) (+ F_1 if add_first); out = conv(O) + I. Alayer and fuse are 1x1: (w (C, 2C), b (C,)), w_fuse (C,
    (N+1) C). ([F_n], out)."""
    f = [F.conv2d(image, w_in, b_in, padding=w_in.shape[-1] // 2)]
    f.append(canet_module(f[0], modules[0]))
    for (w, b), layers in zip(a_layers, modules[1:], strict=True):
        joined = torch.einsum("oc,bchw->bohw", w, torch.cat([f[-1], f[-2]], dim=1)) + b[None, :, None, None]
        f.append(canet_module(joined, layers))
    fused = torch.einsum("oc,bchw->bohw", w_fuse, torch.cat(f, dim=1)) + b_fuse[None, :, None, None]
    if add_first:
        fused = fused + f[1]
    return f, F.conv2d(fused, w_out, b_out, padding=w_out.shape[-1] // 2) + image


def small(modules: int = 3, layers: int = 2) -> tuple[CANet, Tensor]:
    torch.manual_seed(1)
    network = CANet(6, modules, layers, reduction=2).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network, torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)


def tensors(layer: AttendedConv) -> tuple[Tensor, ...]:
    down, _, up, _ = layer.channel_gate
    pixel = layer.pixel_gate[0]
    gates = (down.weight, down.bias, up.weight, up.bias, pixel.weight[..., 0, 0], pixel.bias)
    return (layer.conv.weight, layer.conv.bias, *gates)


@pytest.mark.parametrize(("modules", "layers"), [(1, 1), (3, 2), (4, 1)])
def test_equals_naive_reference(measured: Measured, modules: int, layers: int) -> None:
    network, x = small(modules, layers)
    maps, y = naive_canet(
        x,
        network.head.weight,
        network.head.bias,
        [[tensors(layer) for layer in module] for module in network.stack],
        [(select.weight[..., 0, 0], select.bias) for select in network.select],
        network.fuse.weight[..., 0, 0],
        network.fuse.bias,
        network.tail.weight,
        network.tail.bias,
    )
    for actual, expected in zip(network.features(x)[0], maps, strict=True):
        measured.close(actual, expected)
    measured.close(network(x), y)
    measured.gradients(network(x), y, of=(x, *network.parameters()))


def test_weights_equal_naive_reference(measured: Measured) -> None:
    network, x = small(modules=1, layers=1)
    channel, pixel, _ = attended_conv(network.head(x), *tensors(network.stack[0][0]))
    measured.close(network.attention(x)[:, 0, 0], channel[:, :, None, None] * pixel)


def test_each_later_module_reads_the_two_maps_before_it(measured: Measured) -> None:
    network, x = small(modules=5)
    read: list[Tensor] = []
    for select in network.select:
        select.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    maps, _ = network.features(x)
    for n, seen in enumerate(read, start=2):
        measured.close(seen, torch.cat([maps[n - 1], maps[n - 2]], dim=1), tolerance=0)
    measured.count(len(read), 4)


def test_every_map_reaches_the_picture(measured: Measured) -> None:
    network, x = small(modules=5)
    fused: list[Tensor] = []
    network.fuse.register_forward_pre_hook(lambda _, inputs: fused.append(inputs[0]))
    network(x)
    measured.close(fused[0], torch.cat(network.features(x)[0], dim=1), tolerance=0)
    gradient = torch.autograd.grad(network(x).square().sum(), network.fuse.weight)[0]
    measured.count(gradient.abs().sum((0, 2, 3)).view(6, 6).any(dim=1).sum().item(), 6)


def test_zero_correction_leaves_the_picture(measured: Measured) -> None:
    network, x = small()
    for parameter in network.tail.parameters():
        nn.init.zeros_(parameter)
    measured.close(network(x), x, tolerance=0)


def test_weights_of_a_layer_have_rank_one(measured: Measured) -> None:
    network, x = small()
    first, second = torch.linalg.svdvals(network.attention(x).flatten(4))[..., :2].unbind(dim=-1)
    measured.value("second / first singular value", (second / first).max().item(), below=1e-13)


def test_moved_pixels_move_their_weights(measured: Measured) -> None:
    network, _ = small()
    layer, y = network.stack[0][0], torch.randn(2, 6, 5, 4, dtype=torch.float64)
    order = torch.randperm(20)
    moved = y.flatten(2)[..., order].view_as(y)
    expected = layer.attention(y).flatten(2)[..., order].view_as(y)
    measured.close(layer.attention(moved), expected)


def test_gates_hold_few_of_the_parameters(measured: Measured) -> None:
    network = CANet(64, modules=8, layers=4, reduction=16)
    gates = sum(parameters(gate) for m in network.stack for a in m for gate in (a.channel_gate, a.pixel_gate))
    measured.count(gates, 32 * (2 * 64 * 4 + 4 + 64 + 64 + 1))
    measured.value("share of the gates", gates / parameters(network), below=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels 0"),
        ((16, 0), "modules 0"),
        ((16, 3, 0), "layers 0"),
        ((16, 3, 2, 0), "reduction 0"),
        ((16, 3, 2, 8, 0), "image_channels 0 must be at least 1"),
        ((12, 3, 2, 8), "channels 12 must be divisible by reduction 8"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CANet(*arguments)
