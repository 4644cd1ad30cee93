"""Proofs of the global context block of GCNet."""

from typing import Any

import pytest
import torch
from mmcv.cnn import ContextBlock
from torch import Tensor, nn

from snippets.attention_domain.channel.senet import SEBlock
from snippets.attention_domain.spatial.global_context import MODES, GlobalContext
from snippets.attention_domain.spatial.non_local import NonLocalBlock
from tests.measure import Measured
from tests.memory import peak_bytes
from tests.resnet import macs, parameters, resnet50

RES3_TO_RES5 = (1, 2, 3)

# w_1 (p, C), b_1 (p,), ln_weight (p,), ln_bias (p,), w_2 (C, p), b_2 (C,)
Transform = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def context_weights(x: Tensor, w_k: Tensor, b_k: Tensor) -> Tensor:
    """a_j = exp(w_k . x_j + b_k) / sum_j' exp(w_k . x_j' + b_k); w_k (C,), b_k () or (1,); (B, N)."""
    s = torch.einsum("c,bcn->bn", w_k, x.flatten(2)) + b_k
    e = torch.exp(s - s.max(dim=1, keepdim=True).values.detach())
    return e / e.sum(dim=1, keepdim=True)


def context_vector(x: Tensor, a: Tensor | None) -> Tensor:
    """c = sum_j a_j x_j with a (B, N); a = None is 'avg' pooling, the plain mean; returns (B, C)."""
    if a is None:
        return x.flatten(2).sum(dim=2) / (x.shape[2] * x.shape[3])
    return torch.einsum("bn,bcn->bc", a, x.flatten(2))


def transform(
    c: Tensor,
    w_1: Tensor,
    b_1: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    w_2: Tensor,
    b_2: Tensor,
    eps: float = 1e-5,
) -> Tensor:
    """t = W_2 ReLU(LN(W_1 c + b_1)) + b_2: c (B, C); LayerNorm over the p = C / r values, biased variance."""
    u = torch.einsum("pc,bc->bp", w_1, c) + b_1
    mean = u.sum(dim=1, keepdim=True) / u.shape[1]
    var = ((u - mean) ** 2).sum(dim=1, keepdim=True) / u.shape[1]
    u = (u - mean) / torch.sqrt(var + eps) * ln_weight + ln_bias
    return torch.einsum("cp,bp->bc", w_2, torch.relu(u)) + b_2


def global_context(
    x: Tensor,
    w_k: Tensor | None,
    b_k: Tensor | None,
    add: Transform | None = None,
    mul: Transform | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """y = x * sigmoid(t_mul) + t_add, each mode optional; t = transform of the same context, broadcast.

    add, mul: (w_1, b_1, ln_weight, ln_bias, w_2, b_2) or None; w_k = None selects 'avg' pooling.
    """
    a = None if w_k is None else context_weights(x, w_k, b_k)
    c = context_vector(x, a)
    y = x
    if mul is not None:
        gate = 1 / (1 + torch.exp(-transform(c, *mul, eps=eps)))
        y = y * gate[:, :, None, None]
    if add is not None:
        y = y + transform(c, *add, eps=eps)[:, :, None, None]
    return y


def small(
    size: tuple[int, int, int, int] = (2, 12, 7, 9), reduction: int = 3, **options: Any
) -> tuple[GlobalContext, Tensor]:
    torch.manual_seed(1)
    block = GlobalContext(size[1], reduction, **options).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block, torch.randn(size, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("mode", MODES)
def test_equals_naive_reference(measured: Measured, mode: str) -> None:
    block, x = small(mode=mode)
    score, no_bias = block.score.weight.flatten(), x.new_zeros(())
    y = global_context(x, score, no_bias, **{mode: tuple(block.transform.parameters())})
    measured.close(block.attention(x)[:, 0], context_weights(x, score, no_bias))
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


@pytest.mark.parametrize("mode", MODES)
def test_equals_mmcv(measured: Measured, mode: str) -> None:
    block, x = small(mode=mode)
    public = ContextBlock(12, ratio=1 / 3, fusion_types=(f"channel_{mode}",))
    tensors = {"conv_mask.weight": block.score.weight, "conv_mask.bias": torch.randn(1).double()}
    for name, tensor in block.transform.named_parameters():
        as_conv = tensor[..., None, None] if tensor.dim() == 2 or name.startswith("1.") else tensor
        tensors[f"channel_{mode}_conv.{name}"] = as_conv
    expected = torch.func.functional_call(public, tensors, (x,), strict=True)
    measured.close(block(x), expected)
    measured.gradients(block(x), expected, of=(x, *block.parameters()))


def test_equals_a_non_local_block_with_constant_queries(measured: Measured) -> None:
    _, x = small()
    non_local = NonLocalBlock(12).double().eval()
    for parameter in non_local.parameters():
        nn.init.normal_(parameter, std=0.5)
    nn.init.zeros_(non_local.theta.weight)

    theta, phi, g = non_local.theta, non_local.phi, non_local.g
    factor = non_local.norm.weight / (1 + non_local.norm.eps) ** 0.5
    W_z = factor[:, None] * non_local.W_z.weight[:, :, 0, 0]
    block = GlobalContext(12, 3).double()
    block.score.weight.data = torch.einsum("p,pcij->cij", theta.bias, phi.weight)[None]
    block.transform = nn.Linear(12, 12).double()
    block.transform.weight.data = W_z @ g.weight[:, :, 0, 0]
    block.transform.bias.data = W_z @ g.bias + non_local.norm.bias

    measured.close(block.attention(x).expand(-1, 63, -1), non_local.attention(x))
    measured.close(block(x), non_local(x))
    measured.gradients(block(x), non_local(x), of=(x,))


def test_linear_transform_gives_the_simplified_non_local_block(measured: Measured) -> None:
    block, x = small()
    block.transform = nn.Linear(12, 12, bias=False).double()
    values = torch.einsum("dc,bcn->bdn", block.transform.weight, x.flatten(2))
    weights = block.attention(x).expand(-1, 63, -1)  # the same row for every query
    simplified = x + torch.einsum("bij,bdj->bdi", weights, values).view_as(x)
    measured.close(block(x), simplified)
    measured.gradients(block(x), simplified, of=(x, *block.parameters()))


def test_without_score_and_normalisation_mul_is_senet(measured: Measured) -> None:
    block, x = small(mode="mul")
    nn.init.zeros_(block.score.weight)
    block.transform[1] = nn.Identity()
    senet = SEBlock(12, reduction=3).double()
    for ours, theirs in (
        (block.transform[0], senet.excitation[0]),
        (block.transform[3], senet.excitation[2]),
    ):
        theirs.load_state_dict(ours.state_dict())
    measured.close(block(x), senet(x))
    measured.gradients(block(x), senet(x), of=(x,))


def test_all_positions_get_the_same_added(measured: Measured) -> None:
    block, x = small()
    added = block(x) - x
    measured.close(added, added[..., :1, :1].expand_as(added))
    assert added.abs().max() > 0.1
    assert (block(x)[..., 0, 0] - block(x)[..., 0, 1]).abs().max() > 0.1


def test_starts_as_the_identity_or_by_half(measured: Measured) -> None:
    x = torch.randn(2, 64, 7, 9)
    measured.close(GlobalContext(64)(x), x, tolerance=0)
    measured.close(GlobalContext(64, mode="mul")(x), x / 2, tolerance=0)


def test_weights_sum_to_one(measured: Measured) -> None:
    block, x = small()
    weights = block.attention(x)
    assert (weights > 0).all()
    measured.close(weights.sum(dim=-1), x.new_ones(2, 1))


@pytest.mark.parametrize("mode", MODES)
def test_permuted_positions_permute_the_output(measured: Measured, mode: str) -> None:
    block, x = small(mode=mode)
    order = torch.randperm(63)
    permuted = x.flatten(2)[..., order].view_as(x)
    measured.close(block.context(permuted), block.context(x))
    measured.close(block(permuted), block(x).flatten(2)[..., order].view_as(x))


def test_one_block_in_resnet50(measured: Measured) -> None:
    network = parameters(resnet50())
    measured.count(network + parameters(NonLocalBlock(1024)), 27_657_768)
    measured.count(network + 1024 + 1024**2, 26_606_632)
    measured.count(network + parameters(GlobalContext(1024)), 25_690_344)


def test_resnet50_parameters(measured: Measured) -> None:
    measured.count(parameters(resnet50(GlobalContext, stages=RES3_TO_RES5)), 28_078_760)


def test_resnet50_multiply_adds(measured: Measured) -> None:
    added = macs(resnet50(GlobalContext, stages=RES3_TO_RES5)) - macs(resnet50())
    measured.count(added, 8_712_192)


@pytest.mark.parametrize("mode", MODES)
def test_memory_is_that_of_input_and_output(measured: Measured, mode: str) -> None:
    block, x = GlobalContext(64, mode=mode), torch.randn(2, 64, 24, 32)
    with torch.no_grad():
        stored = peak_bytes(block, x) / (4 * x.numel())
    measured.value("bytes / bytes of the map", stored, below=2.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels 0"),
        ((64, 0), "reduction 0"),
        ((65, 16), "channels 65 must be divisible by reduction 16"),
        ((16, 16), "channels // reduction 1 must be at least 2"),
        ((64, 16, "both"), "mode 'both' must be one of add, mul"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GlobalContext(*arguments)


def test_starts_as_the_released_code() -> None:
    torch.manual_seed(0)
    block = GlobalContext(4096)
    assert abs(block.score.weight.std().item() * (4096 / 2) ** 0.5 - 1) < 0.05
    assert not any(parameter.any() for parameter in block.transform[-1].parameters())


def test_refuses_a_map_without_a_batch() -> None:
    with pytest.raises(ValueError, match=r"x \(64, 10, 12\) must be \(B, C, H, W\)"):
        GlobalContext(64).attention(torch.randn(64, 10, 12))
