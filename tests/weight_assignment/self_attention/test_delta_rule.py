"""Proofs for the delta rule."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.qwen3_next import modeling_qwen3_next

from snippets.weight_assignment.self_attention.delta_rule import (
    DeltaRuleAttention,
    DeltaState,
    delta_rule,
    example,
)
from snippets.weight_assignment.self_attention.linear import linear_attention
from tests.in_float64 import in_float64
from tests.measure import Measured

qwen3_next: Any = in_float64(modeling_qwen3_next)
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 0, 0]]).bool()


def naive_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return out (B, T, H, e) and S (B, H, d, e): correct what the key reads, then read; padding leaves S."""
    (batch, t, heads, d), e = q.shape, v.shape[-1]
    out, states = [], []
    for b in range(batch):
        for h in range(heads):
            s = v.new_zeros(d, e) if state is None else state[b, h]
            for i in range(t):
                if mask is None or mask[b, i]:
                    key = k[b, i, h]
                    read = (key[:, None] * s).sum(0)
                    s = s + key[:, None] * (beta[b, i, h] * (v[b, i, h] - read))[None, :]
                out.append((q[b, i, h][:, None] * s).sum(0))
            states.append(s)
    return (
        torch.stack(out).reshape(batch, heads, t, e).transpose(1, 2),
        torch.stack(states).reshape(batch, heads, d, e),
    )


def naive_matrix(q: Tensor, k: Tensor, beta: Tensor) -> Tensor:
    """Return A_ij = q_i^T prod_{m = i..j+1} (I - beta_m k_m k_m^T) k_j beta_j, pair by pair: (B, H, T, T)."""
    batch, t, heads, _ = q.shape
    out = []
    for b in range(batch):
        for h in range(heads):
            for i in range(t):
                for j in range(t):
                    x = k[b, j, h] * beta[b, j, h]
                    for m in range(j + 1, i + 1):
                        x = x - beta[b, m, h] * k[b, m, h] * (k[b, m, h] * x).sum()
                    out.append((q[b, i, h] * x).sum() if j <= i else x.sum() * 0)
    return torch.stack(out).reshape(batch, heads, t, t)


def naive(layer: DeltaRuleAttention, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the output (B, T, E) and the memory."""
    q, k, v, beta = projected(layer, x)
    read, s = naive_delta(q, k, v, beta, mask)
    read = read * layer.norm.weight / torch.sqrt((read * read).mean(-1, keepdim=True) + 1e-5)
    return torch.einsum("bti,oi->bto", read.flatten(2), layer.out_proj.weight), s


def projected(layer: DeltaRuleAttention, x: Tensor) -> tuple[Tensor, ...]:
    """Return q, k, v (B, T, heads, d) and beta (B, T, heads) of a layer, by its formulas."""
    q, k, v, beta = (
        torch.einsum("bti,oi->bto", x, part.weight).unflatten(2, (layer.num_heads, -1))
        for part in (layer.q_proj, layer.k_proj, layer.v_proj, layer.beta_proj)
    )
    q, k = (t / (1 + torch.exp(-t)) for t in (q, k))
    q, k = (t / torch.sqrt((t * t).sum(-1, keepdim=True) + 1e-6) for t in (q, k))
    beta = (2 if layer.allow_neg_eigval else 1) / (1 + torch.exp(-beta[..., 0]))
    return q / q.shape[-1] ** 0.5, k, v, beta


def small(doubled: bool = False, chunk_size: int = 3) -> tuple[DeltaRuleAttention, Tensor]:
    """A layer with large random weights, and seven tokens."""
    torch.manual_seed(1)
    layer = DeltaRuleAttention(12, 3, doubled, chunk_size).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer, torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)


def inputs(T: int = 11, d: int = 4, e: int = 3) -> tuple[Tensor, ...]:
    """Queries, keys of length one, values, beta from 0 to 2 and a state, of three heads, in float64."""
    torch.manual_seed(2)
    q, k = torch.randn(2, 2, T, 3, d, dtype=torch.float64)
    v, state = torch.randn(2, T, 3, e, dtype=torch.float64), torch.randn(2, 3, d, e, dtype=torch.float64)
    beta = 2 * torch.rand(2, T, 3, dtype=torch.float64)
    return tuple(t.requires_grad_() for t in (q, F.normalize(k, dim=-1).detach(), v, beta, state))


def pairs(n: int, draws: int, e: int = 16) -> tuple[Tensor, Tensor]:
    """Keys of length one in random directions of 16 dimensions, and values: (draws, n, 1, width) each."""
    torch.manual_seed(0)
    k = F.normalize(torch.randn(draws, n, 1, 16, dtype=torch.float64), dim=-1)
    return k, torch.randn(draws, n, 1, e, dtype=torch.float64)


def right_angles(n: int, width: int = 16) -> Tensor:
    """So many keys at right angles: (1, n, 1, width)."""
    torch.manual_seed(0)
    frame: Tensor = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0]
    return frame[None, :n, None]


def full(k: Tensor, beta: float = 1.0) -> Tensor:
    """The same beta for each key."""
    return torch.full(k.shape[:3], beta, dtype=k.dtype)


@pytest.mark.parametrize("mask", [None, MASK], ids=["tokens", "padding"])
@pytest.mark.parametrize("doubled", [False, True], ids=["beta", "doubled"])
@pytest.mark.parametrize("chunk_size", [1, 3, 5, 64])
def test_equals_naive_reference(
    measured: Measured, chunk_size: int, doubled: bool, mask: Tensor | None
) -> None:
    layer, x = small(doubled, chunk_size)
    expected, s = naive(layer, x, mask)
    y, state = layer.step(x, mask=mask)
    kept = torch.ones(2, 7, dtype=torch.bool) if mask is None else mask
    measured.close(y[kept], expected[kept])
    measured.close(state.memory, s)
    ends = [
        torch.cat([ys[kept].flatten(), memory.flatten()]) for ys, memory in ((y, state.memory), (expected, s))
    ]
    measured.gradients(ends[0], ends[1], of=(x, *layer.parameters()))


@pytest.mark.parametrize("chunk_size", [1, 4, 11, 64])
def test_the_rule_equals_its_naive_reference(measured: Measured, chunk_size: int) -> None:
    """Eleven tokens, values narrower than keys, from a state that is not empty."""
    q, k, v, beta, state = inputs()
    out, last = delta_rule(q, k, v, beta, state, chunk_size)
    expected, s = naive_delta(q, k, v, beta, state=state)
    measured.close(out, expected)
    measured.close(last, s)
    ends = (torch.cat([out.flatten(), last.flatten()]), torch.cat([expected.flatten(), s.flatten()]))
    measured.gradients(*ends, of=(q, k, v, beta, state))


@pytest.mark.parametrize("doubled", [False, True], ids=["beta", "doubled"])
def test_chunks_equal_weights_times_values(measured: Measured, doubled: bool) -> None:
    """What goes into the norm is the T x T matrix times the values."""
    layer, x = small(doubled)
    read = []
    layer.norm.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    layer(x)
    v = layer.v_proj(x).unflatten(2, (3, -1))
    expected = torch.einsum("bhts,bshd->bthd", layer.attention(x), v)
    measured.close(read[0], expected)
    measured.gradients(read[0], expected, of=(x, layer.k_proj.weight, layer.beta_proj.weight))


@pytest.mark.parametrize("doubled", [False, True], ids=["beta", "doubled"])
def test_weights_are_products_of_all_later_writes(measured: Measured, doubled: bool) -> None:
    layer, x = small(doubled)
    q, k, _, beta = projected(layer, x)
    measured.close(layer.attention(x), naive_matrix(q, k, beta))


def test_a_write_is_one_step_of_gradient_descent(measured: Measured) -> None:
    """On |S^T k - v|^2 / 2 with step beta; linear attention takes one on -(S^T k) · v with step one."""
    _, k, v, beta, state = (t[:1, :1] if t.dim() == 4 and t.shape[1] == 11 else t[:1] for t in inputs())
    beta = beta[:, :1]
    read = torch.einsum("bhde,bhd->bhe", state, k[:, 0])
    (slope,) = torch.autograd.grad((read - v[:, 0]).square().sum() / 2, state, retain_graph=True)
    _, written = delta_rule(k, k, v, beta, state)
    measured.close(written, state - beta[:, 0, :, None, None] * slope)
    (slope,) = torch.autograd.grad(-(read * v[:, 0]).sum(), state)
    _, added = linear_attention(k, k, v, state)
    measured.close(added, state - slope)


def test_equals_transformers_with_gates_of_zero(measured: Measured) -> None:
    q, k, v, beta, state = inputs(T=70)
    expected, last = qwen3_next.torch_chunk_gated_delta_rule(
        q, k, v, torch.zeros_like(beta), beta, initial_state=state, output_final_state=True
    )
    out, s = delta_rule(q * q.shape[-1] ** -0.5, k, v, beta, state)
    measured.close(out, expected)
    measured.close(s, last)
    measured.gradients(out, expected, of=(q, k, v, beta, state))


def test_right_after_a_write_the_key_reads_its_value(measured: Measured) -> None:
    _, k, v, _, state = inputs()
    out, _ = delta_rule(k, k, v, torch.ones_like(v[..., 0]), state)
    measured.close(out, v)


def test_a_write_leaves_keys_at_right_angles_alone(measured: Measured) -> None:
    key = right_angles(16)
    torch.manual_seed(0)
    v, state = torch.randn(1, 1, 1, 3, dtype=torch.float64), torch.randn(1, 1, 16, 3, dtype=torch.float64)
    _, after = delta_rule(key[:, :1], key[:, :1], v, full(v), state)
    others = key[0, 1:, 0]
    measured.close(others @ after[0, 0], others @ state[0, 0])


def test_keys_at_right_angles_written_once_are_linear_attention(measured: Measured) -> None:
    """Written a second time, linear attention doubles all values, the delta rule changes nothing."""
    torch.manual_seed(3)
    k = right_angles(16)
    q, v = torch.randn_like(k), torch.randn(1, 16, 1, 5, dtype=torch.float64)
    out, once = delta_rule(q, k, v, full(k))
    summed, added = linear_attention(q, k, v)
    measured.close(out, summed)
    _, twice = delta_rule(q, k, v, full(k), once)
    measured.close(twice, once)
    _, doubled = linear_attention(q, k, v, added)
    measured.close(doubled, 2 * added)


@pytest.mark.parametrize("writes", [2, 4, 8])
def test_a_key_that_comes_back_is_overwritten(measured: Measured, writes: int) -> None:
    """Relative error against the last of so many values under each of eight keys."""
    k = right_angles(8).repeat(1, writes, 1, 1)
    torch.manual_seed(0)
    v = torch.randn(1, 8 * writes, 1, 64, dtype=torch.float64)
    last, keys = v[0, -8:, 0], k[0, :8, 0]
    _, corrected = delta_rule(k, k, v, full(k))
    measured.value("delta rule", relative(keys @ corrected[0, 0], last), at_most=1e-12)
    _, added = linear_attention(k, k, v)
    error = relative(keys @ added[0, 0], last)
    measured.value(f"sum of {writes}", error, equals=(writes - 1) ** 0.5, within=0.15)


def relative(read: Tensor, right: Tensor) -> float:
    return float((read - right).norm() / right.norm())


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5, 2.0])
def test_a_write_scales_what_stands_under_its_key(measured: Measured, beta: float) -> None:
    """I - beta k k^T has the eigenvalue 1 - beta once, and else 1."""
    k = right_angles(16)[:, 3:4]
    state = torch.eye(16, dtype=torch.float64)[None, None]
    _, after = delta_rule(k, k, torch.zeros_like(k), full(k, beta), state)
    values = torch.linalg.eigvalsh(after[0, 0])
    measured.value(f"beta {beta}", values[0].item(), equals=1 - beta, within=1e-12)
    measured.value("second", values[1].item(), equals=1, within=1e-12)


def test_keys_must_have_length_one(measured: Measured) -> None:
    """Keys of length 8 on average, as normal numbers have in 64 dimensions: in float32 nothing is left."""
    torch.manual_seed(0)
    k, v = torch.randn(2, 1, 100, 1, 64)
    _, long = delta_rule(k, k, v, full(k), chunk_size=1)
    assert not long.isfinite().all()
    ten, unit = (
        delta_rule(keys, keys, v[:, : keys.shape[1]], full(keys))[1]
        for keys in (k[:, :10], F.normalize(k, dim=-1))
    )
    measured.value("largest number after 10 tokens", ten.abs().max().item(), above=1e5)
    measured.value("largest after 100, keys of length one", unit.abs().max().item(), below=5)


def test_the_limit_is_two_over_the_square_of_the_length(measured: Measured) -> None:
    """The same key 200 times, with the value zero: each write multiplies the memory by 1 - beta |k|^2."""
    for product, bound in ((1.99, {"below": 0.14}), (2.01, {"above": 7.0})):
        k = torch.full((1, 200, 1, 1), 2.0, dtype=torch.float64)
        _, s = delta_rule(k, k, torch.zeros_like(k), full(k, product / 4), torch.ones(1, 1, 1, 1).double())
        measured.value(f"beta |k|² = {product}", s.abs().item(), **bound)


@pytest.mark.parametrize("cups", [3, 5, 8])
def test_swaps_are_followed_without_error(measured: Measured, cups: int) -> None:
    """A ball in each cup, 1000 swaps: the key (e_i - e_j) / sqrt(2) with value zero and beta 2 is a swap."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.stack([torch.randperm(cups, generator=generator)[:2] for _ in range(1000)])
    eye = torch.eye(cups, dtype=torch.float64)
    k = ((eye[chosen[:, 0]] - eye[chosen[:, 1]]) / 2**0.5)[None, :, None]
    balls = list(range(cups))
    for i, j in chosen.tolist():
        balls[i], balls[j] = balls[j], balls[i]
    _, s = delta_rule(k, k, torch.zeros_like(k), full(k, 2.0), eye[None, None])
    measured.close(s[0, 0], eye[balls])
    _, weak = delta_rule(k, k, torch.zeros_like(k), full(k, 1.9), eye[None, None])
    measured.value("with beta 1.9, max |Δ|", (weak[0, 0] - eye[balls]).abs().max().item(), above=0.6)


def test_parity_of_ten_thousand_bits(measured: Measured) -> None:
    """One number: beta 2 turns its sign, beta 0 leaves it. No beta up to one turns a sign."""
    bits = torch.randint(2, (1, 10000, 1), generator=torch.Generator().manual_seed(0)).double()
    one, start = torch.ones(1, 10000, 1, 1).double(), torch.ones(1, 1, 1, 1).double()
    out, _ = delta_rule(one, one, 0 * one, 2 * bits, start)
    measured.close(out[..., 0], 1 - 2 * (bits.cumsum(dim=1) % 2), tolerance=0)
    positive, _ = delta_rule(one, one, 0 * one, bits, start)
    measured.value("smallest with beta up to 1", positive.min().item(), at_least=0)


@pytest.mark.parametrize("n", [8, 16, 32])
def test_pairs_written_once_are_not_found_more_often(measured: Measured, n: int) -> None:
    """Keys that overlap, in 16 dimensions: the error is smaller than that of a sum, fewer are nearest."""
    k, v = pairs(n, draws=200)
    _, corrected = delta_rule(k, k, v, full(k))
    _, added = linear_attention(k, k, v)
    k, v = k[:, :, 0], v[:, :, 0]
    share, error = {}, {}
    for name, memory in (("delta", corrected[:, 0]), ("sum", added[:, 0])):
        read = k @ memory
        share[name] = (torch.cdist(read, v).argmin(dim=2) == torch.arange(n)).double().mean().item()
        error[name] = relative(read, v)
    measured.value(f"found of {n}, sum minus delta rule", share["sum"] - share["delta"], above=0.05)
    measured.value(f"error of {n}, delta rule ÷ sum", error["delta"] / error["sum"], below=0.85)


def test_only_the_newest_pair_is_exact(measured: Measured) -> None:
    """32 pairs written once: relative error by how many came after."""
    k, v = pairs(32, draws=200)
    _, s = delta_rule(k, k, v, full(k))
    error = ((k[:, :, 0] @ s[:, 0] - v[:, :, 0]).norm(dim=2) / v[:, :, 0].norm(dim=2)).mean(dim=0).flip(0)
    measured.value("newest", error[0].item(), at_most=1e-12)
    for age, about in ((1, 0.27), (4, 0.62), (16, 1.1), (31, 1.26)):
        measured.value(f"{age} later", error[age].item(), equals=about, within=0.06)


def test_many_passes_reach_least_squares(measured: Measured) -> None:
    """Eight pairs in 16 dimensions; what one pass leaves, and a hundred."""
    k, v = pairs(8, draws=20)
    for passes, bound in ((1, {"above": 0.4}), (100, {"below": 0.01})):
        again = k.repeat(1, passes, 1, 1)
        _, s = delta_rule(again, again, v.repeat(1, passes, 1, 1), full(again))
        measured.value(f"error after {passes}", relative(k[:, :, 0] @ s[:, 0], v[:, :, 0]), **bound)


def test_the_memory_stays_bounded(measured: Measured) -> None:
    """Norm after 2000 random pairs of length one, over that after 200: that of a sum grows by sqrt(10)."""
    k, v = pairs(2000, draws=8)
    v = F.normalize(v, dim=-1)
    norms = []
    for n in (200, 2000):
        part = k[:, :n], v[:, :n]
        _, corrected = delta_rule(part[0], *part, full(part[0]))
        _, added = linear_attention(part[0], *part)
        norms.append((corrected.norm(), added.norm()))
    measured.value("delta rule", (norms[1][0] / norms[0][0]).item(), equals=1, within=0.1)
    measured.value("sum", (norms[1][1] / norms[0][1]).item(), equals=10**0.5, within=0.3)


def test_the_order_of_earlier_tokens_matters(measured: Measured) -> None:
    q, k, v, beta, _ = inputs()
    order = torch.tensor([7, 2, 9, 0, 5, 1, 8, 3, 6, 4, 10])
    shuffled, _ = delta_rule(q[:, order], k[:, order], v[:, order], beta[:, order])
    change = shuffled[:, -1] - delta_rule(q, k, v, beta)[0][:, -1]
    measured.value("max |Δ| of the last output", change.abs().max().item(), above=0.5)


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    layer, x = small()
    changed = torch.cat([x[:, :4], torch.randn_like(x[:, 4:])], dim=1)
    measured.close(layer(changed)[:, :4], layer(x)[:, :4], tolerance=0)
    assert not torch.isclose(layer(changed), layer(x))[:, 4:].any()


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        (1, (2, 5, 3, 6), r"^q \(2, 5, 3, 4\) and k \(2, 5, 3, 6\) must be"),
        (2, (2, 6, 3, 7), r"^v \(2, 6, 3, 7\) must be \(B, T, H, e\) = "),
        (3, (2, 3, 5), r"^beta \(2, 3, 5\) must be \(B, T, H\) = \(2, 5, 3\)"),
        (4, (1, 3, 4, 7), r"^state \(1, 3, 4, 7\) of torch.float32 must be"),
    ],
)
def test_the_rule_refuses_what_does_not_fit(place: int, shape: tuple[int, ...], message: str) -> None:
    shapes = [(2, 5, 3, 4), (2, 5, 3, 4), (2, 5, 3, 7), (2, 5, 3), (2, 3, 4, 7)]
    q, k, v, beta, state = (torch.rand(shape if n == place else right) for n, right in enumerate(shapes))
    with pytest.raises(ValueError, match=message):
        delta_rule(q, k, v, beta, state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((65, 4), "embed_dim 65 must be divisible by num_heads 4"),
        ((64, 0), "num_heads 0 and chunk_size 64 must be at least 1"),
        ((64, 4, False, 0), "chunk_size 0 must be at least 1"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeltaRuleAttention(*arguments)


def test_refuses_chunks_below_one_and_states_of_others() -> None:
    q, k, v, beta, _ = inputs()
    with pytest.raises(ValueError, match="chunk_size 0 must be at least 1"):
        delta_rule(q, k, v, beta, chunk_size=0)
    layer, (x,) = example()
    _, state = layer.step(x)
    with pytest.raises(ValueError, match=r"^state tuple must be a DeltaState"):
        layer.step(x, tuple(state))  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"^state \(2, 4, 6, 6\) of torch.float64 must be .* of torch.float32"
    ):
        layer.step(x, DeltaState(state.memory.double()))
