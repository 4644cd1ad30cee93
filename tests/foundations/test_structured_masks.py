"""Proofs of masks that structure."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import (
    and_masks,
    blockwise_overlay,
    causal_mask_function,
    chunked_causal_mask_function,
    or_masks,
    packed_sequence_mask_function,
)

from snippets.foundations.structured_masks import (
    PatternAttention,
    block_diffusion,
    blocks,
    causal,
    chunks,
    documents,
    example,
    prefix,
    tree,
)
from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from tests.measure import Measured

T, SIZE = 12, 4
IDS = (0, 0, 0, 1, 2, 2, 2, 2, 2, 3, 3, 3)
PARENTS = (-1, 0, 0, 1, 1, 2, 4, 4, 4, -1, 9, 9)
Predicate = Callable[[int, int], bool]


def naive_documents(ids: Sequence[int]) -> Predicate:
    """Same document; a number below 0 is none."""
    return lambda i, j: ids[i] == ids[j] and ids[i] >= 0


def naive_prefix(length: int) -> Predicate:
    """The first `length` keys are seen by all, the others causally."""
    return lambda i, j: j < length or j <= i


def naive_chunks(size: int) -> Predicate:
    """Same chunk of `size` tokens."""
    return lambda i, j: i // size == j // size


def naive_blocks(size: int) -> Predicate:
    """Own block wholly and all earlier ones."""
    return lambda i, j: j // size <= i // size


def naive_block_diffusion(length: int, size: int) -> Predicate:
    """Tokens 0 to length - 1 are noisy, the others are their clean copies."""

    def allowed(i: int, j: int) -> bool:
        mine, other = i % length // size, j % length // size
        if j < length:  # a noisy key
            return i < length and mine == other
        return other < mine if i < length else other <= mine

    return allowed


def naive_tree(parents: Sequence[int]) -> Predicate:
    """j is i or one of its ancestors, the parent of a root being negative."""

    def allowed(i: int, j: int) -> bool:
        while i >= 0:
            if i == j:
                return True
            i = parents[i]
        return False

    return allowed


def earlier(i: int, j: int) -> bool:
    return j <= i


def both(first: Predicate, second: Predicate) -> Predicate:
    return lambda i, j: first(i, j) and second(i, j)


def numbers(*values: int) -> Tensor:
    return torch.tensor([values])


PADDED = (-1, -1, 0, 0, 0, 0, 1, 1, 1, 1, -1, -1)
PATTERNS: dict[str, tuple[Tensor, Predicate]] = {
    "causal": (causal(T), earlier),
    "documents": (documents(numbers(*IDS)), naive_documents(IDS)),
    "causal documents": (causal(T) & documents(numbers(*IDS)), both(earlier, naive_documents(IDS))),
    "padding": (causal(T) & documents(numbers(*PADDED)), both(earlier, naive_documents(PADDED))),
    "prefix": (prefix(torch.tensor([5]), T), naive_prefix(5)),
    "causal chunks": (causal(T) & chunks(T, SIZE), both(earlier, naive_chunks(SIZE))),
    "chunks that do not divide": (chunks(T, 5), naive_chunks(5)),
    "blocks": (blocks(T, SIZE), naive_blocks(SIZE)),
    "block diffusion": (block_diffusion(T // 2, 2), naive_block_diffusion(T // 2, 2)),
    "tree": (tree(numbers(*PARENTS)), naive_tree(PARENTS)),
}
each_pattern = pytest.mark.parametrize("pattern", PATTERNS)


def inputs(length: int = T) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    sizes = (5, 5, 3)
    query, key, value = (
        torch.randn(2, 2, length, width, dtype=torch.float64, requires_grad=True) for width in sizes
    )
    return query, key, value


def naive_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Predicate) -> tuple[Tensor, Tensor]:
    """Weights and output of softmax attention over the allowed keys, in loops."""
    (batch, heads, length, d) = q.shape
    weights, out = q.new_zeros(batch, heads, length, length), []
    for b, h, i in ((b, h, i) for b in range(batch) for h in range(heads) for i in range(length)):
        seen = [j for j in range(length) if allowed(i, j)]
        e = [torch.exp((q[b, h, i] * k[b, h, j]).sum() / d**0.5) for j in seen]
        row = [a / sum(e) for a in e]
        for a, j in zip(row, seen, strict=True):
            weights[b, h, i, j] = a
        out.append(
            sum((a * v[b, h, j] for a, j in zip(row, seen, strict=True)), torch.zeros_like(v[b, h, i]))
        )
    return weights, torch.stack(out).view(batch, heads, length, -1)


@each_pattern
def test_equals_naive_reference(measured: Measured, pattern: str) -> None:
    (mask, allowed), attend, tensors = PATTERNS[pattern], PatternAttention(), inputs()
    weights, y = naive_attention(*tensors, allowed)
    measured.close(attend.attention(*tensors, mask), weights)
    measured.close(attend(*tensors, mask), y)
    measured.gradients(attend(*tensors, mask), y, of=tensors)
    measured.gradients(attend.attention(*tensors, mask), weights, of=tensors[:2])


@each_pattern
def test_masks_equal_their_definition(measured: Measured, pattern: str) -> None:
    mask, allowed = PATTERNS[pattern]
    expected = torch.tensor([[allowed(i, j) for j in range(T)] for i in range(T)])
    assert mask.shape == (1, 1, T, T)
    measured.value("entries that differ", (mask[0, 0] != expected).sum().item(), equals=0)


def test_number_of_allowed_pairs(measured: Measured) -> None:
    triangle = sum(n * (n + 1) // 2 for n in (3, 1, 5, 3))
    measured.count(int(PATTERNS["causal documents"][0].sum()), triangle)
    measured.count(int(PATTERNS["prefix"][0].sum()), 5 * T + 7 * 8 // 2)
    measured.count(int(PATTERNS["causal chunks"][0].sum()), 3 * (4 * 5 // 2))
    measured.count(int(PATTERNS["blocks"][0].sum()), 4 * 4 * (3 * 4 // 2))
    n, size = T // 2, 2
    measured.count(int(PATTERNS["block diffusion"][0].sum()), n * (n + size))
    depths = [0, 1, 1, 2, 2, 2, 3, 3, 3, 0, 1, 1]
    measured.count(int(PATTERNS["tree"][0].sum()), sum(depths) + T)


def stack(x: Tensor, mask: Tensor) -> Tensor:
    """Two layers of self-attention with large random weights."""
    torch.manual_seed(2)
    for _ in range(2):
        layer = MultiHeadAttention(x.shape[-1], 2).double()
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.5)
        x = x + layer(x, mask=mask)
    return x


def text(length: int = T, samples: int = 2) -> Tensor:
    torch.manual_seed(3)
    return torch.randn(samples, length, 6, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("is_causal", [True, False])
def test_packed_documents_equal_one_by_one(measured: Measured, is_causal: bool) -> None:
    x = text()
    whole = causal(T) if is_causal else torch.ones(1, 1, T, T, dtype=torch.bool)
    packed = stack(x, whole & documents(numbers(*IDS)))
    pieces = [(0, 3), (3, 4), (4, 9), (9, 12)]
    alone = torch.cat([stack(x[:, a:b], whole[..., : b - a, : b - a]) for a, b in pieces], dim=1)
    measured.close(packed, alone)
    measured.gradients(packed, alone, of=(x,))
    leak = (stack(x, whole) - alone).abs().max().item()
    measured.value("without the mask", leak, above=0.1)


def test_chunks_equal_one_by_one_through_any_depth(measured: Measured) -> None:
    x = text()
    packed = stack(x, causal(T) & chunks(T, SIZE))
    alone = torch.cat([stack(piece, causal(SIZE)) for piece in x.split(SIZE, dim=1)], dim=1)
    measured.close(packed, alone)
    measured.gradients(packed, alone, of=(x,))


def test_padding_sees_nothing_and_is_seen_by_nobody(measured: Measured) -> None:
    tensors, attend = inputs(), PatternAttention()
    mask = documents(numbers(*PADDED))
    none = torch.tensor(PADDED) < 0
    y, weights = attend(*tensors, mask), attend.attention(*tensors, mask)
    measured.close(y[:, :, none], torch.zeros_like(y[:, :, none]), tolerance=0)
    measured.close(weights[..., none], torch.zeros_like(weights[..., none]), tolerance=0)


def test_a_prefix_leads_from_causal_to_full(measured: Measured) -> None:
    ends = torch.cat([causal(T), torch.ones(1, 1, T, T, dtype=torch.bool)])
    difference = (prefix(torch.tensor([0, T]), T) != ends).sum().item()
    measured.value("entries that differ", difference, equals=0)
    x, mask = text(), prefix(torch.tensor([5, 3]), T)
    other = torch.cat([x[:, :5], -x[:, 5:]], dim=1)
    measured.close(stack(other, mask)[0, :5], stack(x, mask)[0, :5], tolerance=0)
    change = (stack(torch.cat([x[:, :4], -x[:, 4:]], dim=1), mask) - stack(x, mask))[:, 0].abs().amax(dim=1)
    measured.value("token 0, by token 4 inside the prefix", change[0].item(), above=0.01)
    measured.value("token 0, by token 4 behind it", change[1].item(), equals=0)


def test_pictures_in_a_text_are_joined_by_or(measured: Measured) -> None:
    pictures = (-1, -1, 0, 0, 0, -1, -1, 1, 1, -1, -1, -1)
    mask = causal(T) | documents(numbers(*pictures))
    theirs = or_masks(causal_mask_function, blockwise_overlay(numbers(*pictures)))
    measured.value("entries that differ", differing(theirs, mask), equals=0)
    measured.count(int((mask & ~causal(T)).sum()), 3 + 1)


def test_block_diffusion_equals_block_by_block(measured: Measured) -> None:
    """As when it writes: the clean blocks before it, then its own noisy one, which sees them all."""
    clean, size = text(6), 2
    noisy = text(6) * 0.3 + 1
    packed = stack(torch.cat([noisy, clean], dim=1), block_diffusion(6, size))
    for start in range(0, 6, size):
        own = slice(start, start + size)
        sequence = torch.cat([clean[:, :start], noisy[:, own]], dim=1)
        written = stack(sequence, blocks(start + size, size))
        measured.close(packed[:, own], written[:, start:])
    measured.close(packed[:, 6:], stack(clean, blocks(6, size)))


def test_block_diffusion_has_two_ends(measured: Measured) -> None:
    ones, twos = block_diffusion(T, 1)[0, 0], block_diffusion(T, T)[0, 0]
    after = causal(T)[0, 0]
    expected = torch.cat(
        [torch.cat([torch.eye(T, dtype=torch.bool), after.tril(-1)], 1), torch.cat([after & False, after], 1)]
    )
    full, none = torch.ones(T, T, dtype=torch.bool), torch.zeros(T, T, dtype=torch.bool)
    wrong = (ones != expected).sum() + (twos != torch.block_diag(full, full)).sum()
    measured.value("entries that differ", wrong.item(), equals=0)
    assert not (twos[:T, T:] != none).any()


def test_branches_of_a_tree_equal_one_by_one(measured: Measured) -> None:
    x = text()
    packed = stack(x, tree(numbers(*PARENTS)))
    for leaf in sorted(set(range(T)) - set(PARENTS)):
        branch = [j for j in range(T) if naive_tree(PARENTS)(leaf, j)]
        measured.close(packed[:, branch], stack(x[:, branch], causal(len(branch))))
    chain, star = tree(torch.arange(-1, T - 1)[None]), tree(numbers(-1, *[0] * (T - 1)))
    measured.value("chain, not causal", (chain != causal(T)).sum().item(), equals=0)
    measured.count(int(star.sum()), 2 * T - 1)


def test_positions_are_the_number_of_tokens_seen(measured: Measured) -> None:
    for mask, positions in (
        (PATTERNS["causal documents"][0], [0, 1, 2, 0, 0, 1, 2, 3, 4, 0, 1, 2]),
        (PATTERNS["tree"][0], [0, 1, 1, 2, 2, 2, 3, 3, 3, 0, 1, 1]),
    ):
        wrong = (mask.sum(dim=-1) - 1 != torch.tensor(positions)).sum().item()
        measured.value("positions that differ", wrong, equals=0)


def differing(rule: Callable[..., Tensor], mask: Tensor) -> int:
    """Entries of a mask in which a rule for two indices says something else."""
    return int((create_mask(rule, len(mask), 1, *mask.shape[2:], device="cpu") != mask).sum())


def test_equal_the_rules_of_transformers(measured: Measured) -> None:
    pairs = [
        (and_masks(causal_mask_function, packed_sequence_mask_function(numbers(*IDS))), "causal documents"),
        (chunked_causal_mask_function(SIZE, torch.tensor([0])), "causal chunks"),
    ]
    for rule, pattern in pairs:
        measured.value("entries that differ", differing(rule, PATTERNS[pattern][0]), equals=0)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@each_pattern
def test_true_means_the_same_in_flex_attention(measured: Measured, pattern: str) -> None:
    mask, tensors = PATTERNS[pattern][0], [x.detach() for x in inputs()]

    def theirs(mask: Tensor) -> Tensor:
        rule = lambda b, h, q, k: mask[0, 0, q, k]  # noqa: E731
        return flex_attention(*tensors, block_mask=create_block_mask(rule, None, None, T, T, device="cpu"))

    y = PatternAttention()(*tensors, mask)
    measured.close(theirs(mask), y)
    measured.value("inverted", (theirs(~mask) - y).abs().max().item(), above=0.1)


@torch.no_grad()
def test_positions_alone_do_not_part_documents_in_transformers(measured: Measured) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=20, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
            initializer_range=0.5, attn_implementation="sdpa",
        )
    ).eval()  # fmt: skip
    words, positions = torch.randint(20, (1, 9)), numbers(0, 1, 2, 3, 0, 1, 2, 3, 4)
    alone = model(words[:, 4:]).logits
    for use_cache in (False, True):
        packed = model(words, position_ids=positions, use_cache=use_cache).logits[:, 4:]
        gap = (packed - alone).abs().max().item()
        limit = {"above": 0.1} if use_cache else {"below": 1e-4}
        measured.value("with a cache" if use_cache else "without a cache", gap, **limit)


def test_share_of_the_pairs_of_a_long_sequence(measured: Measured) -> None:
    long = 4096
    eight = documents(torch.arange(long)[None] // 512)
    masks = {
        "causal": causal(long),
        "8 documents": causal(long) & eight,
        "prefix of a half": prefix(torch.tensor([long // 2]), long),
        "chunks of 512": causal(long) & chunks(long, 512),
    }
    shares = {"causal": 0.5, "8 documents": 1 / 16, "prefix of a half": 0.625, "chunks of 512": 1 / 16}
    for name, mask in masks.items():
        measured.value(name, mask.double().mean().item(), equals=shares[name], within=2e-4)


def test_refuses_numbers_that_are_none() -> None:
    for call in (documents, tree, lambda x: prefix(x[0], 4)):
        for given in (torch.zeros(1, 4), torch.zeros(1, 4, dtype=torch.bool)):
            with pytest.raises(TypeError, match="must be integer"):
                call(given)
    for call in (documents, tree):
        with pytest.raises(ValueError, match=r"\(4,\) must be \(B, T\)"):
            call(torch.arange(4))
    with pytest.raises(ValueError, match=r"lengths \(1, 4\) must be \(B,\)"):
        prefix(torch.zeros(1, 4, dtype=torch.long), 4)
    for lengths in (torch.tensor([5, 1]), torch.tensor([-1, 1])):
        with pytest.raises(ValueError, match=r"lengths -?\d to \d must be in \[0, 4\]"):
            prefix(lengths, 4)
    for parents in (numbers(-1, 1), numbers(-1, 2, 0), numbers(-2, 0), numbers(1, 0)):
        with pytest.raises(ValueError, match="parents must hold for each token an earlier one, or -1"):
            tree(parents)
    for call in (chunks, blocks, block_diffusion):
        for size in (0, -1):
            with pytest.raises(ValueError, match=f"size {size} must be at least 1"):
                call(4, size)


def test_refuses_masks_and_values_that_do_not_fit() -> None:
    attend, (query, key, value, mask) = example()
    for call in (attend, attend.attention):
        for shape in ((10, 10), (2, 10, 10), (2, 1, 10, 9), (3, 1, 10, 10), (1, 2, 10, 10)):
            with pytest.raises(ValueError, match=r"four dimensions that broadcast to \(B, heads, T, T\) ="):
                call(query, key, value, torch.ones(shape, dtype=torch.bool))
        with pytest.raises(TypeError, match="True = may be attended"):
            call(query, key, value, mask.float())
        for bad in ((query[0], key[0], value), (query, key[:, :, :9], value), (query, key, value[:, :1])):
            with pytest.raises(ValueError, match=r"must be \(B, heads, T, d\), \(B, heads, T, d\) and"):
                call(*bad, mask)


def test_masks_are_made_where_their_numbers_are() -> None:
    for made in (
        causal(4, "meta"),
        chunks(4, 2, "meta"),
        blocks(4, 2, "meta"),
        block_diffusion(4, 2, "meta"),
    ):
        assert made.is_meta
    assert documents(torch.zeros(1, 4, dtype=torch.long, device="meta")).is_meta
    assert F.scaled_dot_product_attention(*inputs(), causal(T)).isfinite().all()
