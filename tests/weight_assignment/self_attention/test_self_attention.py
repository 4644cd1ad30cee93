"""Proofs of self-attention."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from snippets.weight_assignment.self_attention.self_attention import (
    SelfAttention,
    example,
    sinusoidal_positions,
)
from tests.measure import Measured
from tests.memory import peak_bytes


def linear(x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    """y_o = sum_i W[o, i] x_i + b_o on one vector."""
    y = torch.stack([(W[o] * x).sum() for o in range(W.shape[0])])
    return y if b is None else y + b


def softmax(e: list[Tensor], ok: list[bool]) -> list[Tensor]:
    """exp / sum over the allowed entries (shifted by their maximum), 0 elsewhere and if none is allowed."""
    zero = e[0].new_zeros(())
    top = max((float(x.detach()) for x, k in zip(e, ok, strict=True) if k), default=0.0)
    exps = [torch.exp(x - top) if k else zero for x, k in zip(e, ok, strict=True)]
    total = sum(exps, zero)
    return [x / total if k else zero for x, k in zip(exps, ok, strict=True)]


def naive_self_attention(
    x: Tensor,
    W_Q: Tensor,
    W_K: Tensor,
    W_V: Tensor,
    b_Q: Tensor | None = None,
    b_K: Tensor | None = None,
    b_V: Tensor | None = None,
    mask: Tensor | None = None,
    W_O: Tensor | None = None,
    b_O: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """x (B,N,E); W_Q, W_K (d,E), W_V (dv,E), W_O (Eo,dv); mask broadcastable to (B,N,N), True = may attend.

    `scale` defaults to 1/sqrt(d). Returns weights (B,N,N), rows are queries, and output (B,N,dv or Eo).
    A fully masked row reads 0, so its output is 0 (b_O where W_O is given).
    """
    B, N, _ = x.shape
    factor = 1 / math.sqrt(W_Q.shape[0]) if scale is None else scale
    may = torch.ones(B, N, N, dtype=torch.bool) if mask is None else mask.expand(B, N, N)
    maps, outs = [], []
    for b in range(B):
        q = [linear(x[b, i], W_Q, b_Q) for i in range(N)]
        k = [linear(x[b, i], W_K, b_K) for i in range(N)]
        v = [linear(x[b, i], W_V, b_V) for i in range(N)]
        for i in range(N):
            a = softmax([(q[i] * k[j]).sum() * factor for j in range(N)], may[b, i].tolist())
            read = sum((a[j] * v[j] for j in range(N)), torch.zeros_like(v[0]))
            maps.append(torch.stack(a))
            outs.append(read if W_O is None else linear(read, W_O, b_O))
    return torch.stack(maps).reshape(B, N, N), torch.stack(outs).reshape(B, N, -1)


def naive_positions(length: int, d: int, base: float = 10000.0) -> Tensor:
    """(length, d) float64, sine in even columns and cosine in odd ones; odd d ends on a sine."""
    rows = []
    for p in range(length):
        angles = [p / base ** (2 * (c // 2) / d) for c in range(d)]
        rows.append([math.sin(t) if c % 2 == 0 else math.cos(t) for c, t in enumerate(angles)])
    return torch.tensor(rows, dtype=torch.float64).reshape(length, d)


def naive_causal_mask(n: int) -> Tensor:
    """(n,n) bool, query i may attend key j iff j <= i."""
    return torch.tensor([[j <= i for j in range(n)] for i in range(n)])


def small(width: int = 6, head: int | None = None, tokens: int = 5) -> tuple[SelfAttention, Tensor]:
    """A layer with large random weights, and two sequences."""
    torch.manual_seed(1)
    layer = SelfAttention(width, head).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer, torch.randn(2, tokens, width, dtype=torch.float64, requires_grad=True)


def random_mask(*shape: int) -> Tensor:
    """A bool mask that leaves nothing to the first query, or, if it is one for all, to the first sample."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) > 0.4
    if shape[-2] > 1:
        mask[..., 0, :] = False
    else:
        mask[0] = False
    return mask


def projections(layer: SelfAttention) -> tuple[Tensor, Tensor, Tensor]:
    return layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight


def public(layer: SelfAttention, x: Tensor, **masks: Tensor) -> tuple[Tensor, Tensor]:
    """Output and weights of torch's module with the very tensors of ours; its last layer does nothing."""
    width = x.shape[-1]
    theirs = nn.MultiheadAttention(width, num_heads=1, bias=False, batch_first=True)
    tensors = {
        "in_proj_weight": torch.cat(projections(layer)),
        "out_proj.weight": torch.eye(width, dtype=x.dtype),
    }
    y, weights = torch.func.functional_call(theirs.eval(), tensors, (x, x, x), masks, strict=True)
    return y, weights


@pytest.mark.parametrize("head", [1, 4, None])
def test_equals_naive_reference(measured: Measured, head: int | None) -> None:
    layer, x = small(head=head)
    weights, y = naive_self_attention(x, *projections(layer))
    measured.close(layer.attention(x), weights)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x, *layer.parameters()))


@pytest.mark.parametrize("shape", [(1, 5, 5), (2, 5, 5), (2, 1, 5)])
def test_masks_equal_naive_reference(measured: Measured, shape: tuple[int, ...]) -> None:
    layer, x = small(head=4)
    mask = random_mask(*shape)
    weights, y = naive_self_attention(x, *projections(layer), mask=mask)
    measured.close(layer.attention(x, mask), weights)
    measured.close(layer(x, mask), y)
    measured.gradients(layer(x, mask), y, of=(x, *layer.parameters()))


def test_causal_mask_equals_naive_reference_and_torch(measured: Measured) -> None:
    layer, x = small(head=4)
    mask = torch.ones(1, 5, 5, dtype=torch.bool).tril()
    _, y = naive_self_attention(x, *projections(layer), mask=naive_causal_mask(5))
    measured.close(layer(x, mask), y)
    projected = (x @ weight.T for weight in projections(layer))
    measured.close(layer(x, mask), F.scaled_dot_product_attention(*projected, is_causal=True))


@pytest.mark.parametrize("masked", [False, True])
def test_fused_forward_equals_weights_times_values(measured: Measured, masked: bool) -> None:
    layer, x = small(head=4, tokens=9)
    mask = random_mask(2, 9, 9) if masked else None
    explicit = torch.einsum("bts,bsd->btd", layer.attention(x, mask), layer.v_proj(x))
    measured.close(layer(x, mask), explicit)
    measured.gradients(layer(x, mask), explicit, of=(x, *layer.parameters()))


@pytest.mark.parametrize("masked", [False, True])
def test_equals_one_head_of_torch_module(measured: Measured, masked: bool) -> None:
    layer, x = small()
    real = torch.tensor([[True] * 5, [True, True, True, False, False]])
    mask, masks = (real[:, None], {"key_padding_mask": ~real}) if masked else (None, {})
    y, weights = public(layer, x, **masks)
    measured.close(layer.attention(x, mask), weights)
    measured.close(layer(x, mask), y)
    measured.gradients(layer(x, mask), y, of=(x, *layer.parameters()))


def test_heads_side_by_side_are_multi_head_attention(measured: Measured) -> None:
    together = MultiHeadAttention(6, 3, bias=False).double()
    heads = [SelfAttention(6, 2).double() for _ in range(3)]
    for name in ("q_proj", "k_proj", "v_proj"):
        stacked = torch.cat([getattr(head, name).weight for head in heads])
        getattr(together, name).load_state_dict({"weight": stacked})
    _, x = small()
    measured.close(together.out_proj(torch.cat([head(x) for head in heads], dim=2)), together(x))
    measured.close(torch.stack([head.attention(x) for head in heads], dim=1), together.attention(x))


def test_permuted_tokens_permute_the_output(measured: Measured) -> None:
    layer, x = small(tokens=7)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    measured.close(layer(x[:, order]), layer(x)[:, order])
    measured.close(layer.attention(x[:, order]), layer.attention(x)[:, order][..., order])


def different(outputs: list[Tensor]) -> int:
    """How many outputs differ from each other by more than rounding."""
    kept: list[Tensor] = []
    for output in outputs:
        if all((output - other).abs().max() > 1e-6 for other in kept):
            kept.append(output)
    return len(kept)


def test_order_is_told_by_positions_alone(measured: Measured) -> None:
    layer, x = small(tokens=4)
    orders = [list(order) for order in itertools.permutations(range(4))]
    codes = sinusoidal_positions(4, 6)
    measured.count(different([layer(x[:, order]).mean(dim=1) for order in orders]), 1)
    measured.count(different([layer(x[:, order] + codes).mean(dim=1) for order in orders]), 24)


def test_equal_tokens_get_equal_outputs_without_positions(measured: Measured) -> None:
    layer, x = small(tokens=6)
    twice = torch.cat([x, x], dim=1)
    measured.close(layer(twice)[:, :6], layer(twice)[:, 6:])
    apart = layer(twice + sinusoidal_positions(12, 6))
    assert (apart[:, :6] - apart[:, 6:]).abs().amax(dim=-1).min() > 1e-6


def test_every_token_is_one_step_from_every_token(measured: Measured) -> None:
    layer, x = small()
    for mask, pairs in ((None, 25), (torch.ones(1, 5, 5, dtype=torch.bool).tril(), 15)):
        jacobian = torch.func.jacrev(lambda x, mask=mask: layer(x, mask))(x[:1])[0, :, :, 0]  # (T, d, T, E)
        reached = jacobian.abs().amax(dim=(1, 3)) > 1e-9
        assert mask is None or not reached[~mask[0]].any()
        measured.count(int(reached.sum()), pairs)


def test_queries_of_zeros_read_the_mean(measured: Measured) -> None:
    layer, x = small()
    nn.init.zeros_(layer.q_proj.weight)
    measured.close(layer.attention(x), torch.full((2, 5, 5), 1 / 5, dtype=torch.float64))
    measured.close(layer(x), layer.v_proj(x).mean(dim=1, keepdim=True).expand(2, 5, 6))


def test_scores_are_divided_by_the_root_of_the_head_width(measured: Measured) -> None:
    layer, x = small(width=6, head=4)
    q, k = layer.q_proj(x), layer.k_proj(x)
    ratios = layer.attention(x).log().diff(dim=-1) / torch.einsum("btd,bsd->bts", q, k).diff(dim=-1)
    measured.close(ratios, torch.full_like(ratios, 1 / math.sqrt(4)), tolerance=1e-8)


def test_weights_are_a_distribution_over_the_keys(measured: Measured) -> None:
    layer, x = small()
    weights = layer.attention(x)
    measured.close(weights.sum(dim=-1), torch.ones(2, 5, dtype=torch.float64))
    assert (weights > 0).all()
    assert (weights.sum(dim=-2) - 1).abs().max() > 0.1  # not over the queries


def test_masking_a_token_equals_deleting_it(measured: Measured) -> None:
    layer, x = small(tokens=6)
    real = torch.tensor([True, True, False, True, True, False])
    measured.close(layer(x, real.expand(2, 6)[:, None])[:, real], layer(x[:, real]))


def test_query_without_keys_gets_zeros(measured: Measured) -> None:
    layer, x = small()
    mask = torch.tensor([True, True, False, True, True])[None, :, None].expand(1, 5, 5)
    y, weights = layer(x, mask), layer.attention(x, mask)
    measured.close(y[:, 2], torch.zeros_like(y[:, 2]), tolerance=0)
    measured.close(weights[:, 2], torch.zeros_like(weights[:, 2]), tolerance=0)
    for output in (y, weights):
        gradients = torch.autograd.grad(output.square().sum(), (x, layer.q_proj.weight))
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_memory_of_forward_is_linear_in_tokens(measured: Measured) -> None:
    layer = SelfAttention(16)
    short, long = torch.randn(1, 1024, 16), torch.randn(1, 4096, 16)
    stored = peak_bytes(layer, long) / peak_bytes(layer, short)
    measured.value("bytes(4096) / bytes(1024), forward", stored, above=3.9, below=4.1)
    with torch.no_grad():
        explicit = peak_bytes(layer.attention, long) / peak_bytes(layer.attention, short)
    measured.value("attention", explicit, above=15, below=16.1)


def test_memory_of_backward_is_linear_in_tokens(measured: Measured) -> None:
    layer = SelfAttention(16)

    def step(x: Tensor) -> None:
        layer(x).square().sum().backward()

    growth = peak_bytes(step, torch.randn(1, 4096, 16)) / peak_bytes(step, torch.randn(1, 1024, 16))
    measured.value("bytes(4096) / bytes(1024)", growth, above=3.9, below=4.1)


def test_parameters_are_three_matrices(measured: Measured) -> None:
    measured.count(sum(p.numel() for p in SelfAttention(512).parameters()), 786_432)
    measured.count(sum(p.numel() for p in SelfAttention(512, 64).parameters()), 98_304)


@pytest.mark.parametrize(("length", "width"), [(1, 2), (7, 6), (10_000, 64)])
def test_positions_equal_naive_reference(measured: Measured, length: int, width: int) -> None:
    codes = sinusoidal_positions(length, width)
    assert codes.dtype == torch.float32
    measured.close(codes.double(), naive_positions(length, width), tolerance=1e-7)


def turn(steps: int, width: int) -> Tensor:
    """The matrix that moves every code by so many steps: a rotation of each pair, (width, width)."""
    pairs = []
    for i in range(0, width, 2):
        angle = torch.tensor(steps * 10000 ** (-i / width), dtype=torch.float64)
        cos, sin = angle.cos(), angle.sin()
        pairs.append(torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])]))
    return torch.block_diag(*pairs)


def test_a_shift_of_positions_is_a_rotation(measured: Measured) -> None:
    codes = sinusoidal_positions(40, 16).double()
    for steps in (1, 7):
        measured.close(codes[:-steps] @ turn(steps, 16).T, codes[steps:], tolerance=1e-6)


def test_products_of_positions_cannot_tell_left_from_right(measured: Measured) -> None:
    codes = sinusoidal_positions(20, 16).double()
    products = codes @ codes.T
    measured.close(products[10, 10:], products[10, 1:11].flip(0), tolerance=1e-5)
    measured.close(products.diagonal(), torch.full((20,), 8.0, dtype=torch.float64), tolerance=1e-5)


def test_a_rotated_query_finds_the_token_before(measured: Measured) -> None:
    layer = SelfAttention(16).double()
    with torch.no_grad():
        layer.q_proj.weight.copy_(20 * turn(-1, 16))
        nn.init.eye_(layer.k_proj.weight)
    found = layer.attention(sinusoidal_positions(20, 16).double()[None])[0].argmax(dim=-1)
    measured.count(int((found[1:] == torch.arange(19)).sum()), 19)


@pytest.mark.parametrize("arguments", [(0,), (8, 0)])
def test_refuses_impossible_widths(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"embed_dim \d and head_dim 0 must be at least 1"):
        SelfAttention(*arguments)


@pytest.mark.parametrize(
    ("length", "width", "message"),
    [
        (0, 4, "length 0 must be at least 1"),
        (4, 0, "width 0 must be even and at least 2"),
        (4, 5, "width 5 must be even and at least 2"),
    ],
)
def test_refuses_impossible_positions(length: int, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sinusoidal_positions(length, width)


@pytest.mark.parametrize("shape", [(2, 8), (8, 8), (3, 8, 8), (2, 1, 8, 8), (8,)])
def test_refuses_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    layer, (x,) = example()
    for call in (layer, layer.attention):
        with pytest.raises(
            ValueError, match=r"passed as mask\[None\], padding \(B, T\) as padding\[:, None\]"
        ):
            call(x, torch.ones(shape, dtype=torch.bool))


def test_refuses_masks_that_are_not_bool() -> None:
    layer, (x,) = example()
    for call in (layer, layer.attention):
        with pytest.raises(TypeError, match="True = may be attended"):
            call(x, torch.zeros(1, 8, 8))


def test_refuses_a_padding_mask_as_one_for_pairs_though_it_is_as_large() -> None:
    layer, (x,) = example(B=8, T=8)
    padding = torch.arange(8) < torch.arange(1, 9)[:, None]
    for call in (layer, layer.attention):
        with pytest.raises(ValueError, match=r"mask \(8, 8\) must have three dimensions"):
            call(x, padding)


def test_refuses_one_sequence_without_a_batch() -> None:
    layer, (x,) = example()
    for call in (layer, layer.attention):
        with pytest.raises(ValueError, match=r"x \(8, 24\) must be \(B, T, E\)"):
            call(x[0])


def test_second_derivatives_and_forward_mode_work_in_the_math_kernel() -> None:
    layer, (x,) = example()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        torch.func.jvp(layer, (x,), (torch.ones_like(x),))
        slope = torch.autograd.grad(layer(x.requires_grad_()).square().sum(), x, create_graph=True)[0]
        assert torch.autograd.grad(slope.square().sum(), x)[0].isfinite().all()
