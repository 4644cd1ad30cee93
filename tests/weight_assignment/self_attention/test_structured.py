"""Proofs of the structured self-attentive embedding."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.weight_assignment.self_attention.structured import (
    StructuredSelfAttention,
    example,
    penalty,
)
from snippets.weight_assignment.soft.blstm_attention import BLSTMAttention
from tests.measure import Measured


def softmax(e: list[Tensor], ok: list[bool]) -> list[Tensor]:
    """exp / sum over the allowed entries (shifted by their maximum), 0 elsewhere and if none is allowed."""
    zero = e[0].new_zeros(())
    top = max((float(x.detach()) for x, k in zip(e, ok, strict=True) if k), default=0.0)
    exps = [torch.exp(x - top) if k else zero for x, k in zip(e, ok, strict=True)]
    total = sum(exps, zero)
    return [x / total if k else zero for x, k in zip(exps, ok, strict=True)]


def naive_structured(
    H: Tensor,
    W_s1: Tensor,
    W_s2: Tensor,
    b_1: Tensor | None = None,
    b_2: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """H (B,T,2u), W_s1 (da,2u), W_s2 (r,da), b_1 (da,), b_2 (r,), mask (B,T), True = a real token.

    Returns A (B,r,T), M (B,r,2u) and the penalty per sample (B,) (a sample with no token: A = M = 0, P = r).
    """
    (B, T, _), r = H.shape, W_s2.shape[0]
    As, Ms = [], []
    for b in range(B):
        ok = [True] * T if mask is None else mask[b].tolist()
        hidden = []
        for t in range(T):
            inner = W_s1 @ H[b, t]
            hidden.append(torch.tanh(inner if b_1 is None else inner + b_1))
        hops, reads = [], []
        for n in range(r):
            e = [(W_s2[n] * hidden[t]).sum() for t in range(T)]
            a = softmax(e if b_2 is None else [x + b_2[n] for x in e], ok)
            hops.append(torch.stack(a))
            reads.append(sum((a[t] * H[b, t] for t in range(T)), torch.zeros_like(H[b, 0])))
        As.append(torch.stack(hops))
        Ms.append(torch.stack(reads))
    A = torch.stack(As)
    return A, torch.stack(Ms), naive_penalty(A)


def naive_penalty(A: Tensor) -> Tensor:
    """||A A^T - I_r||_F^2 for A (B,r,T): sum over hop pairs of (a_m . a_n - [m = n])^2, squared, (B,)."""
    out = []
    for b in range(A.shape[0]):
        total = A.new_zeros(())
        for m in range(A.shape[1]):
            for n in range(A.shape[1]):
                total = total + ((A[b, m] * A[b, n]).sum() - (1.0 if m == n else 0.0)) ** 2
        out.append(total)
    return torch.stack(out)


def naive_penalty_tokens(A: Tensor) -> Tensor:
    """||A^T A - I_T||_F^2, the other order: exactly naive_penalty + (T - r), so the gradient is the same."""
    return naive_penalty(A.transpose(1, 2))


PADDED = torch.tensor([[True] * 5, [True, False, True, True, False], [False] * 5])
"""Three sentences of at most five tokens; the last one is empty."""


def small(hops: int = 3, bias: bool = False, hidden: int = 4) -> tuple[StructuredSelfAttention, Tensor]:
    """A block with large random weights, and the states of three sentences."""
    torch.manual_seed(1)
    block = StructuredSelfAttention(6, hidden, hops, bias).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.7)
    return block, torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)


def layers(block: StructuredSelfAttention) -> tuple[Tensor, ...]:
    return block.W_s1.weight, block.W_s2.weight, block.W_s1.bias, block.W_s2.bias


def one_hot(*tokens: int, length: int = 6) -> Tensor:
    """Hops that read one token each: (1, r, length)."""
    return F.one_hot(torch.tensor([tokens]), length).double()


@pytest.mark.parametrize("mask", [None, PADDED], ids=["all", "padded"])
@pytest.mark.parametrize(("hops", "bias"), [(1, False), (3, False), (3, True)])
def test_equals_naive_reference(measured: Measured, hops: int, bias: bool, mask: Tensor | None) -> None:
    block, x = small(hops, bias)
    weights, y, _ = naive_structured(x, *layers(block), mask=mask)
    measured.close(block.attention(x, mask), weights)
    measured.close(block(x, mask), y)
    measured.gradients(block(x, mask), y, of=(x, *block.parameters()))


@pytest.mark.parametrize("mask", [None, PADDED], ids=["all", "padded"])
def test_penalty_equals_naive_reference(measured: Measured, mask: Tensor | None) -> None:
    block, x = small()
    actual, (_, _, expected) = (
        penalty(block.attention(x, mask)),
        naive_structured(x, *layers(block), mask=mask),
    )
    measured.close(actual, expected)
    measured.gradients(actual, expected, of=(x, *block.parameters()))


def test_equals_torch_attention_with_constant_queries(measured: Measured) -> None:
    block, x = small()
    key = (x @ block.W_s1.weight.T).tanh()
    query = block.W_s2.weight.expand(3, -1, -1)
    for mask in (None, PADDED):
        allowed = None if mask is None else mask[:, None]
        public = F.scaled_dot_product_attention(query, key, x, allowed, scale=1.0)
        measured.close(block(x, mask), public)
        measured.gradients(block(x, mask), public, of=(x, *block.parameters()))


def test_one_hop_with_identity_has_the_weights_of_blstm_attention(measured: Measured) -> None:
    torch.manual_seed(1)
    lstm, x = BLSTMAttention(5, 6).double(), torch.randn(3, 7, 5, dtype=torch.float64)
    backward = lstm.backward_lstm(x.flip(1))[0].flip(1)
    states = lstm.forward_lstm(x)[0] + backward
    block = StructuredSelfAttention(6, 6, hops=1).double()
    nn.init.eye_(block.W_s1.weight)
    block.W_s2.load_state_dict(lstm.score.state_dict())
    measured.close(block.attention(states)[:, 0], lstm.attention(x))
    measured.close(block(states)[:, 0].tanh(), lstm(x))


def test_each_hop_is_a_distribution_over_the_tokens(measured: Measured) -> None:
    block, x = small()
    weights = block.attention(x, PADDED)
    measured.close(weights.sum(dim=2)[:2], torch.ones(2, 3, dtype=torch.float64))
    assert torch.equal(weights > 0, PADDED[:, None].expand(3, 3, 5))
    assert (weights.sum(dim=1) - 1).abs().max() > 0.1  # not over the hops


def test_permuted_queries_permute_the_hops(measured: Measured) -> None:
    (block, x), (other, _) = small(), small()
    with torch.no_grad():
        other.W_s2.weight.copy_(block.W_s2.weight[[2, 0, 1]])
    measured.close(other(x), block(x)[:, [2, 0, 1]])
    measured.close(penalty(other.attention(x)), penalty(block.attention(x)))


def test_permuted_states_leave_the_embedding(measured: Measured) -> None:
    block, x = small()
    order = torch.tensor([3, 0, 4, 2, 1])
    measured.close(block(x[:, order]), block(x))
    measured.close(block.attention(x[:, order]), block.attention(x)[..., order])


def test_masking_a_token_equals_deleting_it(measured: Measured) -> None:
    block, x = small()
    measured.close(block(x, PADDED)[1], block(x[1:2, PADDED[1]])[0])
    for padding in (9.0, torch.inf, torch.nan):
        padded = x.masked_fill(~PADDED[..., None], padding)
        measured.close(block.attention(padded, PADDED), block.attention(x, PADDED), tolerance=0)
        measured.close(block(padded, PADDED), block(x, PADDED), tolerance=0)
        measured.gradients(block(padded, PADDED), block(x, PADDED), of=(x, *block.parameters()), tolerance=0)


def test_empty_sentence_gives_zeros(measured: Measured) -> None:
    block, x = small()
    weights, y = block.attention(x, PADDED), block(x, PADDED)
    measured.close(y[2], torch.zeros_like(y[2]), tolerance=0)
    measured.close(weights[2], torch.zeros_like(weights[2]), tolerance=0)
    for output in (y, penalty(weights)):
        gradients = torch.autograd.grad(output.square().sum(), (x, *block.parameters()), retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_penalty_is_zero_for_hops_on_different_tokens(measured: Measured) -> None:
    measured.close(penalty(one_hot(4, 0, 2)), torch.zeros(1, dtype=torch.float64), tolerance=0)
    block, x = small()
    measured.value("least of random hops", penalty(block.attention(x)).min().item(), above=0.1)


def test_penalty_of_hops_on_one_token(measured: Measured) -> None:
    for hops, expected in ((2, 2), (3, 6), (30, 870)):
        measured.count(int(penalty(one_hot(*[4] * hops)).item()), expected)


def test_penalty_of_even_hops(measured: Measured) -> None:
    for hops, length in ((2, 6), (3, 10), (30, 25)):
        even = torch.full((1, hops, length), 1 / length, dtype=torch.float64)
        expected = hops * (1 / length - 1) ** 2 + hops * (hops - 1) / length**2
        measured.close(penalty(even), torch.tensor([expected], dtype=torch.float64))
    even = torch.full((1, 2, 6), 1 / 6, dtype=torch.float64)
    measured.value("r = 2, T = 6", penalty(even).item(), equals=13 / 9, within=1e-12)


def test_penalty_of_hops_on_separate_phrases(measured: Measured) -> None:
    phrases = one_hot(0, 0, 0, 1, 1, 1, length=2).mT / 3  # two hops, each even over three tokens of its own
    measured.value("r = 2, T = 6", penalty(phrases).item(), equals=8 / 9, within=1e-12)


def test_released_penalty_differs_by_a_constant_and_a_factor(measured: Measured) -> None:
    block, x = small()
    weights = block.attention(x)  # (B, r, T) = (3, 3, 5)
    over_tokens = naive_penalty_tokens(weights)
    measured.close(over_tokens, penalty(weights) + 5 - 3)
    measured.gradients(over_tokens, penalty(weights), of=(x, *block.parameters()))
    annotations = weights.mT  # the released code keeps (B, T, r) and takes a mean over batch and pairs
    released = (annotations @ annotations.mT - torch.eye(5)).square().mean()
    measured.close(released, (penalty(weights).mean() + 5 - 3) / 5**2)


def test_bias_of_the_second_layer_is_idle(measured: Measured) -> None:
    block, x = small(bias=True)
    before = block(x)
    gradient = torch.autograd.grad(before.square().sum(), block.W_s2.bias)[0]
    measured.value("max |∇b_2|", gradient.abs().max().item(), below=1e-10)
    nn.init.normal_(block.W_s2.bias)
    measured.close(block(x), before)


def test_parameters_at_the_published_sizes(measured: Measured) -> None:
    for bias, expected in ((False, 220_500), (True, 220_880)):
        block = StructuredSelfAttention(2 * 300, 350, 30, bias)
        measured.count(sum(p.numel() for p in block.parameters()), expected)


@pytest.mark.parametrize("arguments", [(0, 4, 3), (6, 0, 3), (6, 4, 0)])
def test_refuses_impossible_arguments(arguments: tuple[int, int, int]) -> None:
    width, hidden, hops = arguments
    message = f"embed_dim {width}, attention_dim {hidden} and hops {hops} must be at least 1"
    with pytest.raises(ValueError, match=message):
        StructuredSelfAttention(*arguments)


@pytest.mark.parametrize("shape", [(9,), (2, 8), (1, 9), (2, 1, 9)])
def test_refuses_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    block, (x, _) = example()
    for call in (block, block.attention):
        with pytest.raises(ValueError, match=r"must be \(B, T\) = \(2, 9\)"):
            call(x, torch.ones(shape, dtype=torch.bool))


def test_refuses_masks_that_are_not_bool() -> None:
    block, (x, mask) = example()
    for call in (block, block.attention):
        with pytest.raises(TypeError, match="mask must be bool, True = may be attended"):
            call(x, mask.float())


def test_refuses_one_sentence_without_a_batch() -> None:
    block, (x, _) = example()
    for call in (block, block.attention):
        with pytest.raises(ValueError, match=r"x \(9, 12\) must be \(B, T, D\)"):
            call(x[0])
