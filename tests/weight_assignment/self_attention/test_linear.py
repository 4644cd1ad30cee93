"""Proofs of linear attention."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snippets.weight_assignment.self_attention.linear import (
    LinearAttention,
    LinearState,
    example,
    linear_attention,
)
from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from tests.measure import Measured

HEADS, WIDTH = 3, 4


def naive_elu_plus_one(x: Tensor) -> Tensor:
    """Return x + 1 where x is positive and exp(x) elsewhere."""
    return torch.where(x > 0, x + 1, torch.exp(torch.clamp(x, max=0.0)))


def naive_gather(rows: list[list[list[Tensor]]]) -> Tensor:
    """Return (B, T, H, ...) from lists over batch, head and time."""
    return torch.stack([torch.stack([torch.stack(r) for r in h]) for h in rows]).transpose(1, 2)


def naive_linear(
    q: Tensor, k: Tensor, v: Tensor, normalise: bool, eps: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return out (B, T, H, e), S (B, H, d, e) and z (B, H, d), for features q and k."""
    (batch, t, heads, d), e = q.shape, v.shape[-1]
    out: list[list[list[Tensor]]] = []
    all_s, all_z = [], []
    for b in range(batch):
        out.append([])
        for h in range(heads):
            s, z = v.new_zeros(d, e), v.new_zeros(d)
            rows = []
            for i in range(t):
                s = s + k[b, i, h][:, None] * v[b, i, h][None, :]
                z = z + k[b, i, h]
                row = (q[b, i, h][:, None] * s).sum(0)
                rows.append(row / ((q[b, i, h] * z).sum() + eps) if normalise else row)
            out[-1].append(rows)
            all_s.append(s)
            all_z.append(z)
    return (
        naive_gather(out),
        torch.stack(all_s).reshape(batch, heads, d, e),
        torch.stack(all_z).reshape(batch, heads, d),
    )


def naive_linear_matrix(q: Tensor, k: Tensor) -> Tensor:
    """Return the normalised weights (B, H, T, T) of features q and k, from sums over pairs of tokens."""
    batch, t, heads, _ = q.shape
    out = []
    for b in range(batch):
        for h in range(heads):
            for i in range(t):
                row = [(q[b, i, h] * k[b, j, h]).sum() * float(j <= i) for j in range(t)]
                a = torch.stack(row)
                out.append(a / a.sum())
    return torch.stack(out).reshape(batch, heads, t, t)


def small(chunk_size: int = 3, T: int = 8) -> tuple[LinearAttention, Tensor]:
    """A layer with large random weights, and tokens."""
    torch.manual_seed(1)
    layer = LinearAttention(HEADS * WIDTH, HEADS, chunk_size).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer, torch.randn(2, T, HEADS * WIDTH, dtype=torch.float64, requires_grad=True)


def heads(layer: LinearAttention, x: Tensor) -> list[Tensor]:
    """Queries, keys and values (B, T, H, d), before any feature map."""
    return [proj(x).unflatten(2, (HEADS, -1)) for proj in (layer.q_proj, layer.k_proj, layer.v_proj)]


def before_the_last_layer(layer: LinearAttention, x: Tensor) -> Tensor:
    """What `forward` hands to its output projection: (B, T, H, d)."""
    seen: list[Tensor] = []
    hook = layer.out_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    layer(x)
    hook.remove()
    return seen[0].unflatten(2, (HEADS, -1))


@pytest.mark.parametrize("chunk_size", [1, 3, 8, 64])
def test_equals_naive_reference(measured: Measured, chunk_size: int) -> None:
    """Also chunks that do not divide T."""
    layer, x = small(chunk_size)
    q, k, v = heads(layer, x)
    read, s, z = naive_linear(naive_elu_plus_one(q), naive_elu_plus_one(k), v, normalise=True)
    expected = layer.out_proj(read.flatten(2))
    y, state = layer.step(x)
    measured.close(y, expected)
    measured.gradients(y, expected, of=(x, *layer.parameters()))
    measured.close(state.memory, torch.cat([s, z[..., None]], dim=-1))


@pytest.mark.parametrize("chunk_size", [1, 3, 8, 64])
def test_the_rule_equals_its_naive_reference(measured: Measured, chunk_size: int) -> None:
    """Queries and keys as they are, values of another width, nothing is normalised."""
    torch.manual_seed(1)
    q, k = torch.randn(2, 2, 8, 3, 4, dtype=torch.float64).requires_grad_()
    v = torch.randn(2, 8, 3, 5, dtype=torch.float64, requires_grad=True)
    expected, s, _ = naive_linear(q, k, v, normalise=False)
    out, state = linear_attention(q, k, v, chunk_size=chunk_size)
    measured.close(out, expected)
    measured.gradients(out, expected, of=(q, k, v))
    measured.close(state, s)
    measured.gradients(state, s, of=(k, v))


def test_running_sum_equals_weights_times_values(measured: Measured) -> None:
    """The matrix that `forward` never makes."""
    layer, x = small()
    q, k, v = heads(layer, x)
    weights = layer.attention(x)
    measured.close(weights, naive_linear_matrix(naive_elu_plus_one(q), naive_elu_plus_one(k)))
    read = before_the_last_layer(layer, x)
    measured.close(read, torch.einsum("bhts,bshd->bthd", weights, v))
    measured.gradients(read, torch.einsum("bhts,bshd->bthd", weights, v), of=(x,))


def test_normaliser_is_one_more_value(measured: Measured) -> None:
    """The sum of the keys is what a value of ones leaves in the memory."""
    layer, x = small()
    q, k, v = heads(layer, x)
    q, k = naive_elu_plus_one(q), naive_elu_plus_one(k)
    ones, _ = linear_attention(q, k, torch.ones_like(v[..., :1]))
    out, _ = linear_attention(q, k, v)
    measured.close(before_the_last_layer(layer, x), out / ones)
    measured.close(layer.step(x)[1].memory[..., -1], k.sum(dim=1))


def test_outputs_are_means_of_values(measured: Measured) -> None:
    layer, x = small()
    weights, v = layer.attention(x), heads(layer, x)[2]
    measured.close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
    earlier = torch.ones(8, 8, dtype=torch.bool).tril()
    measured.value("smallest weight of a token so far", weights[..., earlier].min().item(), above=0)
    read = before_the_last_layer(layer, x)
    highest, lowest = v.cummax(dim=1).values, v.cummin(dim=1).values
    outside = torch.maximum(read - highest, lowest - read).max().item()
    measured.value("farthest beyond the values so far", outside, at_most=1e-12)


def test_earlier_tokens_have_no_order(measured: Measured) -> None:
    layer, x = small()
    shuffled = torch.cat([x[:, [4, 0, 6, 2, 5, 1, 3]], x[:, 7:]], dim=1)
    measured.close(layer(shuffled)[:, -1], layer(x)[:, -1])


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    layer, x = small()
    changed = torch.cat([x[:, :3], torch.randn_like(x[:, 3:])], dim=1)
    measured.close(layer(changed)[:, :3], layer(x)[:, :3], tolerance=0)
    assert not torch.isclose(layer(changed), layer(x))[:, 3:].any()


def test_what_later_tokens_read_of_earlier_ones_has_rank_d(measured: Measured) -> None:
    """The block of the last 20 tokens and the first 20, in heads of width 4."""
    layer, x = small(T=40)
    plain = MultiHeadAttention(HEADS * WIDTH, HEADS).double().eval()
    plain.load_state_dict(layer.state_dict())
    for name, weights, rank in (
        ("rank", layer.attention(x), WIDTH),
        ("rank of softmax", plain.attention(x, x, torch.ones(40, 40, dtype=torch.bool).tril()), 20),
    ):
        found = torch.linalg.matrix_rank(weights[..., 20:, :20], rtol=1e-10)
        measured.value(name, found.double().mean().item(), equals=rank)


def test_larger_queries_do_not_sharpen(measured: Measured) -> None:
    """Ten keys at right angles, and a query that is the first: its weight, for ever larger queries."""
    key = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64, generator=torch.manual_seed(0)))[0][:10]
    for name, scale in (("weight", 1.0), ("a thousandfold query", 1e3)):
        query, others = naive_elu_plus_one(scale * key[0]), naive_elu_plus_one(key)
        linear = others @ query / (others @ query).sum()
        measured.value(f"{name}, linear", linear[0].item(), above=0.1, below=0.15)
        softmax = (scale * key @ key[0] / 4).softmax(dim=0)
        limit = {"below": 0.15} if scale == 1 else {"at_least": 1.0}
        measured.value(f"{name}, softmax", softmax[0].item(), **limit)


def test_signed_keys_at_right_angles_are_read_without_error(measured: Measured) -> None:
    """With positive features nothing stands at right angles, and what is read is nearly the mean."""
    torch.manual_seed(0)
    key = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))[0][None, :, None]
    value = torch.randn(1, 16, 1, 5, dtype=torch.float64)
    asked, written = torch.cat([0 * key, key], dim=1), torch.cat([key, 0 * key], dim=1)
    out, _ = linear_attention(asked, written, torch.cat([value, 0 * value], dim=1))
    measured.close(out[:, 16:], value)
    again = [torch.cat([t, t], dim=1) for t in (key, value)]
    out, _ = linear_attention(again[0], *again)
    measured.close(out[:, 16:], 2 * value)  # a second write adds to the first
    k = naive_elu_plus_one(key[0, :, 0])
    weights = k @ k.T / (k @ k.T).sum(dim=1, keepdim=True)
    read, right = weights @ value[0, :, 0], value[0, :, 0]
    measured.value("relative error of elu + 1", ((read - right).norm() / right.norm()).item(), above=0.8)
    away = (read - right.mean(dim=0)).norm() / right.norm()
    measured.value("from the mean of all values", away.item(), below=0.1)


def test_small_features_are_not_lost(measured: Measured) -> None:
    """Queries and keys at -20 in float32: elu(x) + 1 is zero there, and so are the official weights."""
    layer, x = small()
    with torch.no_grad():
        for proj in (layer.q_proj, layer.k_proj):
            proj.bias -= 20
        single = LinearAttention(HEADS * WIDTH, HEADS, 3).eval()
        single.load_state_dict(layer.state_dict())
        q, k, v = heads(layer, x)
        measured.close(single(x.float()).double(), layer(x), tolerance=1e-5)
        largest = nn.functional.elu(q.float()).add(1).max().item()
        measured.value("largest elu(q) + 1 in float32", largest, below=1e-6)
        q, k = naive_elu_plus_one(q), naive_elu_plus_one(k)
        official, _, _ = naive_linear(q, k, v, normalise=True, eps=1e-6)
        measured.value("largest output if 1e-6 is added to the sum", official.abs().max().item(), below=1e-3)


def test_state_is_that_of_a_cache_of_few_tokens(measured: Measured) -> None:
    """With E = 64 and d = 16 H d (d + 1) numbers, those of a cache, 2 E per token, after 8.5 tokens."""
    layer = LinearAttention(64, 4)
    for length in (1, 100):
        kept = layer.step(torch.randn(1, length, 64))[1].memory.numel()
        measured.count(kept, 4 * 16 * 17)
        measured.value("tokens of a cache", kept / (2 * 64), equals=8.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4), "embed_dim 0, num_heads 4 and chunk_size 64 must be at least 1"),
        ((64, 4, 0), "chunk_size 0 must be at least 1"),
        ((65, 4), "embed_dim 65 must be divisible by num_heads 4"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearAttention(*arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": torch.randn(2, 5, 3, 6)}, r"q \(2, 5, 3, 4\) and k \(2, 5, 3, 6\) must be \(B, T, H, d\)"),
        ({"v": torch.randn(2, 6, 3, 7)}, r"v \(2, 6, 3, 7\) must be \(B, T, H, e\) = \(2, 5, 3, 'e'\)"),
        ({"chunk_size": 0}, "chunk_size 0 must be at least 1"),
        ({"state": torch.zeros(1, 3, 4, 7)}, r"state \(1, 3, 4, 7\) of torch.float32 must be"),
        ({"state": torch.zeros(2, 3, 4, 7).double()}, r"state \(2, 3, 4, 7\) of torch.float64 must be"),
    ],
)
def test_the_rule_refuses_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    q, k, v = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 7)
    with pytest.raises(ValueError, match=message):
        linear_attention(**{"q": q, "k": k, "v": v, **changes})


def test_refuses_a_state_of_another_layer() -> None:
    layer, (x,) = example()
    with pytest.raises(ValueError, match="state tuple must be a LinearState"):
        layer.step(x, (torch.zeros(2, 4, 6, 7),))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^state \(2, 4, 6, 6\) of torch.float32 must be"):
        layer.step(x, LinearState(torch.zeros(2, 4, 6, 6)))


def test_the_slope_of_the_features_at_zero_is_one() -> None:
    """Where the two pieces of elu(x) + 1 meet: a key of zero, in a layer of one head of width one."""
    layer, x = LinearAttention(1, 1).double(), torch.tensor([[[0.0], [1.0]]]).double()
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    for proj in (layer.k_proj, layer.v_proj, layer.out_proj):
        nn.init.ones_(proj.weight)
    x.requires_grad_()
    (found,) = torch.autograd.grad(layer(x)[0, 1, 0], x)
    # y = phi(1) · 1 / (phi(0) + phi(1)) with phi(0) = 1 and phi(1) = 2; in x_0: (1 · 1 · 3 - 2 · 1) / 9
    torch.testing.assert_close(found[0, 0, 0].item(), 1 / 9)
