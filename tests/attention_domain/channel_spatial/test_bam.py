"""Proofs of BAM."""

import pytest
import torch
import torch.nn.functional as F
from pytorchcv.models.bamresnet import BamBlock
from torch import Tensor, nn

from snippets.attention_domain.channel_spatial.bam import BAM
from tests.measure import Measured
from tests.resnet import STAGES, macs, parameters, resnet50

BN = tuple[Tensor, Tensor, Tensor, Tensor]  # gamma (h,), beta (h,), running mean (h,), running var (h,)


def bn_relu(x: Tensor, bn: BN, eps: float = 1e-5) -> Tensor:
    """ReLU of BatchNorm in eval mode over dim 1; x (B, h) or (B, h, H, W)."""
    gamma, beta, mean, var = (p.reshape(1, -1, *[1] * (x.dim() - 2)) for p in bn)
    y = gamma * (x - mean) / torch.sqrt(var + eps) + beta
    return y * (y > 0)


def bam_channel(x: Tensor, w1: Tensor, b1: Tensor, bn: BN, w2: Tensor, b2: Tensor) -> Tensor:
    """M_c logits (B, C): GAP, FC w1 (h, C), BN, ReLU, FC w2 (C, h)."""
    z = torch.einsum("hc,bc->bh", w1, x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3])) + b1
    return torch.einsum("ch,bh->bc", w2, bn_relu(z, bn)) + b2


def bam_spatial(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    bn1: BN,
    dilated: list[tuple[Tensor, Tensor, BN]],
    w2: Tensor,
    b2: Tensor,
    dilation: int = 4,
) -> Tensor:
    """M_s logits (B, 1, H, W): 1x1 w1 (h, C) BN ReLU; each of dilated: 3x3 (h, h, 3, 3), b (h,), BN, ReLU;
    1x1 w2 (1, h)."""
    z = bn_relu(torch.einsum("hc,bcyx->bhyx", w1, x) + b1[None, :, None, None], bn1)
    for w, b, bn in dilated:
        z = bn_relu(F.conv2d(z, w, b, padding=dilation, dilation=dilation), bn)
    return torch.einsum("oh,bhyx->boyx", w2, z) + b2[None, :, None, None]


def naive_bam(x: Tensor, channel: Tensor, spatial: Tensor, combine: str = "sum") -> tuple[Tensor, Tensor]:
    """M = sigmoid(M_c + M_s) for "sum", sigmoid(M_c M_s) for "product", (B, C, H, W); y = x + x M. Returns
    (M, y)."""
    c = channel[:, :, None, None]
    gate = 1 / (1 + torch.exp(-(c + spatial if combine == "sum" else c * spatial)))
    return gate, x + x * gate


def small(
    size: tuple[int, int, int, int] = (3, 6, 11, 10), reduction: int = 2, multiply: bool = False
) -> tuple[BAM, Tensor]:
    torch.manual_seed(1)
    block = BAM(size[1], reduction, multiply=multiply)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(size) + torch.randn(*size[:2], 1, 1)
    return block.double().eval(), x.double().requires_grad_()


def statistics(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> BN:
    return norm.weight, norm.bias, norm.running_mean, norm.running_var


@pytest.mark.parametrize("multiply", [False, True])
def test_equals_naive_reference(measured: Measured, multiply: bool) -> None:
    block, x = small(multiply=multiply)
    first, norm, _, last = block.channel_branch
    channel = bam_channel(x, first.weight, first.bias, statistics(norm), last.weight, last.bias)
    narrow, norm, _, *dilated, score = block.spatial_branch
    spatial = bam_spatial(
        x,
        narrow.weight[:, :, 0, 0],
        narrow.bias,
        statistics(norm),
        [(convolution.weight, convolution.bias, statistics(bn)) for convolution, bn, _ in dilated],
        score.weight[:, :, 0, 0],
        score.bias,
    )
    weights, y = naive_bam(x, channel, spatial, "product" if multiply else "sum")
    measured.close(block.attention(x), weights)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


@pytest.mark.parametrize("training", [False, True])
def test_multiplied_equals_pytorchcv(measured: Measured, training: bool) -> None:
    block, x = small(size=(4, 32, 14, 10), reduction=16, multiply=True)
    public = BamBlock(32).train(training)
    tensors = dict(zip(public.state_dict(), block.state_dict(keep_vars=True).values(), strict=True))
    expected = torch.func.functional_call(public, {key: t.clone() for key, t in tensors.items()}, (x,))
    y = block.train(training)(x)
    measured.close(y, expected)
    measured.gradients(y, expected, of=(x, *block.parameters()))


def test_added_scores_shift_every_channel_alike(measured: Measured) -> None:
    block, x = small()
    scores = block.attention(x).logit()
    centred = scores - scores.mean(dim=1, keepdim=True)
    measured.close(centred, centred[..., :1, :1].expand_as(centred))
    assert centred.std() > 0.1


def test_multiplied_scores_have_rank_one(measured: Measured) -> None:
    block, x = small(multiply=True)
    first, second = torch.linalg.svdvals(block.attention(x).logit().flatten(2))[:, :2].unbind(dim=1)
    measured.value("second / first singular value", (second / first).max().item(), below=1e-12)


def test_two_refusals_multiplied_become_consent(measured: Measured) -> None:
    added, x = small()
    multiplied, _ = small(multiply=True)
    channel = added.channel_branch(x.mean(dim=(2, 3)))[:, :, None, None]
    refused = (channel < 0) & (added.spatial_branch(x) < 0)
    assert refused.any()
    measured.value("largest weight, added", added.attention(x)[refused].max().item(), below=0.5)
    smallest = multiplied.attention(x)[refused].min().item()
    measured.value("smallest weight, multiplied", smallest, above=0.5)


def test_position_score_sees_25_positions_of_17_by_17(measured: Measured) -> None:
    block, x = small(size=(1, 6, 23, 21))
    for layer in block.spatial_branch.modules():
        if isinstance(layer, nn.BatchNorm2d):  # keep each ReLU open: no position hides behind it
            nn.init.constant_(layer.weight, 0.1)
            nn.init.constant_(layer.bias, 9)
    gradient = torch.autograd.grad(block.spatial_branch(x)[0, 0, 11, 10], x)[0][0]
    measured.count(gradient[0].count_nonzero().item(), 25)
    assert gradient[:, 3:20:4, 2:19:4].all()


def test_moved_pixels_leave_the_channel_scores(measured: Measured) -> None:
    block, x = small()
    nn.init.zeros_(block.spatial_branch[-1].weight)
    moved = x.flatten(2)[..., torch.randperm(110)].view_as(x)
    measured.close(block.attention(moved), block.attention(x))


def test_output_is_one_to_two_times_the_input(measured: Measured) -> None:
    block, x = small()
    ratio = block(x) / x
    measured.value("output / input", ratio.min().item(), above=1)
    measured.value("output / input", ratio.max().item(), below=2)


def bam_resnet50() -> nn.Sequential:
    """ResNet-50 with three blocks, behind its first, second and third stage."""
    layers, place = list(resnet50()), 3
    for width, repeats in STAGES[:3]:
        place += repeats
        layers.insert(place, BAM(4 * width).to("meta"))
        place += 1
    return nn.Sequential(*layers).eval()


def test_resnet50_parameters(measured: Measured) -> None:
    measured.count(parameters(bam_resnet50()), 25_915_099)


def test_resnet50_multiply_adds(measured: Measured) -> None:
    measured.count(macs(bam_resnet50()) - macs(resnet50()), 82_147_072)


def test_refuses_a_dilation_that_is_no_integer() -> None:
    with pytest.raises(TypeError, match="integer"):
        BAM(64, dilation=4.0)


def test_training_needs_two_samples() -> None:
    block, x = small(size=(1, 6, 5, 4))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        block.train()(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels 0"),
        ((64, 0), "reduction 0"),
        ((64, 16, 0), "dilation 0 must be at least 1"),
        ((65, 16), "channels 65 must be divisible by reduction 16"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BAM(*arguments)
