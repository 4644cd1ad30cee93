"""Proofs of paged attention."""

import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from snippets.weight_assignment.self_attention.kv_cache import CachedAttention
from snippets.weight_assignment.self_attention.paged import PagedAttention, PagedCache, example
from tests.measure import Measured

SIZES = [1, 3, 4, 16]
WIDTH, HEADS = 6, 2


def naive(tokens: list[tuple[Tensor, Tensor]], q: Tensor) -> Tensor:
    """What the last token of a sequence reads, (H, d): q (H, d) over all its keys and values (H, d)."""
    rows = []
    for h in range(q.shape[0]):
        e = [((q[h] * k[h]).sum() * q.shape[1] ** -0.5).exp() for k, _ in tokens]
        read = sum((a * v[h] for a, (_, v) in zip(e, tokens, strict=True)), torch.zeros_like(q[h]))
        rows.append(read / sum(e))
    return torch.stack(rows)


def small(page_size: int) -> PagedAttention:
    """A layer with large random weights."""
    torch.manual_seed(1)
    layer = PagedAttention(WIDTH, HEADS, page_size).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return layer


def plain(layer: PagedAttention) -> CachedAttention:
    """The same layer with the plain cache."""
    other = CachedAttention(WIDTH, HEADS).double()
    other.load_state_dict(layer.state_dict())
    return other


def tokens(B: int, T: int, seed: int = 0) -> Tensor:
    return torch.randn(B, T, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def kept(state: PagedCache, row: int) -> tuple[Tensor, Tensor]:
    """Keys and values of one sequence, token by token through its table: (n, heads, d)."""
    P = state.keys.shape[1]
    places = [(int(state.table[row, p // P]), p % P) for p in range(int(state.length[row]))]
    return torch.stack([state.keys[place] for place in places]), torch.stack(
        [state.values[place] for place in places]
    )


Event = tuple[list[int], list[int]]
"""Which sequences go on, -1 for a new one, and how many tokens each of them reads."""


def schedule(events: int, seed: int) -> Iterator[Event]:
    """From a single sequence on, they come, fork, change places, end, and read from no token to nine."""
    drawn, count = random.Random(seed), 1
    for _ in range(events):
        rows = drawn.sample(range(count), count)
        if count > 4 or (count > 1 and drawn.random() < 0.3):
            rows.pop()
        if drawn.random() < 0.3:
            rows.append(drawn.choice(rows))
        if drawn.random() < 0.4:
            rows.append(-1)
        count = len(rows)
        yield rows, [drawn.choice((1, 2, 5, 9) if row < 0 else (0, 1, 1, 1, 2, 4)) for row in rows]


@pytest.mark.parametrize("page_size", SIZES)
@torch.no_grad()
def test_any_schedule_equals_the_plain_cache(measured: Measured, page_size: int) -> None:
    """Each sequence has a plain cache of its own, which knows nothing of the others."""
    layer = small(page_size)
    other = plain(layer)
    _, state = layer.step(tokens(1, 1))
    alone = [other.step(tokens(1, 1))[1]]
    for number, (rows, lengths) in enumerate(schedule(60, seed=page_size)):
        x = tokens(len(rows), max(1, *lengths), seed=number)
        y, state = layer.step(x, state.take(rows), torch.tensor(lengths))
        before, alone, ys, expected = alone, [], [], []
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            own = slice(place, place + 1), slice(0, length)
            right, cache = other.step(x[own], None if row < 0 else before[row])
            alone.append(cache)
            ys.append(y[own])
            expected.append(right)
            keys, values = kept(state, place)
            measured.close(keys, cache.keys[0].transpose(0, 1))
            measured.close(values, cache.values[0].transpose(0, 1))
        if any(lengths):
            measured.close(torch.cat(ys, dim=1), torch.cat(expected, dim=1))


@pytest.mark.parametrize("page_size", SIZES)
@torch.no_grad()
def test_a_schedule_equals_naive_reference(measured: Measured, page_size: int) -> None:
    """Lists of keys and values, one for each sequence; only a single new token each."""
    layer = small(page_size)
    _, state = layer.step(tokens(1, 1))
    lists = [[(k, v) for k, v in zip(*kept(state, 0), strict=True)]]
    for number, (rows, _) in enumerate(schedule(25, seed=page_size)):
        x = tokens(len(rows), 1, seed=number)
        y, state = layer.step(x, state.take(rows))
        q, k, v = layer._project(x)
        lists = [[*(lists[row] if row >= 0 else ()), (k[n, 0], v[n, 0])] for n, row in enumerate(rows)]
        read = torch.stack([naive(kept, q[n, 0]) for n, kept in enumerate(lists)])  # (B, heads, d)
        measured.close(y[:, 0], layer.out_proj(read.flatten(1)))


@torch.no_grad()
def test_every_page_is_held_by_those_that_share_its_tokens(measured: Measured) -> None:
    """After each event: no page more than tokens need, fewer than P places empty in each sequence."""
    layer = small(4)
    _, state = layer.step(tokens(1, 1))
    empty = 0
    for number, (rows, lengths) in enumerate(schedule(60, seed=7)):
        x = tokens(len(rows), max(1, *lengths), seed=number)
        _, state = layer.step(x, state.take(rows), torch.tensor(lengths))
        held = (state.table >= 0).sum(dim=1)
        assert held.tolist() == [-(-n // 4) for n in state.length.tolist()]
        assert int(state.users().sum()) == int(held.sum())
        empty = max(empty, int((held * 4 - state.length).max()))
    measured.value("places empty at most", empty, equals=3)


@torch.no_grad()
def test_a_fork_shares_pages_until_it_writes(measured: Measured) -> None:
    """Ten tokens take three pages of four; a fork takes none, its next token one."""
    layer, x = small(4), tokens(1, 11)
    _, parent = layer.step(x[:, :10])
    forked = parent.take([0, 0])
    measured.count(int((forked.users() > 0).sum()), 3)
    _, state = layer.step(tokens(2, 1, seed=1), forked, torch.tensor([0, 1]))
    measured.count(int((state.users() > 0).sum()), 4)
    measured.count(len(state.keys), 4)
    measured.close(torch.stack(kept(state, 0)), torch.stack(kept(parent, 0)))
    y, _ = layer.step(x[:, 10:], state.take([0]))
    measured.close(y, layer(x)[:, 10:])


@torch.no_grad()
def test_without_a_copy_a_fork_spoils_the_other(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = small(4), tokens(2, 1, seed=1)
    _, parent = layer.step(tokens(1, 10))
    right, _ = layer.step(x, parent.take([0, 0]))
    monkeypatch.setattr(PagedCache, "users", lambda state: torch.ones(len(state.keys), dtype=torch.long))
    wrong, _ = layer.step(x, parent.take([0, 0]))
    measured.value("off by", (wrong - right)[0].abs().max().item(), above=0.1)


@torch.no_grad()
def test_pages_that_are_given_back_are_used_again(measured: Measured) -> None:
    """Prompts come and end one after the other: the pool stays as large as the longest needs."""
    layer, pool = small(4), []
    _, state = layer.step(tokens(1, 20))
    for number in range(10):
        _, state = layer.step(tokens(1, 20 - number, seed=number), state.take([-1]))
        pool.append(len(state.keys))
    measured.count(max(pool), 5)
    measured.count(int(state.take([]).users().sum()), 0)


@torch.no_grad()
def test_where_a_page_lies_means_nothing(measured: Measured) -> None:
    layer = small(4)
    _, state = layer.step(tokens(3, 10), count=torch.tensor([10, 3, 7]))
    order = torch.randperm(len(state.keys), generator=torch.Generator().manual_seed(2))
    table = torch.where(state.table < 0, -1, order.argsort()[state.table])
    moved = PagedCache(state.keys[order], state.values[order], table, state.length)
    x = tokens(3, 1, seed=1)
    measured.close(layer.step(x, moved)[0], layer.step(x, state)[0])


@torch.no_grad()
def test_what_is_left_in_a_page_is_not_read(measured: Measured) -> None:
    """A page that is used again holds old keys behind the last token."""
    layer = small(4)
    _, state = layer.step(1e3 * tokens(1, 8))
    x = tokens(1, 5, seed=1)
    y, _ = layer.step(x, state.take([-1]))
    measured.close(y, layer(x))


@torch.no_grad()
def test_padding_sees_nothing(measured: Measured) -> None:
    layer, x = small(4), tokens(3, 6)
    y, _ = layer.step(x, count=torch.tensor([6, 0, 2]))
    measured.close(y[1], layer.out_proj.bias.expand(6, -1))
    measured.close(y[2, 2:], layer.out_proj.bias.expand(4, -1))
    measured.close(y[2:, :2], layer(x[2:, :2]))


def test_gradients_flow_through_pages(measured: Measured) -> None:
    layer, x = small(3), tokens(1, 9).requires_grad_()
    _, prompt = layer.step(x[:, :5])
    y, _ = layer.step(x[:, 5:].expand(2, -1, -1), prompt.take([0, 0]))
    expected = layer(x)[:, 5:].expand(2, -1, -1)
    measured.close(y, expected)
    measured.gradients(y, expected, of=(x, *layer.parameters()))


def test_fused_forward_equals_weights_times_values(measured: Measured) -> None:
    layer, x = small(4), tokens(2, 7)
    weights, (_, _, v) = layer.attention(x), layer._project(x)
    measured.close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    measured.close(layer(x), layer._merge(weights @ v.transpose(1, 2)))


def test_states_that_do_not_fit_are_refused() -> None:
    layer, x = small(4), tokens(2, 7)
    _, state = layer.step(x)
    refused = [
        (small(3), state, r"^state keys \(4, 4, 2, 3\) .* must be .* \(4, 3, 2, 3\)"),
        (layer, state._replace(values=state.values[:1]), "^state values .* must be"),
        (layer, state._replace(keys=state.keys.float()), "^state keys .* of torch.float32 must be"),
        (layer, state.take([0]), r"^state table \(1, 2\) must be \(B, M\) with B = 2$"),
        (layer, state._replace(table=state.table + 1), "^state table .* must be pages below 4, enough"),
        (layer, state._replace(length=state.length + 2), r"^state table .* enough for the lengths \[9, 9\]$"),
    ]
    for module, wrong, message in refused:
        with pytest.raises(ValueError, match=message):
            module.step(x, wrong)


def test_rows_that_are_not_there_are_refused() -> None:
    _, state = small(4).step(tokens(2, 7))
    with pytest.raises(ValueError, match=r"^rows \[0, 2\] must be in \[-1, 2\)$"):
        state.take([0, 2])


@pytest.mark.parametrize(
    ("count", "message"),
    [
        ([1], r"^count \(1,\) must be \(B,\) = \(2,\)$"),
        ([1, 8], r"^count \[1, 8\] must be in \[0, 7\]$"),
        ([-1, 7], r"^count \[-1, 7\] must be in \[0, 7\]$"),
    ],
)
def test_counts_that_do_not_fit_are_refused(count: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(4).step(tokens(2, 7), count=torch.tensor(count))


def test_nothing_leaks_from_one_sequence_into_another() -> None:
    """Not even NaN, which no weight of zero takes away."""
    layer, (x,) = example()
    bad = x.clone()
    bad[0, 0] = torch.nan
    y, state = layer.step(bad, count=torch.tensor([12, 5]))
    assert y[0].isnan().any()
    assert y[1].isfinite().all()
    y, _ = layer.step(x[:, :3], state.take([-1, 1]))  # a new sequence in pages of the one that ended
    assert y.isfinite().all()


def test_a_batch_may_be_empty_and_what_ended_leaves_no_columns() -> None:
    layer, (x,) = example()
    y, state = layer.step(x[:0])
    assert y.shape == (0, *x.shape[1:])
    assert state.take([]).take([-1]).length.tolist() == [0]
    _, state = layer.step(x, count=torch.tensor([12, 2]))
    assert state.table.shape[1] > state.take([1]).table.shape[1] == 1


@pytest.mark.parametrize("count", [torch.tensor([1.5, 2.0]), torch.tensor([True, False])], ids=str)
def test_a_count_is_integer(count: torch.Tensor) -> None:
    layer, (x,) = example()
    with pytest.raises(TypeError, match="count must be integer, not"):
        layer.step(x, count=count)
