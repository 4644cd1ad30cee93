"""Proofs of SENet."""

import pytest
import torch
from pytorchcv.models.common.att import SEBlock as PublicSEBlock
from torch import Tensor, nn

from snippets.attention_domain.channel.senet import SEBlock, example
from tests.measure import Measured
from tests.resnet import macs, parameters, resnet50


def naive_se(
    x: Tensor, W1: Tensor, b1: Tensor | None, W2: Tensor, b2: Tensor | None
) -> tuple[Tensor, Tensor]:
    """x (B,C,H,W), W1 (C/r,C), b1 (C/r,), W2 (C,C/r), b2 (C,). Returns gates (B,C) and y (B,C,H,W)."""
    B, C, H, W = x.shape
    gates, ys = [], []
    for b in range(B):
        z = [
            sum((x[b, c, i, j] for i in range(H) for j in range(W)), x.new_zeros(())) / (H * W)
            for c in range(C)
        ]
        hidden = []
        for k in range(W1.shape[0]):
            u = sum((W1[k, c] * z[c] for c in range(C)), x.new_zeros(()))
            u = u if b1 is None else u + b1[k]
            hidden.append(torch.where(u > 0, u, torch.zeros_like(u)))
        s = []
        for c in range(C):
            v = sum((W2[c, k] * hidden[k] for k in range(len(hidden))), x.new_zeros(()))
            v = v if b2 is None else v + b2[c]
            s.append(1 / (1 + torch.exp(-v)))
        gates.append(torch.stack(s))
        ys.append(torch.stack([s[c] * x[b, c] for c in range(C)]))
    return torch.stack(gates), torch.stack(ys)


def layers(block: SEBlock) -> tuple[nn.Linear, nn.Linear]:
    first, second = (layer for layer in block.excitation if isinstance(layer, nn.Linear))
    return first, second


def small(bias: bool) -> tuple[SEBlock, Tensor]:
    torch.manual_seed(1)
    block = SEBlock(6, reduction=3, bias=bias).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64) + torch.randn(2, 6, 1, 1, dtype=torch.float64)
    return block, x.requires_grad_()


@pytest.mark.parametrize("bias", [True, False])
def test_equals_naive_reference(measured: Measured, bias: bool) -> None:
    block, x = small(bias)
    first, second = layers(block)
    gates, y = naive_se(x, first.weight, first.bias, second.weight, second.bias)
    measured.close(block.attention(x)[:, :, 0, 0], gates)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


def test_equals_pytorchcv(measured: Measured) -> None:
    block, (x,) = example()
    public = PublicSEBlock(64, reduction=16)
    for key, tensor in zip(public.state_dict().values(), block.state_dict().values(), strict=True):
        key.copy_(tensor.view_as(key))
    block, public, x = block.double(), public.double(), x.double().requires_grad_()
    measured.close(block(x), public(x))
    measured.gradients(block(x), public(x), of=(x,))


def test_gate_depends_on_channel_means_alone(measured: Measured) -> None:
    block, (x,) = example()
    block, x = block.double(), x.double()
    shuffled = x.flatten(2)[:, :, torch.randperm(140)].view_as(x)
    measured.close(block.attention(shuffled), block.attention(x))
    other = torch.randn_like(x)
    other += x.mean((2, 3), keepdim=True) - other.mean((2, 3), keepdim=True)
    measured.close(block.attention(other), block.attention(x))


def test_every_channel_reaches_every_gate(measured: Measured) -> None:
    block, (x,) = example()
    jacobian = torch.autograd.functional.jacobian(lambda v: block.attention(v)[0].flatten(), x[:1])
    touched = jacobian.abs().sum((-1, -2))[:, 0].count_nonzero().item()
    measured.count(touched, 64 * 64)


def test_gates_are_not_a_distribution(measured: Measured) -> None:
    block, (x,) = example()
    gates = block.attention(x)[0]
    measured.value("|Σ gates − 1|", (gates.sum() - 1).abs().item(), above=10)
    assert ((gates > 0) & (gates < 1)).all()


def test_resnet50_parameters_with_bias(measured: Measured) -> None:
    measured.count(parameters(resnet50(SEBlock)), 28_088_024)


def test_resnet50_parameters_without_bias(measured: Measured) -> None:
    measured.count(parameters(resnet50(lambda channels: SEBlock(channels, bias=False))), 28_071_976)


@pytest.mark.parametrize(
    ("reduction", "expected"), [(2, 45_676_584), (4, 35_616_808), (8, 30_586_920), (32, 26_814_504)]
)
def test_resnet50_parameters_by_reduction(measured: Measured, reduction: int, expected: int) -> None:
    network = resnet50(lambda channels: SEBlock(channels, reduction, bias=False))
    measured.count(parameters(network), expected)


@pytest.mark.parametrize(("stage", "expected"), [(0, 25_581_608), (1, 25_688_104), (2, 26_343_464)])
def test_resnet50_parameters_by_stage(measured: Measured, stage: int, expected: int) -> None:
    network = resnet50(lambda channels: SEBlock(channels, bias=False), stages=(stage,))
    measured.count(parameters(network), expected)


def test_resnet50_multiply_adds(measured: Measured) -> None:
    added = macs(resnet50(SEBlock)) - macs(resnet50())
    measured.count(added, 2_514_944)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels 0"),
        ((64, 0), "reduction 0"),
        ((65, 16), "channels 65 must be divisible by reduction 16"),
        ((8, 16), "channels 8 must be divisible by reduction 16"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SEBlock(*arguments)
