"""Proofs of SRM."""

import re

import pytest
import torch
from torch import Tensor, nn

from snippets.attention_domain.channel.srm import SRMLayer, example
from tests.measure import Measured
from tests.resnet import parameters, resnet50


def style_pooling(x: Tensor, eps: float = 1e-5) -> Tensor:
    """t = [mu, s] (B, C, 2): mean over H W; s = sqrt(unbiased variance (divisor HW - 1) + eps)."""
    n = x.shape[2] * x.shape[3]
    flat = x.flatten(2)
    mu = flat.sum(dim=2) / n
    var = ((flat - mu[:, :, None]) ** 2).sum(dim=2) / (n - 1)
    return torch.stack([mu, torch.sqrt(var + eps)], dim=2)


def naive_srm(
    x: Tensor,
    w_cfc: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """z_c = w_c1 mu_c + w_c2 s_c (w_cfc (C, 2), no bias), BatchNorm (gamma, beta, mean, var: (C,)), sigmoid,
    x * gate. mean = var = None: training statistics, i.e. mean and biased variance over the B values of a
    channel."""
    t = style_pooling(x)
    z = t[:, :, 0] * w_cfc[:, 0] + t[:, :, 1] * w_cfc[:, 1]
    if mean is None or var is None:
        mean = z.sum(dim=0) / z.shape[0]
        var = ((z - mean) ** 2).sum(dim=0) / z.shape[0]
    gate = 1 / (1 + torch.exp(-(gamma * (z - mean) / torch.sqrt(var + eps) + beta)))
    return gate, x * gate[:, :, None, None]


def small(batch: int = 4, channels: int = 6) -> tuple[SRMLayer, Tensor]:
    torch.manual_seed(1)
    layer = SRMLayer(channels)
    for tensor in (*layer.parameters(), layer.norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(layer.norm.running_var, 0.5, 2)
    contrast, mean = torch.rand(batch, channels, 1, 1) + 0.5, torch.randn(batch, channels, 1, 1)
    x = (contrast * torch.randn(batch, channels, 5, 4) + mean).double()
    return layer.double().eval(), x.requires_grad_()


@pytest.mark.parametrize("training", [False, True])
def test_equals_naive_reference(measured: Measured, training: bool) -> None:
    layer, x = small()
    norm = layer.norm
    statistics = () if training else (norm.running_mean, norm.running_var)
    gates, y = naive_srm(x, layer.cfc, norm.weight, norm.bias, *statistics)
    layer.train(training)
    measured.close(layer.attention(x)[:, :, 0, 0], gates)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x, *layer.parameters()))


@pytest.mark.parametrize("training", [False, True])
def test_equals_a_grouped_convolution(measured: Measured, training: bool) -> None:
    layer, x = small()
    grouped = nn.Conv1d(6, 6, kernel_size=2, groups=6, bias=False).double()
    grouped.weight.data.copy_(layer.cfc[:, None])
    style = torch.stack([x.mean((2, 3)), (x.var((2, 3)) + 1e-5).sqrt()], dim=2)
    scores = layer.norm.train(training)(grouped(style))
    measured.close(layer.attention(x), torch.sigmoid(scores)[..., None])


def test_gate_depends_on_mean_and_deviation_alone(measured: Measured) -> None:
    layer, x = small()
    other = torch.rand_like(x)
    other = (other - other.mean((2, 3), keepdim=True)) / other.std((2, 3), keepdim=True)
    other = other * x.std((2, 3), keepdim=True) + x.mean((2, 3), keepdim=True)
    measured.close(layer.attention(other), layer.attention(x))


def test_contrast_alone_moves_the_gate(measured: Measured) -> None:
    layer, (x,) = example()
    mean = x.mean((2, 3), keepdim=True)
    stronger = mean + 2 * (x - mean)
    change = (layer.attention(stronger) - layer.attention(x)).abs().max().item()
    measured.value("largest change of a gate", change, above=0.2)


def test_gate_sees_its_own_channel_alone(measured: Measured) -> None:
    layer, (x,) = example()
    jacobian = torch.autograd.functional.jacobian(lambda v: layer.attention(v)[0].flatten(), x[:1])
    touched = jacobian.abs().sum((-1, -2))[:, 0]
    assert torch.equal(touched != 0, torch.eye(64, dtype=torch.bool))
    measured.count(touched.count_nonzero().item(), 64)


@pytest.mark.parametrize("training", [False, True])
def test_new_layer_halves_its_input(measured: Measured, training: bool) -> None:
    _, x = small()
    measured.close(SRMLayer(6).double().train(training)(x), x / 2, tolerance=0)


def test_first_gradient_is_multiplied_by_316(measured: Measured) -> None:
    _, x = small()
    new = SRMLayer(6).double()
    new(x).square().sum().backward()
    assert not new.norm.weight.grad.any()
    assert new.norm.bias.grad.all()
    weights = torch.zeros(6, 2, dtype=torch.float64, requires_grad=True)
    scores = torch.einsum("bcs,cs->bc", style_pooling(x), weights)
    plain = torch.sigmoid(scores - scores.mean(0))[:, :, None, None] * x
    ratio = new.cfc.grad / torch.autograd.grad(plain.square().sum(), weights)[0]
    measured.value("gradient / gradient without the division", ratio.mean().item(), above=316, below=317)
    assert torch.allclose(ratio, ratio.mean())


def test_two_samples_in_training_get_two_gates(measured: Measured) -> None:
    _, x = small(batch=2)
    layer = SRMLayer(6).double()
    nn.init.normal_(layer.cfc, std=1e3)
    gates = layer.attention(x)[..., 0, 0].sort(dim=0).values
    expected = torch.sigmoid(torch.tensor([[-1.0], [1.0]], dtype=torch.float64)).expand(2, 6)
    measured.close(gates, expected, tolerance=1e-8)


def test_length_of_the_weights_is_lost_in_training(measured: Measured) -> None:
    layer, x = small()
    layer.train().cfc.data *= 1e3
    gates = layer.attention(x)
    assert ((gates > 0.001) & (gates < 0.999)).all()
    layer.cfc.data *= 7
    measured.close(layer.attention(x), gates, tolerance=1e-8)


def test_other_samples_move_the_gates_in_training_only(measured: Measured) -> None:
    layer, x = small()
    other = torch.cat([x[:1], x[1:].flip(3) * 3])
    measured.close(layer.attention(other)[0], layer.attention(x)[0])
    layer.train()
    change = (layer.attention(other) - layer.attention(x))[0].abs().mean().item()
    measured.value("in training: mean |change of a gate|", change, above=0.05)


def test_resnet50_parameters(measured: Measured) -> None:
    measured.count(parameters(resnet50(SRMLayer)), 25_617_448)


def test_one_position_has_no_contrast() -> None:
    layer, x = small()
    assert layer(x[..., :1, :1]).isfinite().all()


def test_reset_makes_the_layer_new() -> None:
    layer, _ = small()
    for part in (layer.norm, layer):
        part.reset_parameters()
    assert not layer.cfc.any()
    assert torch.equal(layer.norm.running_var, torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_deviation_of_large_maps_in_half_precision(dtype: torch.dtype) -> None:
    """Squares of float16 overflow from 256 on, their sum over 56 x 56 positions long before."""
    torch.manual_seed(1)
    x = (100 * torch.randn(2, 6, 56, 56) + torch.randn(2, 6, 1, 1)).to(dtype)
    mean, deviation = SRMLayer(6).to(dtype).style(x).unbind(dim=2)
    torch.testing.assert_close(mean, x.float().mean((2, 3)))
    torch.testing.assert_close(deviation, x.float().std((2, 3)))


def test_deviation_of_a_map_far_from_zero() -> None:
    """A mean of squares minus the square of the mean would leave nothing of it."""
    torch.manual_seed(1)
    x = 0.1 * torch.randn(2, 6, 56, 56) + 1000
    torch.testing.assert_close(
        SRMLayer(6).style(x)[:, :, 1].double(), x.double().std((2, 3)), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_mixed_precision_keeps_the_type_of_the_map(dtype: torch.dtype) -> None:
    layer, (x,) = example()
    with torch.autocast("cpu", dtype):
        gates, y = layer.attention(x.to(dtype)), layer(x.to(dtype))
    assert gates.dtype == y.dtype == dtype
    assert (gates.float() - layer.attention(x.to(dtype).float())).abs().max() < torch.finfo(dtype).eps


def test_normalisation_kept_in_float32_tells_near_scores_apart() -> None:
    """Two samples whose scores differ by less than a rounding of float16 get the gates of their order."""
    x = torch.randn(1, 6, 5, 4).half() + 30
    x = torch.cat([x, x])
    x[1, :, 0, 0] += 0.25
    layer = SRMLayer(6)
    nn.init.ones_(layer.cfc)
    expected = SRMLayer(6).double()
    expected.load_state_dict(layer.state_dict())
    layer.half().norm.float()
    torch.testing.assert_close(layer.attention(x), expected.attention(x.double()).half(), rtol=0, atol=0.02)


@pytest.mark.parametrize("shape", [(2, 1, 5, 4), (2, 5, 4, 6), (2, 12, 5, 4), (6, 5, 4)], ids=str)
def test_refuses_maps_of_another_shape(shape: tuple[int, ...]) -> None:
    """The weights of all channels would spread over a single one."""
    message = re.escape(f"x {shape} must be (B, C, H, W) with C = 6")
    with pytest.raises(ValueError, match=message):
        SRMLayer(6)(torch.randn(shape))


def test_refuses_what_cannot_work() -> None:
    with pytest.raises(ValueError, match="channels 0"):
        SRMLayer(0)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        SRMLayer(6).train()(torch.ones(1, 6, 5, 4))
