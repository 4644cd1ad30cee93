"""Proofs of the attention-augmented convolution."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from snippets.attention_domain.spatial.augmented_convolution import (
    AugmentedConv2d,
    absolute_from_relative,
    example,
)
from tests.measure import Measured
from tests.memory import peak_bytes
from tests.resnet import parameters, resnet50


def augmented_logits(q: Tensor, k: Tensor, r_w: Tensor, r_h: Tensor, height: int, width: int) -> Tensor:
    """l_ij = s q_i.k_j + s q_i.r_w[jx-ix+W-1] + s q_i.r_h[jy-iy+H-1], s = d^(-1/2); q, k (B, heads, N, d);
    r_w (2W-1, d), r_h (2H-1, d) shared by the heads; returns (B, heads, N, N), rows are queries."""
    q = q * q.shape[-1] ** -0.5
    rows = []
    for i in range(height * width):
        iy, ix = i // width, i % width
        row = []
        for j in range(height * width):
            jy, jx = j // width, j % width
            content = torch.einsum("bnd,bnd->bn", q[:, :, i], k[:, :, j])
            rel_w = torch.einsum("bnd,d->bn", q[:, :, i], r_w[jx - ix + width - 1])
            rel_h = torch.einsum("bnd,d->bn", q[:, :, i], r_h[jy - iy + height - 1])
            row.append(content + rel_w + rel_h)
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


def augmented_attention(
    x: Tensor,
    w_qkv: Tensor,
    b_qkv: Tensor | None,
    r_w: Tensor,
    r_h: Tensor,
    w_out: Tensor,
    b_out: Tensor | None,
    d_k: int,
    heads: int,
) -> tuple[Tensor, Tensor]:
    """MHA(x): w_qkv (2 d_k + d_v, C) rows [q, k, v], each head-major; w_out (d_v, d_v). Returns (A, (B, d_v,
    H, W))."""
    batch, _, height, width = x.shape
    qkv = torch.einsum("oc,bcn->bon", w_qkv, x.flatten(2))
    if b_qkv is not None:
        qkv = qkv + b_qkv[None, :, None]
    d_v = qkv.shape[1] - 2 * d_k
    q, k, v = qkv[:, :d_k], qkv[:, d_k : 2 * d_k], qkv[:, 2 * d_k :]
    q, k, v = (t.reshape(batch, heads, -1, height * width).transpose(2, 3) for t in (q, k, v))
    logits = augmented_logits(q, k, r_w, r_h, height, width)
    e = torch.exp(logits - logits.amax(dim=-1, keepdim=True))
    a = e / e.sum(dim=-1, keepdim=True)
    heads_out = [torch.einsum("bij,bjd->bdi", a[:, n], v[:, n]) for n in range(heads)]
    out = torch.einsum("od,bdn->bon", w_out, torch.cat(heads_out, dim=1))
    if b_out is not None:
        out = out + b_out[None, :, None]
    return a, out.reshape(batch, d_v, height, width)


def naive_augmented_convolution(
    x: Tensor,
    w_conv: Tensor,
    b_conv: Tensor | None,
    w_qkv: Tensor,
    b_qkv: Tensor | None,
    r_w: Tensor,
    r_h: Tensor,
    w_out: Tensor,
    b_out: Tensor | None,
    d_k: int,
    heads: int,
) -> tuple[Tensor, Tensor]:
    """AAConv(x) = concat[conv (F_out - d_v, C, k, k) with same padding, MHA]; returns (A, (B, F_out, H,
    W))."""
    conv = F.conv2d(x, w_conv, b_conv, padding=w_conv.shape[-1] // 2)
    a, attended = augmented_attention(x, w_qkv, b_qkv, r_w, r_h, w_out, b_out, d_k, heads)
    return a, torch.cat([conv, attended], dim=1)


def small(kernel_size: int = 3, num_heads: int = 2) -> tuple[AugmentedConv2d, Tensor]:
    """A layer from 5 to 9 channels, 4 of them from attention with d_k = 6, on maps of 3 x 4."""
    torch.manual_seed(1)
    layer = AugmentedConv2d(5, 9, kernel_size, 6, 4, num_heads, (3, 4)).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer, torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)


def large() -> tuple[AugmentedConv2d, Tensor]:
    layer, (x,) = example()
    return layer.double(), x.double().requires_grad_()


def logits(layer: AugmentedConv2d, x: Tensor) -> Tensor:
    """Scores before the softmax, as a map of keys for each query: (B, heads, H, W, H, W)."""
    query, key, _ = layer.heads(x)
    return (query @ key.mT).reshape(*query.shape[:2], *layer.size, *layer.size)


@pytest.mark.parametrize(("kernel_size", "num_heads"), [(1, 1), (3, 2)])
def test_equals_naive_reference(measured: Measured, kernel_size: int, num_heads: int) -> None:
    layer, x = small(kernel_size, num_heads)
    qkv, out = layer.qkv.weight[..., 0, 0], layer.out.weight[..., 0, 0]
    weights, y = naive_augmented_convolution(
        x, layer.conv.weight, None, qkv, None, layer.rel_width, layer.rel_height, out, None, 6, num_heads
    )
    measured.close(layer.attention(x), weights)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x, *layer.parameters()))


@pytest.mark.parametrize("length", [1, 2, 4, 7])
def test_padding_and_reshaping_equal_an_index(measured: Measured, length: int) -> None:
    relative = torch.randn(2, 3, length, 2 * length - 1, dtype=torch.float64)
    index = torch.arange(length)[None, :] - torch.arange(length)[:, None] + length - 1
    expected = relative.gather(-1, index.expand(2, 3, -1, -1))
    measured.close(absolute_from_relative(relative), expected, tolerance=0)


def test_relative_logits_equal_brute_force(measured: Measured) -> None:
    layer, x = large()
    q = layer.qkv(x)[:, :32].view(2, 8, 4, 14, 11) * 4**-0.5
    k = layer.qkv(x)[:, 32:64].view(2, 8, 4, 14, 11)
    rows, columns = torch.arange(14), torch.arange(11)
    height = layer.rel_height[rows[None] - rows[:, None] + 13]  # (14, 14, 4)
    width = layer.rel_width[columns[None] - columns[:, None] + 10]  # (11, 11, 4)
    keys = k.movedim(2, -1)[:, :, None, None] + (height[:, None, :, None] + width[None, :, None])
    measured.close(logits(layer, x), torch.einsum("bndhw,bnhwyxd->bnhwyx", q, keys))


def test_forward_equals_explicit_weights(measured: Measured) -> None:
    layer, x = large()
    _, _, value = layer.heads(x)
    y = (layer.attention(x) @ value).mT.reshape(2, 16, 14, 11)
    explicit = torch.cat([layer.conv(x), layer.out(y)], dim=1)
    measured.close(layer(x), explicit)
    measured.gradients(layer(x), explicit, of=(x, *layer.parameters()))


def test_equals_torch_attention_without_embeddings(measured: Measured) -> None:
    torch.manual_seed(2)
    layer = AugmentedConv2d(8, 12, 3, 8, 8, 4, (5, 6)).double()
    nn.init.zeros_(layer.rel_height)
    nn.init.zeros_(layer.rel_width)
    public = nn.MultiheadAttention(8, 4, bias=False, batch_first=True).double()
    with torch.no_grad():
        public.in_proj_weight.copy_(layer.qkv.weight[..., 0, 0])
        public.out_proj.weight.copy_(layer.out.weight[..., 0, 0])
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64, requires_grad=True)
    rows = x.flatten(2).mT
    y, weights = public(rows, rows, rows, average_attn_weights=False)
    measured.close(layer.attention(x), weights)
    measured.close(layer(x)[:, 4:].flatten(2).mT, y)
    measured.gradients(layer(x)[:, 4:].flatten(2).mT, y, of=(x,))


def test_embeddings_alone_know_positions(measured: Measured) -> None:
    layer, x = large()
    order = torch.randperm(154)
    shuffled = x.flatten(2)[:, :, order].view_as(x)
    change = (layer(shuffled)[:, 48:].flatten(2) - layer(x)[:, 48:].flatten(2)[:, :, order]).abs().max()
    measured.value("with", change.item(), above=0.01)
    nn.init.zeros_(layer.rel_height)
    nn.init.zeros_(layer.rel_width)
    measured.close(layer(shuffled)[:, 48:].flatten(2), layer(x)[:, 48:].flatten(2)[:, :, order])


def test_offsets_that_a_constant_map_tells_apart(measured: Measured) -> None:
    layer, x = large()
    scores = logits(layer, torch.ones_like(x))[0, 0]
    measured.count(len(scores.detach().round(decimals=10).unique()), 27 * 21)


def test_logits_move_with_the_picture(measured: Measured) -> None:
    """What moves by 3 rows and 2 columns keeps the logits between its positions."""
    layer, x = large()
    moved = x.roll((3, 2), dims=(2, 3))
    before, after = logits(layer, x), logits(layer, moved)
    measured.close(after[:, :, 3:, 2:, 3:, 2:], before[:, :, :-3, :-2, :-3, :-2])


def test_first_channels_are_the_convolution(measured: Measured) -> None:
    layer, x = large()
    measured.close(layer(x)[:, :48], F.conv2d(x, layer.conv.weight, padding=1))
    touched = torch.autograd.grad(layer(x)[0, 48:, 0, 0].sum(), x)[0][0].abs().sum(0)
    measured.count(int(touched.count_nonzero()), 14 * 11)


@pytest.mark.parametrize(("part", "low", "high"), [("forward", 4, 8.5), ("attention", 14, 17)])
def test_memory_by_positions(measured: Measured, part: str, low: float, high: float) -> None:
    """At four times the positions."""
    peaks = []
    for side in (24, 48):
        layer = AugmentedConv2d(16, 16, 3, 16, 8, 2, (side, side))
        peaks.append(peak_bytes(getattr(layer, part), torch.randn(1, 16, side, side)))
    measured.value(f"× memory, {part}", peaks[1] / peaks[0], above=low, below=high)


def augmented(width: int, stride: int) -> nn.Module:
    """The 3 x 3 convolution of a bottleneck; in the last three stages with 8 heads of 20 for keys."""
    sides = {128: (28, 8), 256: (14, 24), 512: (7, 48)}
    if width not in sides:
        layer: nn.Module = nn.Conv2d(width, width, 3, padding=1, bias=False)
    else:
        side, values = sides[width]
        layer = AugmentedConv2d(width, width, 3, 160, values, 8, (side, side))
    pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, layer, nn.BatchNorm2d(width), nn.ReLU())


def test_resnet50_parameters(measured: Measured) -> None:
    network = resnet50(middle=augmented)
    with torch.device("meta"):
        assert network(torch.empty(1, 3, 224, 224)).shape == (1, 1000)
    embeddings = sum(p.numel() for name, p in network.named_parameters() if "rel_" in name)
    measured.count(parameters(network), 25_813_872)
    measured.count(embeddings, 16_840)


def test_parameters_that_replace_a_convolution(measured: Measured) -> None:
    """C^2 (2 kappa + (1 - k^2) upsilon + upsilon^2), and the embeddings, for d_k = C / 5 and d_v = C / 10."""
    layer = AugmentedConv2d(320, 320, 3, 64, 32, 8, (14, 10))
    added = parameters(layer) - 9 * 320**2
    measured.count(added, (40 - 80 + 1) * 320**2 // 100 + 2 * (14 + 10 - 1) * 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8, 3, 4, 4, 2, (3, 4)), "must be at least 1"),
        ((8, 8, 3, 4, 4, 2, (3, 0)), "must be at least 1"),
        ((8, 8, 2, 4, 4, 2, (3, 4)), "kernel_size 2 must be odd"),
        ((8, 8, 3, 5, 4, 2, (3, 4)), "key_channels 5 must be divisible by num_heads 2"),
        ((8, 8, 3, 4, 5, 2, (3, 4)), "value_channels 5 must be divisible by num_heads 2"),
        ((8, 8, 3, 4, 8, 2, (3, 4)), "value_channels 8 must be below out_channels 8"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentedConv2d(*arguments)


def test_refuses_another_size() -> None:
    layer, _ = small()
    with pytest.raises(ValueError, match=r"must be \(B, C, H, W\) with \(H, W\) = \(3, 4\)"):
        layer(torch.randn(1, 5, 4, 3, dtype=torch.float64))


def test_refuses_three_sizes() -> None:
    with pytest.raises(ValueError, match="too many"):
        AugmentedConv2d(8, 8, 3, 4, 4, 2, (3, 4, 5))  # type: ignore[arg-type]


def test_a_list_of_sizes_is_a_tuple() -> None:
    layer = AugmentedConv2d(5, 9, 3, 6, 4, 2, [3, 4])
    assert layer(torch.randn(2, 5, 3, 4)).shape == (2, 9, 3, 4)


def test_values_wider_than_queries() -> None:
    """Eight channels of values beside 1 + 2 + 2 of queries: nothing may be cut off."""
    torch.manual_seed(3)
    layer = AugmentedConv2d(3, 9, 1, 1, 8, 1, (2, 2)).double()
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    y = (layer.attention(x) @ layer.heads(x)[2]).mT.reshape(2, 8, 2, 2)
    torch.testing.assert_close(layer(x)[:, 1:], layer.out(y))


def test_an_empty_batch_gives_an_empty_result() -> None:
    layer, x = small()
    assert layer(x[:0]).shape == (0, 9, 3, 4)


def test_second_derivatives_need_the_math_kernel() -> None:
    layer, x = small()
    with sdpa_kernel(SDPBackend.MATH):
        (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert x.grad.isfinite().all()
    (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        slope.square().sum().backward()
