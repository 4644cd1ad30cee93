"""Proofs of the global-local temporal representation."""

import copy

import pytest
import torch
from torch import Tensor, nn

from snippets.attention_domain.temporal.global_local import GLTR
from tests.measure import Measured
from tests.resnet import parameters

BN = tuple[Tensor, Tensor, Tensor, Tensor]
"""gamma, beta, running mean, running var, one value per channel"""


def bn_relu(x: Tensor, bn: BN | None, eps: float = 1e-5) -> Tensor:
    """ReLU of BatchNorm in eval mode over dim 1 of x (B, c, T); bn None: ReLU alone."""
    if bn is not None:
        gamma, beta, mean, var = (p[None, :, None] for p in bn)
        x = gamma * (x - mean) / torch.sqrt(var + eps) + beta
    return x * (x > 0)


def naive_dtp(
    f: Tensor, branches: list[tuple[Tensor, Tensor, BN | None]], dilations: tuple[int, ...]
) -> Tensor:
    """Dilated temporal pyramid: per branch sum_o w[:, :, o] f[t + (o - 1) r] + b (zeros outside), BN, ReLU;
    concat. f (B, d, T), w (d', d, 3), b (d',); F' (B, branches d', T)."""
    frames, parts = f.shape[2], []
    for (w, b, bn), rate in zip(branches, dilations, strict=True):
        out = []
        for t in range(frames):
            acc = b[None].expand(f.shape[0], -1)
            for o in range(3):
                source = t + (o - 1) * rate
                if 0 <= source < frames:
                    acc = acc + torch.einsum("dc,bc->bd", w[:, :, o], f[:, :, source])
            out.append(acc)
        parts.append(bn_relu(torch.stack(out, dim=2), bn))
    return torch.cat(parts, dim=1)


def naive_tsa(
    f: Tensor,
    w_b: Tensor,
    b_b: Tensor,
    bn_b: BN | None,
    w_c: Tensor,
    b_c: Tensor,
    bn_c: BN | None,
    w_v: Tensor,
    b_v: Tensor,
    w_o: Tensor,
    b_o: Tensor,
    literal: bool = False,
) -> tuple[Tensor, Tensor]:
    """M_ts = softmax_s(B_t . C_s), B, C = ReLU(BN(1x1)) (D/a, D); o_t = sum_s M_ts v_s, y = W_o o + b_o + f.
    literal=True reads "conv(F') M" by its indices, o_t = sum_s v_s M_st, whose weights over s do not sum to
    1. Returns (M, y)."""
    b = bn_relu(torch.einsum("oc,bct->bot", w_b, f) + b_b[None, :, None], bn_b)
    c = bn_relu(torch.einsum("oc,bct->bot", w_c, f) + b_c[None, :, None], bn_c)
    v = torch.einsum("oc,bct->bot", w_v, f) + b_v[None, :, None]
    logits = torch.einsum("bot,bos->bts", b, c)
    e = torch.exp(logits - logits.amax(dim=2, keepdim=True))
    m = e / e.sum(dim=2, keepdim=True)
    o = torch.einsum("bos,bst->bot", v, m) if literal else torch.einsum("bos,bts->bot", v, m)
    return m, torch.einsum("co,bot->bct", w_o, o) + b_o[None, :, None] + f


def naive_gltr(f: Tensor, branches: list, dilations: tuple[int, ...], tsa: tuple) -> tuple[Tensor, Tensor]:
    """DTP, TSA, mean over T: (M (B, T, T), descriptor (B, D))."""
    m, y = naive_tsa(naive_dtp(f, branches, dilations), *tsa)
    return m, y.sum(dim=2) / y.shape[2]


def small(lengths: tuple[int, ...] = (9, 9)) -> tuple[GLTR, Tensor, Tensor]:
    torch.manual_seed(1)
    block = GLTR(4).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    for norm in (layer for layer in block.modules() if isinstance(layer, nn.BatchNorm1d)):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(len(lengths), 9, 4, dtype=torch.float64, requires_grad=True)
    return block, x, torch.arange(9) < torch.tensor(lengths)[:, None]


def norm_tensors(layer: nn.Sequential) -> BN:
    norm = layer[1]
    return norm.weight, norm.bias, norm.running_mean, norm.running_var


def pyramid_tensors(block: GLTR) -> list[tuple[Tensor, Tensor, BN | None]]:
    return [(branch[0].weight, branch[0].bias, norm_tensors(branch)) for branch in block.pyramid]


def attention_tensors(block: GLTR) -> tuple[Tensor | BN | None, ...]:
    made: list[Tensor | BN | None] = []
    for layer in (block.query, block.key):
        made += [layer[0].weight[..., 0], layer[0].bias, norm_tensors(layer)]
    for convolution in (block.value, block.out):
        made += [convolution.weight[..., 0], convolution.bias]
    return tuple(made)


def test_equals_naive_reference(measured: Measured) -> None:
    block, x, _ = small()
    weights, y = naive_gltr(x.mT, pyramid_tensors(block), (1, 2, 4), attention_tensors(block))
    measured.close(block.attention(x), weights)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


@pytest.mark.parametrize("length", [1, 3, 8])
def test_padding_changes_nothing(measured: Measured, length: int) -> None:
    block, x, mask = small((9, length))
    weights, y = naive_gltr(x[1:, :length].mT, pyramid_tensors(block), (1, 2, 4), attention_tensors(block))
    measured.close(block.attention(x, mask)[1:, :length, :length], weights)
    measured.close(block(x, mask)[1:], y)
    measured.gradients(block(x, mask)[1:], y, of=tuple(block.parameters()))
    gradient = torch.autograd.grad(block(x, mask).square().sum(), x)[0]
    assert not gradient[1, length:].any()
    assert gradient[1, :length].all()


def test_each_frame_gives_away_one_unit_of_weight(measured: Measured) -> None:
    block, x, mask = small((9, 4))
    weights = block.attention(x, mask)
    measured.close(weights.sum(dim=-1), torch.ones(2, 9, dtype=torch.float64))
    received = weights[0].sum(dim=0)
    measured.value("received by a frame", received.min().item(), below=0.9)
    measured.value("received by a frame", received.max().item(), above=1.1)
    assert not weights[1, :, 4:].any()


def test_pyramid_looks_1_2_and_4_frames_away(measured: Measured) -> None:
    block, x, _ = small()
    for branch, distance in zip(block.pyramid, (1, 2, 4), strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda v, run=branch: run(v[None])[0, :, 4], x[0].detach().mT
        )
        seen = jacobian.abs().sum((0, 1)).nonzero().flatten().tolist()
        assert seen == [4 - distance, 4, 4 + distance]
        measured.count(seen[-1] - seen[0] + 1, 2 * distance + 1)


def test_every_frame_reads_every_frame(measured: Measured) -> None:
    block, x, _ = small()
    measured.count(int((block.attention(x)[0] > 0).sum()), 9 * 9)


def test_attention_does_not_know_the_order_but_the_pyramid_does(measured: Measured) -> None:
    block, x, mask = small()
    order = torch.randperm(9)
    local = block._local(x, mask)
    measured.close(block._weights(local[..., order], mask), block._weights(local, mask)[:, order][..., order])
    change = (block(x[:, order]) - block(x)).abs().max().item()
    measured.value("max |f(permuted) − f|", change, above=0.1)


def test_reversed_clip_gives_the_same_with_symmetric_kernels(measured: Measured) -> None:
    block, x, _ = small()
    change = (block(x.flip(1)) - block(x)).abs().max().item()
    for branch in block.pyramid:
        kernel = branch[0].weight.data
        kernel.copy_((kernel + kernel.flip(-1)) / 2)
    measured.close(block(x.flip(1)), block(x))
    measured.value("max |f(reversed) − f|, other kernels", change, above=0.1)


def test_descriptor_weighs_frames_by_the_attention_they_receive(measured: Measured) -> None:
    block, x, mask = small()
    local = block._local(x, mask)
    received = block.attention(x).mean(dim=1)  # (B, T)
    once = block.out(block.value(local) @ received[..., None])[..., 0]
    measured.close(block(x), local.mean(dim=-1) + once)
    measured.gradients(block(x), local.mean(dim=-1) + once, of=(x, *block.parameters()))


def test_transposed_weights_would_cancel_in_the_mean(measured: Measured) -> None:
    block, x, mask = small()
    local = block._local(x, mask)
    transposed = naive_tsa(local, *attention_tensors(block), literal=True)[1].mean(dim=-1)
    uniform = (local + block.out(block.value(local).mean(dim=-1, keepdim=True))).mean(dim=-1)
    measured.close(transposed, uniform)
    gap = (block(x) - transposed).abs().max().item()
    measured.value("max |f − f(transposed)|", gap, above=0.01)


def test_parameters_for_128_features(measured: Measured) -> None:
    block = GLTR(128)
    convolutions = sum(parameters(branch[0]) for branch in block.pyramid)
    measured.count(convolutions, 147_840)
    measured.count(sum(map(parameters, (block.query, block.key, block.value, block.out))), 296_640)
    measured.count(parameters(block), 147_840 + 3 * 2 * 128 + 296_640)


def test_sequence_without_real_frames_gives_zeros() -> None:
    block, x, mask = small((9, 0))
    y = block(x, mask)
    assert not y[1].any()
    assert not block.attention(x, mask)[1].any()
    y.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "embed_dim 0"),
        ((4, 0), "reduction 0"),
        ((5, 2), "3 \\* embed_dim 15 must be divisible by reduction 2"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GLTR(*arguments)


def test_refuses_other_masks() -> None:
    block, x, mask = small()
    with pytest.raises(TypeError, match="must be bool"):
        block(x, mask.double())
    with pytest.raises(ValueError, match=r"mask \(2, 8\) must be \(B, T\) = \(2, 9\)"):
        block(x, mask[:, :8])


@pytest.mark.parametrize("method", ["forward", "attention"])
def test_refuses_other_inputs(method: str) -> None:
    """A single sequence would be read as a batch of sequences of numbers."""
    block, x, _ = small()
    for other in (x[0], x.mT, x[:, :, :3]):
        with pytest.raises(ValueError, match=r"must be \(B, T, d\) with d = 4"):
            getattr(block, method)(other)


@pytest.mark.parametrize("frames", [600, 2100])
def test_half_precision_sums_no_more_than_a_mean(frames: int) -> None:
    """The sum over the frames would leave float16."""
    torch.manual_seed(0)
    block = GLTR(8).double().eval()
    x = torch.randn(2, frames, 8, dtype=torch.float64)
    block.out.bias.data.fill_(400.0)
    half = copy.deepcopy(block).half()
    y, expected = half(x.half()), block(x)
    assert y.dtype == torch.float16
    assert (y - expected).abs().max() < 2e-3 * expected.abs().max()
