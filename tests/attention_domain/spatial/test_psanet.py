"""Proofs of point-wise spatial attention."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.attention_domain.spatial.non_local import NonLocalBlock
from snippets.attention_domain.spatial.psanet import PointwiseSpatialAttention
from tests.measure import Measured
from tests.memory import peak_bytes

EXCEPTIONS = {
    "test_sizes_fixed_by_the_constructor_are_checked": {
        "psanet": "a smaller map is meant: it reads the middle of the prediction",
        "psanet:smaller_map": "a smaller map is meant: it reads the middle of the prediction",
    },
}
"""Checks of the contract that it cannot pass, with the reason."""

BN = tuple[Tensor, Tensor, Tensor, Tensor]  # gamma (C,), beta (C,), running mean (C,), running var (C,)


def naive_conv_bn_relu(x: Tensor, w: Tensor, bn: BN, eps: float = 1e-5) -> Tensor:
    """1x1 convolution w (out, in) without bias, BatchNorm in eval mode, ReLU."""
    gamma, beta, mean, var = (p[None, :, None, None] for p in bn)
    y = gamma * (torch.einsum("oc,bchw->bohw", w, x) - mean) / torch.sqrt(var + eps) + beta
    return y * (y > 0)


def cut_overcomplete(over: Tensor, mode: str) -> Tensor:
    """Logits E[b, j, i] (source j, target i) from over (B, (2H-1)(2W-1), H, W): collect M_i[j-i], distribute
    M_j[i-j]."""
    channels, height, width = over.shape[1:]
    assert channels == (2 * height - 1) * (2 * width - 1)
    assert mode in ("collect", "distribute")
    sources = []
    for js in range(height * width):
        jy, jx = js // width, js % width
        targets = []
        for it in range(height * width):
            iy, ix = it // width, it % width
            if mode == "collect":  # the target's own map, read at the offset of the source
                py, px, dy, dx = iy, ix, jy - iy, jx - ix
            else:  # the source's own map, read at the offset of the target
                py, px, dy, dx = jy, jx, iy - jy, ix - jx
            channel = (dy + height - 1) * (2 * width - 1) + (dx + width - 1)
            targets.append(over[:, channel, py, px])
        sources.append(torch.stack(targets, dim=1))
    return torch.stack(sources, dim=1)  # (B, N sources, N targets)


def psa_weights(over: Tensor, mode: str, softmax: bool = True) -> Tensor:
    """A[b, j, i]: softmax over the sources j (code), or the logits / N (the paper's formula,
    softmax=False)."""
    logits = cut_overcomplete(over, mode)
    if not softmax:
        return logits / logits.shape[1]
    e = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    return e / e.sum(dim=1, keepdim=True)


def psa_branch(
    x: Tensor,
    w_reduce: Tensor,
    bn_reduce: BN,
    w_att: Tensor,
    bn_att: BN,
    w_over: Tensor,
    mode: str,
    softmax: bool = True,
) -> tuple[Tensor, Tensor]:
    """One branch: r = reduce (m, C); logits w_over ((2H-1)(2W-1), m) no bias after w_att (m, m); z_i = sum_j
    A_ji r_j."""
    r = naive_conv_bn_relu(x, w_reduce, bn_reduce)
    over = torch.einsum("om,bmhw->bohw", w_over, naive_conv_bn_relu(r, w_att, bn_att))
    a = psa_weights(over, mode, softmax)
    z = torch.einsum("bmj,bji->bmi", r.flatten(2), a)
    return a, z.reshape(r.shape)


def naive_psanet(
    x: Tensor, collect: tuple, distribute: tuple, w_proj: Tensor, bn_proj: BN, softmax: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Whole module: branches (w_reduce, bn_reduce, w_att, bn_att, w_over), concat [collect, distribute], proj
    (C, 2m) + BN + ReLU, concat [x, context]; returns (A_collect, A_distribute, (B, 2C, H, W))."""
    a_c, z_c = psa_branch(x, *collect, "collect", softmax)
    a_d, z_d = psa_branch(x, *distribute, "distribute", softmax)
    context = naive_conv_bn_relu(torch.cat([z_c, z_d], dim=1), w_proj, bn_proj)
    return a_c, a_d, torch.cat([x, context], dim=1)


def block_and_map(
    size: tuple[int, int] = (3, 4), largest: tuple[int, int] | None = None
) -> tuple[PointwiseSpatialAttention, Tensor]:
    """A block in float64 in eval mode, all its parameters and statistics drawn anew, and a map."""
    torch.manual_seed(1)
    block = PointwiseSpatialAttention(12, largest or size, reduction=2).double().eval()
    for name, tensor in block.state_dict().items():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2) if name.endswith("var") else nn.init.normal_(tensor)
    return block, torch.randn(2, 12, *size, dtype=torch.float64, requires_grad=True)


def conv_bn(layers: nn.Module) -> tuple[Tensor, BN]:
    """The weight of a 1 x 1 convolution and what the normalisation behind it holds."""
    conv, norm, _ = layers
    return conv.weight[:, :, 0, 0], (norm.weight, norm.bias, norm.running_mean, norm.running_var)


def branch(reduce: nn.Module, predict: nn.Module) -> tuple[Any, ...]:
    first, last = predict
    return *conv_bn(reduce), *conv_bn(first), last.weight[:, :, 0, 0]


@pytest.mark.parametrize("size", [(3, 3), (2, 4), (1, 5)], ids=str)
def test_equals_naive_reference(measured: Measured, size: tuple[int, int]) -> None:
    block, x = block_and_map(size)
    collect, distribute, y = naive_psanet(
        x, branch(block.reduce, block.predict), branch(block.reduce_p, block.predict_p), *conv_bn(block.proj)
    )
    measured.close(block.attention(x), torch.stack([collect.mT, distribute.mT], dim=1))
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


def test_distribute_is_collect_transposed(measured: Measured) -> None:
    block, x = block_and_map((5, 7))
    block.reduce_p, block.predict_p = block.reduce, block.predict
    collect, distribute = block.scores(x).unbind(dim=1)
    measured.close(distribute, collect.mT, tolerance=0)
    assert (collect - collect.mT).abs().max() > 0.1


def test_a_score_depends_on_the_position_that_predicts_it_alone(measured: Measured) -> None:
    block, x = block_and_map()
    jacobian = torch.autograd.functional.jacobian(lambda v: block.scores(v)[0], x[:1].detach())
    felt = jacobian[:, :, :, 0].abs().sum(3).flatten(3) > 0  # (2, target, source, changed position)
    own = torch.eye(12, dtype=torch.bool)
    collect = felt[0].any(dim=1)  # (target, changed position), any source
    distribute = felt[1].any(dim=0)  # (source, changed position), any target
    measured.count(int(collect.sum()), 12)
    assert torch.equal(collect, own)
    assert torch.equal(distribute, own)


def test_targets_receive_one_but_sources_do_not_give_one(measured: Measured) -> None:
    block, x = block_and_map((5, 7))
    weights = block.attention(x)
    measured.close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
    far = (weights.sum(dim=-2) - 1).abs().amax(dim=(0, 2)).min().item()
    measured.value("max |Σ − 1| over targets", far, above=0.5)


def test_every_offset_is_used(measured: Measured) -> None:
    block, _ = block_and_map((5, 7))
    offsets = torch.arange(9 * 13)
    used = block._cut(offsets[None, :, None, None].expand(1, -1, 5, 7)).flatten().bincount(minlength=9 * 13)
    measured.count(int((used > 0).sum()), 9 * 13)
    grid = used.view(9, 13)
    expected = (5 - torch.arange(-4, 5).abs())[:, None] * (7 - torch.arange(-6, 7).abs())
    assert torch.equal(grid, expected)  # corner offsets once, offset zero at all 35 positions


def test_the_same_scores_everywhere_are_a_convolution_as_large_as_the_map(measured: Measured) -> None:
    block, x = block_and_map((5, 7))
    _, norm, _ = block.predict[0]
    nn.init.zeros_(norm.weight)
    nn.init.uniform_(norm.bias)
    r = block.reduce(x)
    kernel = block.predict(r)[0, :, 0, 0].view(1, 1, 9, 13).expand(6, 1, 9, 13)
    expected = F.conv2d(r, kernel, padding=(4, 6), groups=6)
    measured.close((r.flatten(2) @ block.scores(x)[:, 0].mT).view(2, 6, 5, 7), expected)


def test_scores_move_with_the_content(measured: Measured) -> None:
    block, x = block_and_map((5, 7))
    moved = x.roll((1, 2), dims=(2, 3))
    before = block.scores(x).view(2, 2, 5, 7, 5, 7)[:, :, :-1, :-2, :-1, :-2]
    after = block.scores(moved).view(2, 2, 5, 7, 5, 7)[:, :, 1:, 2:, 1:, 2:]
    measured.close(after, before)


def test_a_smaller_map_reads_the_middle_of_the_prediction(measured: Measured) -> None:
    block, x = block_and_map((3, 4), largest=(5, 7))
    own, _ = block_and_map((3, 4))
    for name, tensor in block.state_dict().items():
        if name.startswith("predict") and name.endswith("1.weight") and tensor.shape[0] == 9 * 13:
            tensor = tensor.view(9, 13, 6, 1, 1)[2:-2, 3:-3].reshape(5 * 7, 6, 1, 1)
        own.state_dict()[name].copy_(tensor)
    measured.close(block.attention(x), own.attention(x))
    measured.close(block(x), own(x))


def test_memory_exceeds_that_of_non_local(measured: Measured) -> None:
    x = torch.randn(1, 16, 32, 32)
    block, other = PointwiseSpatialAttention(16, (32, 32), 2).eval(), NonLocalBlock(16).eval()
    with torch.no_grad():
        needed = peak_bytes(block.attention, x)
        ratio = needed / peak_bytes(other.attention, x)
    measured.value("bytes / bytes of the non-local weights", ratio, above=3)
    predicted = block.predict(block.reduce(x)).numel() / 1024**2
    measured.value("scores predicted / N²", predicted, above=3.8, below=4)


@pytest.mark.parametrize(("side", "expected"), [(30, 8_291_328), (45, 12_837_888)])
def test_parameters_of_the_released_sizes(measured: Measured, side: int, expected: int) -> None:
    with torch.device("meta"):
        block = PointwiseSpatialAttention(2048, (side, side))
    measured.count(sum(parameter.numel() for parameter in block.parameters()), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (3, 4)), "channels 0"),
        ((8, (0, 4)), r"size \(0, 4\)"),
        ((8, (3, 4), 0), "reduction 0"),
        ((9, (3, 4), 2), "channels 9 must be divisible by reduction 2"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PointwiseSpatialAttention(*arguments)


def test_refuses_a_larger_map() -> None:
    block, _ = block_and_map((3, 4))
    with pytest.raises(ValueError, match=r"map \(4, 3\) must be at most size \(3, 4\)"):
        block(torch.randn(2, 12, 4, 3, dtype=torch.float64))


def test_a_list_of_sizes_is_a_tuple() -> None:
    block = PointwiseSpatialAttention(12, [3, 4], reduction=2)
    assert block.size == (3, 4)
    assert block(torch.randn(2, 12, 3, 4)).shape == (2, 24, 3, 4)


def test_an_empty_batch_gives_an_empty_result() -> None:
    block, x = block_and_map()
    assert block(x[:0]).shape == (0, 24, 3, 4)
