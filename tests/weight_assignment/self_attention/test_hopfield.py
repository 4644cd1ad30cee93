"""Proofs of Hopfield retrieval."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.weight_assignment.self_attention.hopfield import HopfieldRetrieval, example
from snippets.weight_assignment.self_attention.self_attention import SelfAttention
from tests.measure import Measured


def naive_weights(x: Tensor, xi: Tensor, beta: float) -> Tensor:
    """Return softmax_j(beta x_j . xi) for the patterns x (n, d) and the state xi (d,)."""
    scores = [beta * (x[j] * xi).sum() for j in range(x.shape[0])]
    top = max(s.item() for s in scores)
    e = [torch.exp(s - top) for s in scores]
    return torch.stack([a / sum(e) for a in e])


def naive_update(x: Tensor, v: Tensor, xi: Tensor, beta: float) -> Tensor:
    """Return sum_j softmax_j(beta x_j . xi) v_j."""
    p = naive_weights(x, xi, beta)
    return torch.stack([p[j] * v[j] for j in range(x.shape[0])]).sum(dim=0)


def naive(
    memory: HopfieldRetrieval, query: Tensor, stored: Tensor, value: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the weights of the last update and what it reads, one state at a time."""
    beta = stored.shape[2] ** -0.5 if memory.beta is None else memory.beta
    weights, out = [], []
    for b in range(query.shape[0]):
        for t in range(query.shape[1]):
            real = [j for j in range(stored.shape[1]) if mask[b, t, j]]
            x, v, xi = stored[b, real], value[b, real], query[b, t]
            for _ in range(memory.steps - 1):
                xi = naive_update(x, x, xi, beta)
            p = dict(zip(real, naive_weights(x, xi, beta), strict=True))
            weights.append(torch.stack([p.get(j, xi.sum() * 0) for j in range(stored.shape[1])]))
            out.append(naive_update(x, v, xi, beta))
    shape = query.shape[:2]
    return torch.stack(weights).unflatten(0, shape), torch.stack(out).unflatten(0, shape)


def naive_energy(x: Tensor, xi: Tensor, beta: float) -> Tensor:
    """Return -log(sum_j exp(beta x_j . xi)) / beta + |xi|^2 / 2, without the paper's constants."""
    scores = [beta * (x[j] * xi).sum() for j in range(x.shape[0])]
    top = max(s.item() for s in scores)
    lse = top + torch.log(torch.stack([torch.exp(s - top) for s in scores]).sum())
    return -lse / beta + (xi * xi).sum() / 2


def small() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, patterns, values, and which of them may be read: at least one for each state."""
    torch.manual_seed(1)
    sizes = (2, 3, 4), (2, 6, 4), (2, 6, 5)
    query, stored, value = (torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in sizes)
    mask = torch.rand(2, 3, 6) > 0.4
    mask[:, :, 2] = True
    return query, stored, value, mask


def noisy(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Patterns of length 4 in 64 dimensions, ten of them, and those with noise of length 4."""
    torch.manual_seed(0)
    stored = 4 * F.normalize(torch.randn(1, n, 64, dtype=torch.float64), dim=2)
    right = stored[:, :10]
    return stored, right, right + torch.randn_like(right) / 2


@pytest.mark.parametrize(("beta", "steps"), [(None, 1), (None, 3), (2.0, 2)])
def test_equals_naive_reference(measured: Measured, beta: float | None, steps: int) -> None:
    memory, (query, stored, value, mask) = HopfieldRetrieval(beta, steps), small()
    weights, expected = naive(memory, query, stored, value, mask)
    measured.close(memory.attention(query, stored, value, mask), weights)
    y = memory(query, stored, value, mask)
    measured.close(y, expected)
    measured.gradients(y, expected, of=(query, stored, value))


def test_energy_equals_naive_reference(measured: Measured) -> None:
    query, stored, _, mask = small()
    found = HopfieldRetrieval(0.7).energy(query, stored, mask)
    cases = [(b, t) for b in range(2) for t in range(3)]
    expected = torch.stack([naive_energy(stored[b, mask[b, t]], query[b, t], 0.7) for b, t in cases])
    measured.close(found, expected.reshape(2, 3))
    measured.gradients(found, expected.reshape(2, 3), of=(query, stored))


@pytest.mark.parametrize("steps", [1, 3])
def test_forward_equals_weights_times_values(measured: Measured, steps: int) -> None:
    memory, (query, stored, value, mask) = HopfieldRetrieval(steps=steps), small()
    measured.close(memory(query, stored, value, mask), memory.attention(query, stored, mask=mask) @ value)


@pytest.mark.parametrize("beta", [0.3, 0.5, 4.0])
def test_an_update_is_a_step_down_the_energy(measured: Measured, beta: float) -> None:
    """A gradient step of size one."""
    memory, (query, stored, _, _) = HopfieldRetrieval(beta), small()
    (slope,) = torch.autograd.grad(memory.energy(query, stored).sum(), query)
    measured.close(memory(query, stored), query - slope)


def test_self_attention_is_one_update(measured: Measured) -> None:
    """Of projected tokens, in a memory of projected tokens, whose values are projected tokens."""
    torch.manual_seed(1)
    layer, x = SelfAttention(12, 4).double(), torch.randn(2, 6, 12, dtype=torch.float64, requires_grad=True)
    y = HopfieldRetrieval()(layer.q_proj(x), layer.k_proj(x), layer.v_proj(x))
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x, *layer.parameters()))


def test_a_value_matrix_may_follow_the_update(measured: Measured) -> None:
    """Read the patterns, then project; or project, then read."""
    query, stored, _, _ = small()
    matrix, memory = torch.randn(4, 5, dtype=torch.float64), HopfieldRetrieval()
    measured.close(memory(query, stored, stored @ matrix), memory(query, stored) @ matrix)


@pytest.mark.parametrize("beta", [0.1, 1.0, 8.0])
def test_energy_never_rises(measured: Measured, beta: float) -> None:
    memory, (stored, _, state) = HopfieldRetrieval(beta), noisy(1000)
    energies = [memory.energy(state, stored)]
    for _ in range(5):
        state = memory(state, stored)
        energies.append(memory.energy(state, stored))
    changes = torch.stack(energies).diff(dim=0)
    measured.value(f"largest rise in five updates, beta {beta}", changes.max().item(), at_most=1e-12)
    measured.value("first change", changes[0].max().item(), below=-0.1)


def test_energy_has_a_floor(measured: Measured) -> None:
    """With the constants of the paper it is from 0 to 2 M^2, M the longest pattern, for no longer states."""
    stored, _, state = noisy(50)
    state = state * 4 / state.norm(dim=2, keepdim=True)
    for beta in (0.1, 1.0, 8.0):
        energy = HopfieldRetrieval(beta).energy(state, stored) + math.log(50) / beta + 4**2 / 2
        measured.value(f"smallest, beta {beta}", energy.min().item(), at_least=0)
        measured.value("largest", energy.max().item(), at_most=2 * 4**2)


def test_one_update_finds_one_of_a_thousand_patterns(measured: Measured) -> None:
    stored, right, state = noisy(1000)
    measured.value("distance before", (state - right).norm(dim=2).max().item(), above=3.5)
    found = HopfieldRetrieval(8.0)(state, stored)
    measured.value("after", (found - right).norm(dim=2).max().item(), at_most=1e-6)


def test_two_updates_come_closer_than_one(measured: Measured) -> None:
    stored, right, state = noisy(1000)
    for steps, (above, below) in enumerate([(0.01, 1.0), (0.001, 0.01)], start=1):
        found = HopfieldRetrieval(1.0, steps)(state, stored)
        measured.value(f"after {steps}", (found - right).norm(dim=2).mean().item(), above=above, below=below)


def test_small_beta_gives_the_mean_and_large_beta_the_nearest(measured: Measured) -> None:
    query, stored, _, _ = small()
    measured.close(HopfieldRetrieval(1e-12)(query, stored), stored.mean(dim=1, keepdim=True).expand(2, 3, 4))
    nearest = (query @ stored.mT).argmax(dim=2)
    expected = stored.gather(1, nearest[..., None].expand(2, 3, 4))
    measured.close(HopfieldRetrieval(1e4)(query, stored), expected)


def test_close_patterns_are_read_as_their_mean(measured: Measured) -> None:
    """What the paper calls a metastable state: two patterns 0.2 apart, two others far away."""
    one = torch.zeros(6, dtype=torch.float64)
    one[0] = 3
    near = torch.stack([one, one]) + torch.tensor([[0.1], [-0.1]]) * torch.eye(6)[1]
    stored = torch.cat([near, 3 * torch.eye(6, dtype=torch.float64)[2:4]])[None]
    found = HopfieldRetrieval(4.0, steps=30)(stored[:, :1], stored)
    measured.value("distance to the mean of the two", (found - one).norm().item(), at_most=1e-2)
    found = HopfieldRetrieval(400.0, steps=30)(stored[:, :1], stored)
    measured.value("with beta 400 to the pattern", (found - stored[:, :1]).norm().item(), at_most=1e-2)


def test_more_patterns_than_dimensions_are_told_apart(measured: Measured) -> None:
    """32 pairs of length one in 16 dimensions: the share of values found, by softmax and by a matrix."""
    torch.manual_seed(0)
    keys, values = F.normalize(torch.randn(2, 200, 32, 16, dtype=torch.float64), dim=3)
    own = torch.arange(32)
    softmax = HopfieldRetrieval(20.0)(keys, keys, values)
    matrix = keys @ (keys.mT @ values)  # the sum of outer products, read with each key
    for name, found, bounds in (
        ("softmax", softmax, {"above": 0.99}),
        ("matrix", matrix, {"below": 0.9}),
    ):
        hit = (found @ values.mT).argmax(dim=2) == own
        measured.value(name, hit.double().mean().item(), **bounds)


def test_states_stay_between_the_patterns(measured: Measured) -> None:
    query, stored, _, _ = small()
    found = HopfieldRetrieval(0.5)(3 * query, stored)
    longest = stored.norm(dim=2).amax(dim=1, keepdim=True)
    measured.value(
        "length by that of the longest pattern", (found.norm(dim=2) / longest).max().item(), at_most=1
    )


def test_order_of_patterns_means_nothing(measured: Measured) -> None:
    memory, (query, stored, _, _) = HopfieldRetrieval(steps=3), small()
    measured.close(memory(query, stored.flip(1)), memory(query, stored))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), r"^beta 0.0 must be above 0 and finite"),
        ((math.nan,), r"^beta nan must be above 0 and finite"),
        ((math.inf,), r"^beta inf must be above 0 and finite"),
        ((1.0, 0), r"^steps 0 must be at least 1"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[float, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HopfieldRetrieval(*arguments)


def test_refuses_what_does_not_fit() -> None:
    memory, (query, stored) = example()
    with pytest.raises(ValueError, match=r"^query \(2, 4, 15\) and stored \(2, 10, 16\) must be"):
        memory(query[..., 1:], stored)
    with pytest.raises(ValueError, match=r"^value \(2, 9, 16\) must be \(B, S, d_v\)"):
        memory(query, stored, stored[:, 1:])
    with pytest.raises(ValueError, match=r"^mask \(2, 10\) must have three dimensions that broadcast"):
        memory(query, stored, mask=torch.ones(2, 10, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"^mask must be bool, True = may be read, not torch.float32"):
        memory.energy(query, stored, torch.ones(2, 4, 10))


def test_a_state_that_may_read_nothing_becomes_zeros() -> None:
    memory, (query, stored) = example()
    assert not memory(query, stored, mask=torch.zeros(1, 1, 10, dtype=torch.bool)).any()
