"""Proofs of multi-head attention."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention, example
from tests.measure import Measured


def linear(x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    """y_o = sum_i W[o, i] x_i + b_o on one vector."""
    y = torch.stack([(W[o] * x).sum() for o in range(W.shape[0])])
    return y if b is None else y + b


def naive_mha(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    W_Q: Tensor,
    b_Q: Tensor | None,
    W_K: Tensor,
    b_K: Tensor | None,
    W_V: Tensor,
    b_V: Tensor | None,
    W_O: Tensor,
    b_O: Tensor | None,
    num_heads: int,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """query (B,T,E), key (B,S,Ek), value (B,S,Ev); W_Q (E,E), W_K (E,Ek), W_V (E,Ev), W_O (E,E), biases (E,).

    `mask` is broadcastable to (B,heads,T,S), True = may attend. Returns (B,heads,T,S), (B,T,E).
    A fully masked row has weights 0, so that head contributes 0 (the output row is b_O if all heads do).
    """
    (B, T, _), S = query.shape, key.shape[1]
    d = W_Q.shape[0] // num_heads
    dv = W_V.shape[0] // num_heads
    may = (
        torch.ones(B, num_heads, T, S, dtype=torch.bool) if mask is None else mask.expand(B, num_heads, T, S)
    )
    all_weights, outs = [], []
    for b in range(B):
        Q = [linear(query[b, t], W_Q, b_Q) for t in range(T)]
        K = [linear(key[b, s], W_K, b_K) for s in range(S)]
        V = [linear(value[b, s], W_V, b_V) for s in range(S)]
        heads: list[list[Tensor]] = [[] for _ in range(T)]
        for n in range(num_heads):
            for t in range(T):
                zero = query.new_zeros(())
                exps = []
                for s in range(S):
                    logit = sum((Q[t][j] * K[s][j] for j in range(n * d, (n + 1) * d)), zero) / math.sqrt(d)
                    exps.append(torch.exp(logit) if bool(may[b, n, t, s]) else zero)
                total = sum(exps, zero)
                a = [x / total if bool(may[b, n, t].any()) else zero for x in exps]
                all_weights.append(torch.stack(a))
                read = sum((a[s] * V[s][n * dv : (n + 1) * dv] for s in range(S)), query.new_zeros(dv))
                heads[t].append(read)
        outs.append(torch.stack([linear(torch.cat(heads[t]), W_O, b_O) for t in range(T)]))
    return torch.stack(all_weights).reshape(B, num_heads, T, S), torch.stack(outs)


def small(
    heads: int = 2, width: int = 6, bias: bool = True, **sizes: int
) -> tuple[MultiHeadAttention, list[Tensor]]:
    """A layer with large random weights and, for each length in `sizes`, a sequence of that length."""
    torch.manual_seed(1)
    layer = MultiHeadAttention(width, heads, bias=bias).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer, [torch.randn(2, n, width, dtype=torch.float64, requires_grad=True) for n in sizes.values()]


def random_mask(*shape: int) -> Tensor:
    """A bool mask whose first row allows nothing."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) > 0.4
    mask[..., 0, :] = False
    return mask


def triangle(T: int, S: int) -> Tensor:
    return (torch.arange(S) <= torch.arange(T)[:, None] + (S - T))[None, None]


def projections(layer: MultiHeadAttention) -> list[Tensor | None]:
    linears = (layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj)
    return [tensor for linear in linears for tensor in (linear.weight, linear.bias)]


@torch.no_grad()
def public(layer: MultiHeadAttention) -> nn.MultiheadAttention:
    """torch's own module with the same weights, which it keeps stacked."""
    theirs = (
        nn.MultiheadAttention(layer.q_proj.in_features, layer.num_heads, batch_first=True).double().eval()
    )
    inner = (layer.q_proj, layer.k_proj, layer.v_proj)
    theirs.in_proj_weight.copy_(torch.cat([linear.weight for linear in inner]))
    theirs.in_proj_bias.copy_(torch.cat([linear.bias for linear in inner]))
    theirs.out_proj.load_state_dict(layer.out_proj.state_dict())
    return theirs


def identity(heads: int, width: int) -> MultiHeadAttention:
    """A layer whose four projections change nothing."""
    layer = MultiHeadAttention(width, heads, bias=False).double().eval()
    for parameter in layer.parameters():
        nn.init.eye_(parameter)
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
def test_self_attention_equals_naive_reference(measured: Measured, heads: int, bias: bool) -> None:
    layer, (x,) = small(heads, bias=bias, T=4)
    weights, y = naive_mha(x, x, x, *projections(layer), num_heads=heads)
    measured.close(layer.attention(x), weights)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x, *layer.parameters()))


@pytest.mark.parametrize("shape", [(2, 2, 3, 5), (2, 1, 3, 5), (1, 1, 3, 5)])
def test_masked_cross_attention_equals_naive_reference(measured: Measured, shape: tuple[int, ...]) -> None:
    layer, (query, key, value) = small(T=3, S=5, V=5)
    mask = random_mask(*shape)
    weights, y = naive_mha(query, key, value, *projections(layer), num_heads=2, mask=mask)
    measured.close(layer.attention(query, key, value, mask), weights)
    measured.close(layer(query, key, value, mask), y)
    measured.gradients(layer(query, key, value, mask), y, of=(query, key, value, *layer.parameters()))


@pytest.mark.parametrize(("T", "S"), [(5, 5), (3, 5), (5, 3)])
def test_causal_attention_equals_naive_reference(measured: Measured, T: int, S: int) -> None:
    layer, (query, key) = small(T=T, S=S)
    weights, y = naive_mha(query, key, key, *projections(layer), num_heads=2, mask=triangle(T, S))
    measured.close(layer.attention(query, key, is_causal=True), weights)
    measured.close(layer(query, key, is_causal=True), y)
    measured.gradients(layer(query, key, is_causal=True), y, of=(query, key, *layer.parameters()))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("is_causal", [False, True])
def test_fused_forward_equals_weights_times_values(measured: Measured, padded: bool, is_causal: bool) -> None:
    layer, (query, key) = small(heads=3, T=5, S=5)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])[:, None, None] if padded else None
    weights = layer.attention(query, key, mask=mask, is_causal=is_causal)
    values = layer.v_proj(key).view(2, 5, 3, 2)
    explicit = layer.out_proj(torch.einsum("bhts,bshd->bthd", weights, values).reshape(2, 5, 6))
    fused = layer(query, key, mask=mask, is_causal=is_causal)
    measured.close(fused, explicit)
    measured.gradients(fused, explicit, of=(query, key, *layer.parameters()))


def test_equals_torch_module(measured: Measured) -> None:
    layer, (query, key, value) = small(heads=3, T=4, S=5, V=5)
    theirs = public(layer)
    y, weights = theirs(query, key, value, average_attn_weights=False)
    measured.close(layer.attention(query, key, value), weights)
    measured.close(layer(query, key, value), y)
    measured.gradients(layer(query, key, value), y, of=(query, key, value))
    cotangent = torch.randn_like(y)
    y.backward(cotangent)
    layer(query, key, value).backward(cotangent)
    inner = (layer.q_proj, layer.k_proj, layer.v_proj)
    measured.close(torch.cat([linear.weight.grad for linear in inner]), theirs.in_proj_weight.grad)
    measured.close(torch.cat([linear.bias.grad for linear in inner]), theirs.in_proj_bias.grad)
    measured.close(layer.out_proj.weight.grad, theirs.out_proj.weight.grad)


def test_equals_torch_module_with_inverted_masks(measured: Measured) -> None:
    layer, (query, key) = small(heads=3, T=4, S=5)
    padding = torch.tensor([[True] * 5, [True, True, True, False, False]])
    mask = padding[:, None, None] & triangle(4, 5)
    y, weights = public(layer)(
        query,
        key,
        key,
        key_padding_mask=~padding,
        attn_mask=~triangle(4, 5)[0, 0],
        average_attn_weights=False,
    )
    measured.close(layer.attention(query, key, mask=mask), weights)
    measured.close(layer(query, key, mask=mask), y)
    measured.close(layer(query, key, mask=padding[:, None, None], is_causal=True), y)
    measured.gradients(layer(query, key, mask=mask), y, of=(query, key))


def test_permuted_tokens_permute_the_output(measured: Measured) -> None:
    layer, (x,) = small(T=7)
    order = torch.randperm(7)
    measured.close(layer(x[:, order]), layer(x)[:, order])
    measured.close(layer.attention(x[:, order]), layer.attention(x)[:, :, order][..., order])


def test_permuted_heads_leave_the_output(measured: Measured) -> None:
    layer, (x,) = small(heads=3, T=5)
    other, _ = small(heads=3, T=5)
    features = torch.tensor([4, 5, 0, 1, 2, 3])  # heads 2, 0, 1
    with torch.no_grad():
        for linear in (other.q_proj, other.k_proj, other.v_proj):
            linear.weight.copy_(linear.weight[features])
            linear.bias.copy_(linear.bias[features])
        other.out_proj.weight.copy_(other.out_proj.weight[:, features])
    measured.close(other.attention(x), layer.attention(x)[:, [2, 0, 1]])
    measured.close(other(x), layer(x))


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    layer, (x, other) = small(T=6, S=6)
    changed = torch.cat([x[:, :4], other[:, 4:]], dim=1)
    measured.close(layer(changed, is_causal=True)[:, :4], layer(x, is_causal=True)[:, :4], tolerance=0)
    assert not torch.isclose(layer(changed, is_causal=True), layer(x, is_causal=True))[:, 4:].any()


def test_decoding_token_by_token_equals_one_causal_pass(measured: Measured) -> None:
    layer, (x,) = small(T=6)
    whole = layer(x, is_causal=True)
    steps = [layer(x[:, t : t + 1], x[:, : t + 1], is_causal=True) for t in range(6)]
    measured.close(torch.cat(steps, dim=1), whole)
    measured.close(layer(x[:, 2:], x, is_causal=True), whole[:, 2:])


def test_masking_a_token_equals_deleting_it(measured: Measured) -> None:
    layer, (x,) = small(T=6)
    padding = torch.tensor([True, True, True, True, False, False]).expand(2, 6)[:, None, None]
    measured.close(layer(x, mask=padding)[:, :4], layer(x[:, :4]))
    measured.close(layer(x, mask=padding, is_causal=True)[:, :4], layer(x[:, :4], is_causal=True))


def test_query_without_keys_gets_the_output_bias(measured: Measured) -> None:
    layer, (x,) = small(T=5)
    mask = torch.tensor([True, True, False, True, True])[None, None, :, None].expand(1, 1, 5, 5)
    y, weights = layer(x, mask=mask), layer.attention(x, mask=mask)
    measured.close(weights[:, :, 2], torch.zeros_like(weights[:, :, 2]), tolerance=0)
    measured.close(y[:, 2], layer.out_proj.bias.expand(2, -1), tolerance=0)
    for output in (y, weights):
        gradients = torch.autograd.grad(output.square().sum(), (x, *layer.q_proj.parameters()))
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_one_head_without_projections_is_scaled_dot_product_attention(measured: Measured) -> None:
    _, (query, key, value) = small(T=4, S=5, V=5)
    layer = identity(heads=1, width=6)
    expected = F.scaled_dot_product_attention(query, key, value)
    measured.close(layer(query, key, value), expected)
    measured.gradients(layer(query, key, value), expected, of=(query, key, value))


def test_scores_are_divided_by_the_root_of_the_head_width(measured: Measured) -> None:
    _, (x,) = small(width=12, heads=3, T=5)
    parts = x.view(2, 5, 3, 4).transpose(1, 2)
    ratios = identity(heads=3, width=12).attention(x).log().diff(dim=-1) / (parts @ parts.mT).diff(dim=-1)
    measured.close(ratios, torch.full_like(ratios, 1 / math.sqrt(4)), tolerance=1e-8)


def test_a_token_that_sees_only_itself_passes_through_split_and_merge(measured: Measured) -> None:
    _, (x,) = small(width=12, T=5)
    alone = torch.eye(5, dtype=torch.bool)[None, None]
    outputs = torch.stack([identity(heads, width=12)(x, mask=alone) for heads in (1, 2, 3, 4, 6, 12)])
    measured.close(outputs, x.expand_as(outputs), tolerance=0)


def test_bias_of_the_keys_is_idle(measured: Measured) -> None:
    layer, (x,) = small(T=5)
    before = layer(x)
    gradient = torch.autograd.grad(before.square().sum(), layer.k_proj.bias)[0]
    measured.value("max |∇b_K|", gradient.abs().max().item(), below=1e-10)
    nn.init.normal_(layer.k_proj.bias)
    measured.close(layer(x), before)


def test_parameters_do_not_depend_on_the_number_of_heads(measured: Measured) -> None:
    for width, expected in ((512, 1_050_624), (8, 288)):
        for heads in (1, 4, 8):
            layer = MultiHeadAttention(width, heads)
            assert sum(p.numel() for p in layer.parameters()) == expected
        measured.count(sum(p.numel() for p in public(layer.double()).parameters()), expected)


def test_dropout_acts_in_training_only() -> None:
    layer, (x,) = example()
    layer.dropout = 0.5
    assert torch.equal(layer(x), layer(x))
    assert not torch.equal(layer.train()(x), layer(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((65, 4), "embed_dim 65 must be divisible by num_heads 4"),
        ((0, 4), "embed_dim 0"),
        ((64, 0), "num_heads 0"),
        ((64, 4, 1.0), "dropout 1.0"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(*arguments)


@pytest.mark.parametrize("shape", [(10,), (2, 10), (10, 10), (4, 10, 10), (2, 3, 10, 10), (4, 1, 1, 10)])
def test_refuses_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    layer, (x,) = example()
    for call in (layer, layer.attention):
        with pytest.raises(
            ValueError, match=r"passed as mask\[None, None\], padding .* as padding\[:, None, None\]"
        ):
            call(x, mask=torch.ones(shape, dtype=torch.bool))


def test_refuses_masks_that_are_not_bool() -> None:
    layer, (x,) = example()
    for call in (layer, layer.attention):
        with pytest.raises(TypeError, match="True = may be attended"):
            call(x, mask=torch.zeros(1, 1, 10, 10))


def test_refuses_a_padding_mask_as_one_for_pairs_though_it_is_as_large() -> None:
    layer, (x,) = example(B=7, T=7)
    padding = torch.arange(7) < torch.arange(1, 8)[:, None]
    for call in (layer, layer.attention):
        with pytest.raises(ValueError, match=r"mask \(7, 7\) must have four dimensions"):
            call(x, mask=padding)


def test_refuses_values_of_another_length_than_the_keys() -> None:
    layer, (x,) = example()
    for value in (x[:, 1:], x[:1], x[0]):
        with pytest.raises(ValueError, match=r"must be \(B, S, E\) with B and S of key \(2, 10, 64\)"):
            layer(x, x, value)


def test_refuses_queries_and_keys_that_would_broadcast() -> None:
    layer, (x,) = example()
    for query, key in ((x[0], None), (x[:1], x), (x, x[:1]), (x, x[0])):
        for call in (layer, layer.attention):
            with pytest.raises(ValueError, match=r"\(B, T, E\) and \(B, S, E\) with the same B"):
                call(query, key)


def test_refuses_a_number_of_heads_that_is_no_whole_number() -> None:
    with pytest.raises(TypeError, match="integer"):
        MultiHeadAttention(64, 4.0)


def test_second_derivatives_and_forward_mode_work_in_the_math_kernel() -> None:
    layer, (x,) = example()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        torch.func.jvp(layer, (x,), (torch.ones_like(x),))
        slope = torch.autograd.grad(layer(x.requires_grad_()).square().sum(), x, create_graph=True)[0]
        assert torch.autograd.grad(slope.square().sum(), x)[0].isfinite().all()
