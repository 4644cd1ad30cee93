"""Proofs of gather-excite."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorchcv.models.common.att import SEBlock as PublicSEBlock
from torch import Tensor, nn

from snippets.attention_domain.spatial.gather_excite import GatherExcite
from tests.measure import Measured
from tests.resnet import macs, parameters, resnet50

BN = tuple[Tensor, Tensor, Tensor, Tensor]  # gamma (C,), beta (C,), running mean (C,), running var (C,)


def naive_bn(x: Tensor, bn: BN, eps: float = 1e-5) -> Tensor:
    """BatchNorm in eval mode over dim 1 of x (B, C, h, w): gamma * (x - mean) / sqrt(var + eps) + beta."""
    gamma, beta, mean, var = (p[None, :, None, None] for p in bn)
    return gamma * (x - mean) / torch.sqrt(var + eps) + beta


def gather_theta_minus(x: Tensor, extent: int) -> Tensor:
    """GE-theta-minus gather: mean of the (2e-1)^2 window centred on (i e, j e), pixels inside the map only;
    0: GAP."""
    height, width = x.shape[2:]
    if extent == 0:
        return x.sum(dim=(2, 3), keepdim=True) / (height * width)
    rows = []
    for ci in range(0, height, extent):
        row = []
        for cj in range(0, width, extent):
            top, left = max(ci - extent + 1, 0), max(cj - extent + 1, 0)
            window = x[:, :, top : min(ci + extent, height), left : min(cj + extent, width)]
            row.append(window.sum(dim=(2, 3)) / (window.shape[2] * window.shape[3]))
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)  # (B, C, ceil(H/e), ceil(W/e))


def depthwise_stride2(x: Tensor, w: Tensor) -> Tensor:
    """One 3x3 depth-wise convolution, stride 2, zero padding 1, no bias; w (C, 3, 3); output ceil(H/2) x
    ceil(W/2)."""
    height, width = x.shape[2:]
    rows = []
    for ci in range(0, height, 2):
        row = []
        for cj in range(0, width, 2):
            acc = torch.zeros_like(x[:, :, 0, 0])
            for a in range(3):
                for b in range(3):
                    i, j = ci + a - 1, cj + b - 1
                    if 0 <= i < height and 0 <= j < width:
                        acc = acc + x[:, :, i, j] * w[:, a, b]
            row.append(acc)
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


def gather_theta_local(x: Tensor, weights: list[Tensor], bns: list[BN], eps: float = 1e-5) -> Tensor:
    """GE-theta gather, e = 2^S: S stages of depthwise_stride2 (C, 3, 3) + BN, ReLU between, none after the
    last."""
    for s, (w, bn) in enumerate(zip(weights, bns, strict=True)):
        x = naive_bn(depthwise_stride2(x, w), bn, eps)
        if s < len(weights) - 1:
            x = x * (x > 0)
    return x


def gather_theta_global(x: Tensor, w: Tensor, bn: BN, eps: float = 1e-5) -> Tensor:
    """GE-theta global gather: one depth-wise kernel as large as the map, w (C, H, W), no bias, + BN: (B, C,
    1, 1)."""
    return naive_bn(torch.einsum("bchw,chw->bc", x, w)[:, :, None, None], bn, eps)


def excite_theta_plus(gathered: Tensor, w_down: Tensor, b_down: Tensor, w_up: Tensor, b_up: Tensor) -> Tensor:
    """GE-theta-plus logits: ReLU of the gather, 1x1 (C/r, C) + b, ReLU, 1x1 (C, C/r) + b: same shape as
    gathered."""
    z = gathered * (gathered > 0)
    z = torch.einsum("dc,bchw->bdhw", w_down, z) + b_down[None, :, None, None]
    z = z * (z > 0)
    return torch.einsum("cd,bdhw->bchw", w_up, z) + b_up[None, :, None, None]


def naive_gather_excite(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Excite: nearest upsampling (source floor(i h / H)) of logits (B, C, h, w) to H x W, sigmoid; (gate, x *
    gate)."""
    height, width = x.shape[2:]
    h, w = logits.shape[2:]
    rows = []
    for i in range(height):
        rows.append(
            torch.stack([logits[:, :, i * h // height, j * w // width] for j in range(width)], dim=-1)
        )
    gate = 1 / (1 + torch.exp(-torch.stack(rows, dim=-2)))
    return gate, gate * x


CASES = [
    *(("theta_minus", extent) for extent in (1, 2, 4, 8, None)),
    *(("theta", extent) for extent in (1, 2, 4, 8, None)),
    ("theta_plus", None),
]


def block_and_map(
    mode: str, extent: int | None, size: tuple[int, int] = (7, 10)
) -> tuple[GatherExcite, Tensor]:
    """A block in float64 in eval mode, all its parameters and statistics drawn anew, and a map."""
    torch.manual_seed(1)
    block = GatherExcite(4, mode, extent, size, reduction=2).double().eval()
    for name, tensor in block.state_dict().items():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2) if name.endswith("var") else nn.init.normal_(tensor)
    return block, torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)


def bn(layer: nn.Module) -> BN:
    assert isinstance(layer, nn.BatchNorm2d)
    return layer.weight, layer.bias, layer.running_mean, layer.running_var


def naive_logits(block: GatherExcite, mode: str, extent: int | None, x: Tensor) -> Tensor:
    """What the naive reference gathers with the parameters of the block."""
    if mode == "theta_minus":
        return gather_theta_minus(x, extent or 0)
    if extent is not None:
        stages = [stage for stage in block.gather if isinstance(stage, nn.Sequential)]
        return gather_theta_local(
            x, [conv.weight[:, 0] for conv, _ in stages], [bn(norm) for _, norm in stages]
        )
    conv, norm = block.gather
    gathered = gather_theta_global(x, conv.weight[:, 0], bn(norm))
    if mode == "theta":
        return gathered
    _, down, _, up = block.excite
    return excite_theta_plus(gathered, down.weight[..., 0, 0], down.bias, up.weight[..., 0, 0], up.bias)


@pytest.mark.parametrize("size", [(8, 16), (7, 10), (1, 3)], ids=str)
@pytest.mark.parametrize(("mode", "extent"), CASES)
def test_equals_naive_reference(
    measured: Measured, mode: str, extent: int | None, size: tuple[int, int]
) -> None:
    block, x = block_and_map(mode, extent, size)
    logits = naive_logits(block, mode, extent, x)
    _, y = naive_gather_excite(x, logits)
    measured.close(block.attention(x), logits.sigmoid())
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


def test_theta_plus_with_a_mean_is_se(measured: Measured) -> None:
    block, _ = block_and_map("theta_plus", None)
    x = torch.rand(2, 4, 7, 10, dtype=torch.float64, requires_grad=True)  # positive, as behind a ReLU
    conv, norm = block.gather
    nn.init.constant_(conv.weight, 1 / 70)
    norm.reset_running_stats()
    norm.eps = 0.0
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)
    _, down, _, up = block.excite
    public = PublicSEBlock(4, reduction=2, round_mid=False).double()
    for key, tensor in zip(public.parameters(), (*down.parameters(), *up.parameters()), strict=True):
        key.data = tensor.data.view_as(key)
    measured.close(block(x), public(x))
    measured.gradients(block(x), public(x), of=(x,))


def test_theta_can_learn_to_be_theta_minus(measured: Measured) -> None:
    block, x = block_and_map("theta", None)
    conv, norm = block.gather
    nn.init.constant_(conv.weight, 1 / 70)
    norm.reset_running_stats()
    norm.eps = 0.0
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)
    measured.close(block(x), GatherExcite(4, "theta_minus")(x))


@pytest.mark.parametrize("mode", ["theta_minus", "theta"])
def test_extent_one_is_a_swish(measured: Measured, mode: str) -> None:
    block, x = block_and_map(mode, 1)
    measured.close(block(x), F.silu(x))


@pytest.mark.parametrize(("mode", "extent"), CASES)
def test_every_value_shrinks_and_keeps_its_sign(measured: Measured, mode: str, extent: int | None) -> None:
    block, x = block_and_map(mode, extent)
    ratio = block(x) / x
    measured.value("y / x", ratio.min().item(), above=0)
    measured.value("y / x", ratio.max().item(), below=1)


@pytest.mark.parametrize("extent", [2, 4, 8])
@pytest.mark.parametrize("mode", ["theta_minus", "theta"])
def test_one_gate_per_cell_of_e_by_e_pixels(measured: Measured, mode: str, extent: int) -> None:
    block, x = block_and_map(mode, extent, (16, 24))
    gates = block(x) / x
    cells = gates.view(2, 4, 16 // extent, extent, 24 // extent, extent)
    measured.close(cells, cells[:, :, :, :1, :, :1].expand_as(cells))
    assert gates[0].std(dim=(1, 2)).max() > 1e-3  # another cell has another gate


@pytest.mark.parametrize(("mode", "extent"), CASES)
def test_only_theta_plus_mixes_channels(measured: Measured, mode: str, extent: int | None) -> None:
    block, x = block_and_map(mode, extent)
    jacobian = torch.autograd.functional.jacobian(lambda v: block.attention(v)[0].sum((1, 2)), x[:1].detach())
    influence = jacobian[:, 0].abs().sum((-1, -2))  # (gate, channel)
    foreign = (influence - influence.diag().diag()).max().item()
    if mode == "theta_plus":
        measured.value("other channels, theta_plus", foreign, above=1e-3)
    else:
        measured.value("others", foreign, equals=0)


@pytest.mark.parametrize("extent", [2, 4, 8])
@pytest.mark.parametrize("mode", ["theta_minus", "theta"])
def test_a_gate_sees_2e_minus_1_pixels_each_way(measured: Measured, mode: str, extent: int) -> None:
    block, x = block_and_map(mode, extent, (32, 40))
    if mode == "theta":
        for layer in block.gather.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.ones_(layer.weight)
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.ones_(layer.weight)
                nn.init.zeros_(layer.bias)
                layer.reset_running_stats()
    x = x.detach().abs().requires_grad_()  # no ReLU is silent
    (seen,) = torch.autograd.grad(block.gather(x)[0, 0, 16 // extent, 16 // extent], x)
    rows, columns = seen[0, 0].nonzero().T
    measured.count(int(rows.max() - rows.min() + 1), 2 * extent - 1)
    measured.count(int(columns.max() - columns.min() + 1), 2 * extent - 1)
    assert rows.min() == 16 - (extent - 1)  # centred


def block_of(mode: str, extent: int | None) -> Callable[[int], nn.Module]:
    """The block for a stage of ResNet-50 at 224 x 224, whose maps have 14336 / C rows."""
    return lambda channels: GatherExcite(channels, mode, extent, (14336 // channels,) * 2)


@pytest.mark.parametrize(
    ("mode", "extent", "expected"),
    [
        ("theta_minus", None, 25_557_032),
        ("theta", 2, 25_723_176),
        ("theta", 4, 25_889_320),
        ("theta", 8, 26_055_464),
        ("theta", None, 31_106_600),
        ("theta_plus", None, 33_637_592),
    ],
)
def test_resnet50_parameters(measured: Measured, mode: str, extent: int | None, expected: int) -> None:
    measured.count(parameters(resnet50(block_of(mode, extent))), expected)


@pytest.mark.parametrize(("mode", "expected"), [("theta", 5_519_360), ("theta_plus", 8_034_304)])
def test_resnet50_multiply_adds(measured: Measured, mode: str, expected: int) -> None:
    network = resnet50(block_of(mode, None)).eval()
    measured.count(macs(network) - macs(resnet50()), expected)


@pytest.mark.parametrize(("mode", "extent"), CASES)
def test_every_variant_compiles_and_runs_in_bfloat16(mode: str, extent: int | None) -> None:
    block = GatherExcite(4, mode, extent, (7, 10), reduction=2).eval()
    x = torch.randn(2, 4, 7, 10)
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
        ((0,), "channels 0"),
        ((64, "theta_plus", None, (7, 7), 0), "reduction 0"),
        ((64, "theta", None, (7, 0)), r"size \(7, 0\) must be at least 1"),
        ((64, "se"), "mode 'se' must be one of theta_minus, theta, theta_plus"),
        ((64, "theta", 3), "extent 3 must be a power of two"),
        ((64, "theta", 0), "extent 0 must be a power of two"),
        ((64, "theta_plus", 4), "extent 4 must be None in mode 'theta_plus'"),
        ((20, "theta_plus", None, (7, 7)), "channels 20 must be divisible by reduction 16"),
        ((64, "theta"), r"size None must be \(H, W\) in mode 'theta'"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatherExcite(*arguments)


def test_refuses_a_map_of_another_size() -> None:
    block = GatherExcite(4, "theta", size=(7, 10))
    with pytest.raises(ValueError, match=r"must be \(B, C, H, W\) with \(H, W\) = \(7, 10\)"):
        block(torch.randn(2, 4, 10, 7))


def test_refuses_three_sizes() -> None:
    with pytest.raises(ValueError, match=r"size \(7, 10, 3\) must be \(H, W\)"):
        GatherExcite(4, "theta", size=(7, 10, 3))  # type: ignore[arg-type]


def test_a_list_of_sizes_is_a_tuple() -> None:
    block, x = GatherExcite(4, "theta", size=[7, 10]), torch.randn(2, 4, 7, 10)
    assert block(x).shape == x.shape


@pytest.mark.parametrize(
    "arguments", [(4.0,), (4, "theta", 4.0), (4, "theta_plus", None, (7, 10), 2.0)], ids=str
)
def test_refuses_floats_for_counts(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        GatherExcite(*arguments)


@pytest.mark.parametrize("shape", [(2, 7, 10, 4), (2, 1, 7, 10), (4, 7, 10)], ids=str)
def test_refuses_other_channels(shape: tuple[int, ...]) -> None:
    """The mean has no layer that would count them."""
    block = GatherExcite(4, "theta_minus")
    with pytest.raises(ValueError, match=r"must be \(B, C, H, W\) with C = 4"):
        block(torch.randn(shape))
