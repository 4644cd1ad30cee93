"""Proofs of the temporal adaptive module."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.attention_domain.temporal.temporal_adaptive import TAM, example
from tests.measure import Measured
from tests.resnet import conv_bn, parameters, resnet50

BN = tuple[Tensor, Tensor, Tensor, Tensor]
"""gamma, beta, running mean, running var, one value per feature"""


def bn_relu(x: Tensor, bn: BN, eps: float = 1e-5) -> Tensor:
    """ReLU of BatchNorm in eval mode over the last dim."""
    gamma, beta, mean, var = bn
    y = gamma * (x - mean) / torch.sqrt(var + eps) + beta
    return y * (y > 0)


def tam_kernel(x: Tensor, w1: Tensor, bn: BN, w2: Tensor) -> Tensor:
    """Global branch Theta (N, C, K) = softmax_k(W2 ReLU(BN(W1 g))), per channel, g (T,) the spatial mean of
    x (N, C, T, H, W); w1 (alpha T, T), bn over alpha T, w2 (K, alpha T), no biases."""
    g = x.sum(dim=(3, 4)) / (x.shape[3] * x.shape[4])
    z = torch.einsum("ka,nca->nck", w2, bn_relu(torch.einsum("at,nct->nca", w1, g), bn))
    e = torch.exp(z - z.amax(dim=2, keepdim=True))
    return e / e.sum(dim=2, keepdim=True)


def tam_gate(x: Tensor, w1: Tensor, bn: BN, w2: Tensor) -> Tensor:
    """Local branch L (N, C, T): conv1d w1 (C/beta, C, k), zero padding k // 2, BN, ReLU, 1x1 w2 (C, C/beta),
    sigmoid; no biases."""
    g = x.sum(dim=(3, 4)) / (x.shape[3] * x.shape[4])
    frames, k = g.shape[2], w1.shape[2]
    gates = []
    for t in range(frames):
        z = g.new_zeros(g.shape[0], w1.shape[0])
        for o in range(k):
            if 0 <= t + o - k // 2 < frames:
                z = z + torch.einsum("dc,nc->nd", w1[:, :, o], g[:, :, t + o - k // 2])
        logits = torch.einsum("cd,nd->nc", w2, bn_relu(z, bn))
        gates.append(1 / (1 + torch.exp(-logits)))
    return torch.stack(gates, dim=2)


def naive_temporal_adaptive(x: Tensor, kernel: Tensor, gate: Tensor) -> Tensor:
    """Y_t = sum_k Theta_k (L X)_{t + k - K//2}, zeros outside: gate first, then the depth-wise temporal
    filter."""
    frames, k = x.shape[2], kernel.shape[2]
    gated = x * gate[:, :, :, None, None]
    out = []
    for t in range(frames):
        acc = torch.zeros_like(x[:, :, 0])
        for o in range(k):
            if 0 <= t + o - k // 2 < frames:
                acc = acc + kernel[:, :, o, None, None] * gated[:, :, t + o - k // 2]
        out.append(acc)
    return torch.stack(out, dim=2)


def small(frames: int = 6, kernel_size: int = 3) -> tuple[TAM, Tensor]:
    torch.manual_seed(1)
    block = TAM(8, frames, kernel_size).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    for norm in (block.local_branch[1], block.global_branch[1]):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(2, 8, frames, 4, 3, dtype=torch.float64)
    return block, (x + torch.randn(2, 8, frames, 1, 1, dtype=torch.float64)).requires_grad_()


def tensors(branch: nn.Sequential) -> tuple[Tensor, BN, Tensor]:
    first, norm, _, last, _ = branch
    return first.weight, (norm.weight, norm.bias, norm.running_mean, norm.running_var), last.weight


def settle(branch: nn.Sequential, *logits: float) -> None:
    """Make the logits of `branch` constant: every hidden unit is one, the weights of a logit sum to it."""
    _, norm, _, last, _ = branch
    nn.init.zeros_(norm.weight)
    nn.init.ones_(norm.bias)
    hidden = last.weight.shape[1]
    for row, logit in zip(last.weight, logits, strict=True):
        nn.init.constant_(row, logit / hidden)


@pytest.mark.parametrize(("frames", "kernel_size"), [(6, 3), (5, 5), (2, 5), (1, 3), (4, 1)])
def test_equals_naive_reference(measured: Measured, frames: int, kernel_size: int) -> None:
    block, x = small(frames, kernel_size)
    w1, bn, w2 = tensors(block.local_branch)
    gate = tam_gate(x, w1, bn, w2[:, :, 0])
    kernel = tam_kernel(x, *tensors(block.global_branch))
    y = naive_temporal_adaptive(x, kernel, gate)
    measured.close(block.importance(x), gate)
    measured.close(block.kernel(x), kernel)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_matrix_equals_gates_and_a_convolution_of_torch(measured: Measured, kernel_size: int) -> None:
    block, x = small(kernel_size=kernel_size)
    gated = (block.importance(x)[..., None, None] * x).flatten(0, 1)[None]  # (1, B C, T, H, W)
    kernels = block.kernel(x).flatten(0, 1)[:, None, :, None, None]  # (B C, 1, K, 1, 1)
    y = F.conv3d(gated, kernels, padding=(kernel_size // 2, 0, 0), groups=16).view_as(x)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


def test_kernels_sum_to_one_and_gates_do_not(measured: Measured) -> None:
    block, x = small()
    kernels, gates = block.kernel(x), block.importance(x)
    distance = (kernels.sum(dim=-1) - 1).abs().max().item()
    measured.value("max |Σ Θ − 1|", distance, below=1e-12)
    measured.value("Σ L", gates.sum(dim=-1).max().item(), above=3)
    assert (kernels > 0).all()
    assert ((gates > 0) & (gates < 1)).all()


def test_gates_see_three_frames_and_kernels_the_whole_clip(measured: Measured) -> None:
    block, x = small()
    reach = [
        torch.autograd.functional.jacobian(run, x[:1]).abs().sum((1, 4, 6, 7))[0, :, 0]
        for run in (block.importance, block.kernel)
    ]  # (T, T) and (K, T): what each gate and each weight of a kernel sees of each frame
    measured.count(int(reach[0].count_nonzero()), 3 * 6 - 2)
    measured.count(int(reach[1].count_nonzero()), 3 * 6)


def test_kernel_of_a_channel_depends_on_that_channel_alone(measured: Measured) -> None:
    block, x = small()
    seen = torch.autograd.functional.jacobian(block.kernel, x[:1]).abs().sum((2, 5, 6, 7))[0, :, 0]  # (C, C)
    measured.count(int(seen.count_nonzero()), 8)
    gates = torch.autograd.functional.jacobian(block.importance, x[:1]).abs().sum((2, 5, 6, 7))[0, :, 0]
    measured.count(int(gates.count_nonzero()), 8 * 8)


def test_open_gates_and_a_centred_kernel_give_the_identity(measured: Measured) -> None:
    block, x = small()
    settle(block.local_branch, *[100.0] * 8)
    settle(block.global_branch, 0.0, 800.0, 0.0)
    measured.close(block(x), x)


def test_last_frames_lose_what_lies_outside_the_clip(measured: Measured) -> None:
    block, _ = small()
    still = torch.randn(2, 8, 1, 4, 3, dtype=torch.float64).expand(-1, -1, 6, -1, -1)
    settle(block.local_branch, *[100.0] * 8)
    kernels, share = block.kernel(still)[:, :, None], block(still) / still  # (B, C, 1, K), (B, C, T, H, W)
    kept = torch.ones(2, 8, 6, dtype=torch.float64)
    kept[..., 0], kept[..., -1] = 1 - kernels[..., 0, 0], 1 - kernels[..., 0, -1]
    measured.close(share, kept[..., None, None].expand_as(share))


def test_weights_depend_on_frame_means_alone(measured: Measured) -> None:
    block, x = small()
    shuffled = x.flatten(3)[..., torch.randperm(12)].view_as(x)
    measured.close(block.attention(shuffled), block.attention(x))


def test_order_of_frames_changes_the_kernel(measured: Measured) -> None:
    block, x = small()
    change = (block.kernel(x.flip(2)) - block.kernel(x)).abs().max().item()
    measured.value("max |Θ(reversed) − Θ|", change, above=0.1)


def test_parameters_for_64_channels_and_8_frames(measured: Measured) -> None:
    measured.count(parameters(TAM(64, frames=8)), 4_336)


def test_parameters_added_to_resnet50(measured: Measured) -> None:
    def with_tam(width: int, stride: int) -> nn.Module:
        return nn.Sequential(TAM(width, frames=8), conv_bn(width, width, 3, stride), nn.ReLU())

    measured.count(parameters(resnet50(middle=with_tam)) - parameters(resnet50()), 1_262_688)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8), "channels 0"),
        ((8, 0), "frames 0"),
        ((8, 8, 4), "kernel_size 4 must be odd"),
        ((6, 8), "channels 6 must be divisible by beta 4"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TAM(*arguments)


def test_refuses_a_clip_of_another_length() -> None:
    block, (x,) = example()
    for other in (x[:, :, :5], x[:, :, 0], x.transpose(1, 2).flatten(0, 1)):
        with pytest.raises(ValueError, match=r"must be \(B, C, T, H, W\) with T = 6"):
            block(other)


def test_an_empty_batch_gives_an_empty_result() -> None:
    block, (x,) = example()
    assert block(x[:0]).shape == (0, 16, 6, 7, 5)
    assert block.kernel(x[:0]).shape == (0, 16, 3)
