"""Proofs of EM attention."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from snippets.attention_domain.spatial.em_attention import EMAUnit
from tests.measure import Measured
from tests.memory import peak_bytes
from tests.resnet import conv_bn, parameters

EXCEPTIONS = {
    "test_every_parameter_receives_a_gradient": {
        "em_attention": "the first convolution feeds steps that are not differentiated; it is frozen",
    },
    "test_gradcheck": {
        "em_attention": "the steps of expectation-maximisation are constants in the backward pass",
    },
    "test_second_derivative": {
        "em_attention": "the steps of expectation-maximisation are constants in the backward pass",
    },
}
"""Checks of the contract that it cannot pass, with the reason."""


def naive_em(x: Tensor, mu: Tensor, stages: int = 3, eps: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """E: z_nk = softmax_k(x_n . mu_k); M: mu_k = sum_n z_nk x_n / (eps + sum_n z_nk), unit norm; x~ = mu z^T.

    x (B, C, N); mu (C, K) or (B, C, K), unit columns. Norm step: mu_k / (eps + |mu_k|).
    Returns z (B, N, K) of the last E-step, mu (B, C, K) after the last M-step and the
    reconstruction (B, C, N) from these two. Differentiable (the caller decides on detaching).
    """
    if mu.dim() == 2:
        mu = mu[None].repeat(x.shape[0], 1, 1)
    for _ in range(stages):
        s = torch.einsum("bcn,bck->bnk", x, mu)
        e = torch.exp(s - s.max(dim=2, keepdim=True).values.detach())
        z = e / e.sum(dim=2, keepdim=True)  # over the bases
        mass = z.sum(dim=1)  # (B, K), over the positions
        mu = torch.einsum("bnk,bcn->bck", z, x) / (eps + mass)[:, None, :]
        mu = mu / (eps + mu.pow(2).sum(dim=1, keepdim=True).sqrt())
    return z, mu, torch.einsum("bck,bnk->bcn", mu, z)


def naive_em_attention(
    x: Tensor,
    mu: Tensor,
    w_1: Tensor,
    b_1: Tensor,
    w_2: Tensor,
    bn_weight: Tensor,
    bn_bias: Tensor,
    bn_mean: Tensor,
    bn_var: Tensor,
    bn_eps: float = 1e-5,
    stages: int = 3,
    detach: bool = True,
    eps: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """y = ReLU(x + BN(W_2 ReLU(EM(W_1 x + b_1)))); returns y (B, C, H, W), z (B, N, K), mu (B, C, K).

    mu (C, K) running bases; w_1 (C, C), b_1 (C,); w_2 (C, C) no bias; bn_* (C,) eval BatchNorm.
    detach=True: official semantics, the EM part is a constant in the backward pass (no gradient to w_1, b_1);
    detach=False: full back-propagation through the loop.
    """
    h = torch.einsum("dc,bcn->bdn", w_1, x.flatten(2)) + b_1[None, :, None]
    z, bases, rec = naive_em(h, mu, stages, eps)
    if detach:
        z, bases, rec = z.detach(), bases.detach(), rec.detach()
    rec = torch.relu(rec)
    out = torch.einsum("dc,bcn->bdn", w_2, rec)
    scale = bn_weight / torch.sqrt(bn_var + bn_eps)
    out = (out - bn_mean[None, :, None]) * scale[None, :, None] + bn_bias[None, :, None]
    return torch.relu(out.reshape(x.shape) + x), z, bases


def naive_update(running: Tensor, mu: Tensor, keep: float = 0.9) -> Tensor:
    """running (C, K) <- keep * running + (1 - keep) * mean over the batch of mu (B, C, K)."""
    mean = mu.sum(dim=0) / mu.shape[0]
    return keep * running + (1 - keep) * mean


def small(
    size: tuple[int, int, int, int] = (2, 6, 4, 5), bases: int = 4, **options: Any
) -> tuple[EMAUnit, Tensor]:
    torch.manual_seed(1)
    block = EMAUnit(size[1], bases, **options)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    nn.init.normal_(block.expand[1].running_mean)
    nn.init.uniform_(block.expand[1].running_var, 0.5, 2)
    return block.double().eval(), torch.randn(size, dtype=torch.float64, requires_grad=True)


def naive(block: EMAUnit, x: Tensor, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Output, weights and bases (B, C, K) of the naive reference."""
    convolution, norm = block.expand
    return naive_em_attention(
        x,
        block.bases.T,
        block.project.weight.flatten(1),
        block.project.bias,
        convolution.weight.flatten(1),
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        block.iterations,
        **options,
    )


@pytest.mark.parametrize("iterations", [1, 3, 5])
@pytest.mark.parametrize("size", [(2, 6, 4, 5), (1, 5, 1, 3), (1, 4, 1, 1)], ids=str)
def test_equals_naive_reference(measured: Measured, size: tuple[int, int, int, int], iterations: int) -> None:
    block, x = small(size, iterations=iterations)
    y, z, mu = naive(block, x)
    measured.close(block.attention(x), z)
    measured.close(block.fit(x)[1].mT, mu)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.expand.parameters()))


def test_epsilon_of_the_released_code_hardly_matters(measured: Measured) -> None:
    block, x = small()
    measured.close(block(x), naive(block, x, eps=1e-6)[0], tolerance=1e-4)


def test_weights_sum_to_one_and_bases_have_length_one(measured: Measured) -> None:
    block, x = small((2, 16, 6, 9))
    z, mu = block.fit(x)
    measured.close(z.sum(dim=-1), torch.ones(2, 54, dtype=torch.float64))
    measured.close(mu.norm(dim=-1), torch.ones(2, 4, dtype=torch.float64))
    assert (z.sum(dim=1) - 54 / 4).abs().min() > 0.1  # the sums over positions are not equal


def log_likelihood(features: Tensor, mu: Tensor) -> Tensor:
    """Mean log-likelihood of the directions of features (N, C) given their lengths, up to a constant.

    Mixture of K von Mises-Fisher distributions of equal weight with mean directions mu (K, C); the
    concentration of a position is the length of its feature, so that exp(h . mu_k) is its density.
    """
    return (features @ mu.T).exp().mean(dim=1).log().mean()


def test_log_likelihood_never_falls(measured: Measured) -> None:
    block, x = small((1, 16, 6, 9), bases=5)
    features = block.project(x).flatten(2)[0].mT
    seen = [log_likelihood(features, block.bases)]
    for block.iterations in range(1, 13):
        seen.append(log_likelihood(features, block.fit(x)[1][0]))
    rises = torch.stack(seen).diff()
    measured.value("smallest rise", rises.min().item(), above=0)
    measured.value("in all", rises.sum().item(), above=0.1)


@pytest.mark.parametrize("bases", [1, 3, 7])
def test_map_is_rebuilt_with_rank_k(measured: Measured, bases: int) -> None:
    block, x = small((1, 16, 6, 9), bases=bases)
    z, mu = block.fit(x)
    measured.count(int(torch.linalg.matrix_rank(z @ mu).item()), bases)
    assert torch.linalg.matrix_rank(x[0].flatten(1)) == 16


def test_one_basis_gives_every_position_the_same(measured: Measured) -> None:
    block, x = small((2, 16, 6, 9), bases=1)
    z, mu = block.fit(x)
    measured.close(z, torch.ones_like(z), tolerance=0)
    mean = block.project(x).mean(dim=(2, 3))
    measured.close(mu[:, 0], mean / mean.norm(dim=1, keepdim=True))


def test_long_features_make_it_spherical_k_means(measured: Measured) -> None:
    block, x = small((1, 8, 6, 9), bases=3, iterations=4)
    with torch.no_grad():
        block.project.weight *= 1e5
        block.project.bias *= 1e5
    features, centres = block.project(x).flatten(2)[0].T.detach(), list(block.bases)
    for _ in range(4):
        chosen = [max(range(3), key=lambda k: float(h @ centres[k])) for h in features]
        sums = [sum(h for h, c in zip(features, chosen, strict=True) if c == k) for k in range(3)]
        centres = [total / total.norm() for total in sums]
    z, mu = block.fit(x)
    measured.close(mu[0], torch.stack(centres))
    measured.count(int((z == 1).sum()), 54)


def test_permuted_positions_permute_the_output(measured: Measured) -> None:
    block, x = small((2, 16, 6, 9))
    order = torch.randperm(54)
    permuted = x.flatten(2)[..., order].view_as(x)
    measured.close(block(permuted), block(x).flatten(2)[..., order].view_as(x))
    measured.close(block.fit(permuted)[1], block.fit(x)[1])


def test_no_gradient_passes_the_steps(measured: Measured) -> None:
    """The input learns through the skip alone; differentiated steps would give another gradient."""
    block, x = small()
    block.project.requires_grad_()
    y, (z, mu) = block(x), block.fit(x)
    rebuilt = (z @ mu).mT.view_as(x).detach()
    measured.gradients(y, torch.relu(x + block.expand(torch.relu(rebuilt)).detach()), of=(x,))
    through = torch.autograd.grad(y.sum(), (x, block.project.weight), allow_unused=True)
    assert through[1] is None
    whole = torch.autograd.grad(naive(block, x, detach=False)[0].sum(), (x, block.project.weight))
    share = ((whole[0] - through[0]).norm() / whole[0].norm()).item()
    measured.value("left out of the slope in x, of its length", share, above=0.1)
    measured.value("of the slope in W", whole[1].norm().item(), above=0.1)


def test_training_moves_the_bases(measured: Measured) -> None:
    block, x = small()
    before, mu = block.bases.clone(), block.fit(x)[1]
    block(x)
    block.move_bases()
    measured.close(block.bases, before, tolerance=0)
    block.train()(x)
    block(x)  # once more, as a checkpoint does
    measured.close(block.bases, before, tolerance=0)
    block.move_bases()
    measured.close(block.bases, naive_update(before.T, mu.mT).T)
    assert block.bases.norm(dim=1).max() < 1  # a mean of different directions is shorter
    moved = block.bases.clone()
    block.move_bases()  # without a batch in between
    measured.close(block.bases, moved, tolerance=0)


@pytest.mark.parametrize("batch", ["empty", "nan"])
def test_bases_stay_after_a_batch_of_nothing_or_nan(batch: str) -> None:
    block, x = small()
    before = block.bases.clone()
    block.train()(x[:0] if batch == "empty" else x * math.nan)
    block.move_bases()
    assert torch.equal(block.bases, before)
    block(x)
    block.move_bases()
    assert not torch.equal(block.bases, before)


def test_starts_as_the_released_code(measured: Measured) -> None:
    """The first weights of a map of normal numbers: clearly uneven, unlike with torch's own start."""
    torch.manual_seed(0)
    block, x = EMAUnit(512, iterations=1), torch.randn(2, 512, 14, 14)
    for convolution in (block.project, block.expand[0]):
        deviation = convolution.weight.std().item() * math.sqrt(512 / 2)
        measured.value("std √(C / 2)", deviation, equals=1, within=0.01)
    measured.close(block.bases.norm(dim=1), torch.ones(64), tolerance=1e-6)
    measured.value("entropy / log K", entropy(block.attention(x)), equals=0.79, within=0.01)
    block.project.reset_parameters()
    measured.value("with torch's start", entropy(block.attention(x)), above=0.95)


def entropy(z: Tensor) -> float:
    """Mean entropy of the weights of a position, as a share of the largest possible."""
    return -(z * z.log()).sum(dim=-1).mean().item() / math.log(z.shape[-1])


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_changes_neither_gradients_nor_bases(reentrant: bool) -> None:
    block, x = small()
    start, found = copy.deepcopy(block.train().state_dict()), []
    for run in (block, lambda x: checkpoint(block, x, use_reentrant=reentrant)):
        block.load_state_dict(start)
        x.grad = None
        run(x).square().sum().backward()
        block.move_bases()
        found.append((x.grad, block.bases.clone()))
    for plain, again in zip(*found, strict=True):
        assert torch.equal(plain, again)


def test_forward_mode_agrees_with_backward_mode() -> None:
    block, x = small()
    x, direction = x.detach(), torch.randn_like(x)
    _, slope = torch.func.jvp(block, (x,), (direction,))
    expected = torch.autograd.functional.jvp(block, x, direction)[1]
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_trains_under_autocast(dtype: torch.dtype) -> None:
    block, x = EMAUnit(64, 8).train(), 30 * torch.randn(2, 64, 28, 28)
    before = block.bases.clone()
    with torch.autocast("cpu", dtype):
        y = block(x)
    y.float().mean().backward()
    block.move_bases()
    assert block.bases.dtype == torch.float32
    assert not torch.equal(block.bases, before)
    assert all(p.grad.isfinite().all() for p in block.expand.parameters())


@pytest.mark.parametrize(
    ("channels", "expected", "reported"), [(256, 4_872_725, 4.87), (512, 10_007_573, 10.0)]
)
def test_parameters_of_emanet(measured: Measured, channels: int, expected: int, reported: float) -> None:
    head = emanet(channels)
    measured.count(parameters(head) + head[2].bases.numel(), expected)
    assert float(f"{expected / 1e6:.3g}") == reported


def test_parameters_of_the_released_network(measured: Measured) -> None:
    """The code has a second 3 x 3 convolution, from 512 to 256 channels, before the classifier."""
    with torch.device("meta"):
        unit = EMAUnit(512)
        head = nn.Sequential(conv_bn(2048, 512, 3), unit, conv_bn(512, 256, 3), nn.Conv2d(256, 21, 1))
    measured.count(parameters(head) + unit.bases.numel(), 11_182_357)


@pytest.mark.parametrize(("channels", "expected"), [(256, 21.00), (512, 43.10)])
def test_multiply_adds_of_emanet(measured: Measured, channels: int, expected: float) -> None:
    with FlopCounterMode(display=False) as counter:
        emanet(channels)(torch.empty(1, 2048, 65, 65, device="meta"))
    giga = counter.get_total_flops() / 2e9
    measured.value("G", giga, equals=expected, within=0.005)


def emanet(channels: int) -> nn.Sequential:
    """What EMANet adds to a ResNet for 21 classes, on the meta device."""
    with torch.device("meta"):
        unit = EMAUnit(channels)
        return nn.Sequential(conv_bn(2048, channels, 3), nn.ReLU(), unit, nn.Conv2d(channels, 21, 1)).eval()


def test_memory_is_linear_in_positions(measured: Measured) -> None:
    block = EMAUnit(16).eval()
    large, usual = torch.randn(1, 16, 64, 64), torch.randn(1, 16, 32, 32)
    with torch.no_grad():
        growth = peak_bytes(block, large) / peak_bytes(block, usual)
        measured.value("bytes(64²) / bytes(32²)", growth, above=3.5, below=4.1)
        share = peak_bytes(block, large) / (4 * 4096**2)
    measured.value("bytes(64²) / bytes of 4,096 × 4,096", share, below=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels 0"),
        ((64, 0), "bases 0"),
        ((64, 8, 0), "iterations 0 must be at least 1"),
        ((64, 8, 3, 1.5), r"momentum 1.5 must be in \[0, 1\]"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EMAUnit(*arguments)


def test_refuses_a_map_without_a_batch() -> None:
    with pytest.raises(ValueError, match=r"x \(16, 16, 7\) must be \(B, C, H, W\)"):
        EMAUnit(16).attention(torch.randn(16, 16, 7))
    with pytest.raises(TypeError, match="float"):
        EMAUnit(16, iterations=3.0)
