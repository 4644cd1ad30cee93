"""Proofs of Gumbel-softmax attention."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.weight_assignment.hard.gumbel import GumbelAttention, example, gumbel_softmax
from snippets.weight_assignment.hard.stochastic import reinforce_loss
from tests.measure import Measured

DRAWS = 200_000


def softmax(e: Tensor, ok: list[bool]) -> Tensor:
    """exp / sum over the allowed entries of (N,), shifted by their maximum; 0 elsewhere, or if none is."""
    top = max((float(x.detach()) for x, k in zip(e, ok, strict=True) if k), default=0.0)
    exps = [torch.exp(x - top) if k else e.new_zeros(()) for x, k in zip(e, ok, strict=True)]
    total = sum(exps, e.new_zeros(()))
    return torch.stack([x / total if k else e.new_zeros(()) for x, k in zip(exps, ok, strict=True)])


def one_hot_argmax(y: Tensor) -> Tensor:
    """1 at the (first) largest of (N,), all 0 if y is; no gradient."""
    best = max(range(len(y)), key=lambda i: float(y[i].detach()))
    return torch.tensor([float(i == best and bool(y[i] > 0)) for i in range(len(y))], dtype=y.dtype)


def naive_gumbel(
    logits: Tensor, noise: Tensor, tau: float = 1.0, hard: bool = False, mask: Tensor | None = None
) -> Tensor:
    """logits, noise (B,N), mask (B,N), True = may be chosen -> y (B,N), or its straight-through one-hot."""
    rows = []
    for b in range(logits.shape[0]):
        ok = [True] * logits.shape[1] if mask is None else mask[b].tolist()
        y = softmax((logits[b] + noise[b]) / tau, ok)
        rows.append(one_hot_argmax(y) + (y - y.detach()) if hard else y)
    return torch.stack(rows)


def naive_read(y: Tensor, values: Tensor) -> Tensor:
    """sum_n y_n v_n, y (B,N), values (B,N,D) -> (B,D)."""
    return torch.stack([sum(y[b, n] * values[b, n] for n in range(y.shape[1])) for b in range(len(y))])


def naive_expected(logits: Tensor, f: Callable[[int], Tensor]) -> Tensor:
    """E[f(s)] enumerated, logits (N,), f(i) a scalar; differentiable in the logits and in f."""
    p = softmax(logits, [True] * len(logits))
    return sum((p[i] * f(i) for i in range(len(p))), logits.new_zeros(()))


def naive_exact_gradient(logits: Tensor, f: Callable[[int], Tensor]) -> Tensor:
    """p_j (f_j - E[f]), (N,)."""
    p, mean = softmax(logits, [True] * len(logits)), naive_expected(logits, f)
    return torch.stack([p[j] * (f(j) - mean) for j in range(len(p))])


Loss = Callable[[Tensor], Tensor]
"""Weights (N, S) -> losses (N,)."""


def problem() -> tuple[Tensor, dict[str, Loss]]:
    """Scores of six keys, and three losses of what is read: (6,), cross-entropy, quadratic, linear."""
    torch.manual_seed(0)
    scores, value = torch.randn(6, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    readout, target = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    return scores, {
        "cross-entropy": lambda weights: -(weights @ value @ readout).log_softmax(-1)[:, 0],
        "quadratic": lambda weights: (weights @ value - target).square().sum(-1),
        "linear": lambda weights: weights @ value @ target,
    }


def exact_gradient(scores: Tensor, loss: Loss) -> Tensor:
    """Gradient of the expected loss of a hard choice, by enumeration: (S,)."""
    losses = loss(torch.eye(len(scores), dtype=scores.dtype))
    return naive_exact_gradient(scores, lambda i: losses[i])


def estimates(scores: Tensor, loss: Loss, temperature: float, hard: bool) -> Tensor:
    """Gradient of each of DRAWS draws: (DRAWS, S)."""
    many = scores.expand(DRAWS, -1).clone().requires_grad_()
    torch.manual_seed(1)
    return torch.autograd.grad(loss(gumbel_softmax(many, temperature, hard)).sum(), many)[0]


def bias(found: Tensor, exact: Tensor) -> float:
    """Length of the error of the mean, as a share of the length of the exact gradient."""
    return ((found.mean(0) - exact).norm() / exact.norm()).item()


def noise(found: Tensor, exact: Tensor) -> float:
    """Standard deviation of one draw, the root of the summed variances, in lengths of the exact gradient."""
    return (found.var(0).sum().sqrt() / exact.norm()).item()


def straight_through_limit(scores: Tensor, loss: Loss) -> Tensor:
    """Mean straight-through gradient for a temperature towards zero: (S,).

    A tie of keys i and j, which has the density p_i p_j, shares the work between the slopes of the loss at
    both ends. The exact gradient has the difference of the losses there.
    """
    p, corners = (
        softmax(scores, [True] * len(scores)),
        torch.eye(len(scores), dtype=scores.dtype).requires_grad_(),
    )
    slopes = torch.autograd.grad(loss(corners).sum(), corners)[0]  # (S, S), row i at key i
    limit = torch.zeros_like(scores)
    for i in range(len(scores)):
        for j in range(i):
            step = (corners[i] - corners[j]).detach()
            limit += p[i] * p[j] * step * ((slopes[i] + slopes[j]) / 2 @ step)
    return limit


def build() -> tuple[GumbelAttention, list[Tensor]]:
    """A block in float64 and train mode, and its inputs with gradients."""
    attend, inputs = example()
    return attend.double().train(), [x.double().requires_grad_() for x in inputs]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_equals_naive_reference(
    temperature: float, straight_through: bool, masked: bool, measured: Measured
) -> None:
    attend, (query, key, value) = build()
    attend.temperature, attend.straight_through = temperature, straight_through
    mask = (torch.arange(5) != 2).expand(2, 3, 5).clone()
    mask[1, 0] = False
    torch.manual_seed(7)
    weights = attend.attention(query, key, mask=mask if masked else None)
    torch.manual_seed(7)
    output = attend(query, key, value, mask if masked else None)
    torch.manual_seed(7)
    gumbel = -torch.empty(2, 3, 5, dtype=query.dtype).exponential_().log()
    scores = torch.stack([torch.stack([attend.W.weight @ q for q in rows]) for rows in query]) @ key.mT
    naive = naive_gumbel(
        scores.flatten(0, 1),
        gumbel.flatten(0, 1),
        temperature,
        straight_through,
        mask.flatten(0, 1) if masked else None,
    )
    naive_output = naive_read(naive, value.repeat_interleave(3, 0)).unflatten(0, (2, 3))
    measured.close(weights, naive.unflatten(0, (2, 3)))
    measured.close(output, naive_output)
    measured.gradients(output, naive_output, [query, key, value, attend.W.weight])


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_equals_torch_under_the_same_noise(temperature: float, hard: bool, measured: Measured) -> None:
    scores = problem()[0].expand(1000, -1).clone().requires_grad_()
    torch.manual_seed(3)
    weights = gumbel_softmax(scores, temperature, hard)
    torch.manual_seed(3)
    expected = F.gumbel_softmax(scores, temperature, hard)
    measured.close(weights, expected)
    measured.gradients(weights, expected, [scores])


def test_straight_through_weights_are_exactly_zero_and_one(measured: Measured) -> None:
    scores = problem()[0].float().expand(DRAWS, -1)
    weights = gumbel_softmax(scores, 2.0, hard=True)
    measured.close(weights, F.one_hot(weights.argmax(-1), 6).float(), tolerance=0)


@pytest.mark.parametrize("temperature", [0.2, 5.0])
def test_keys_are_drawn_as_often_as_the_softmax_says(temperature: float, measured: Measured) -> None:
    scores, _ = problem()
    torch.manual_seed(4)
    counts = gumbel_softmax(scores.expand(DRAWS, -1), temperature).argmax(-1).bincount(minlength=6)
    expected = DRAWS * softmax(scores, [True] * 6)
    chi_squared = ((counts - expected) ** 2 / expected).sum().item()
    measured.value("χ² (5 degrees of freedom)", chi_squared, below=20.5)  # p = 0.001


def test_probabilities_in_place_of_scores_draw_something_else(measured: Measured) -> None:
    probabilities = torch.tensor([0.7, 0.2, 0.1])
    torch.manual_seed(5)
    right, wrong = (
        gumbel_softmax(scores.expand(DRAWS, 3), 1.0, hard=True).mean(0)[0].item()
        for scores in (probabilities.log(), probabilities)
    )
    measured.value("share of the key of probability 0.7", right, equals=0.7, within=0.01)
    measured.value("with probabilities as scores", wrong, equals=0.464, within=0.01)


def test_low_temperature_is_one_hot_and_high_is_uniform(measured: Measured) -> None:
    scores = problem()[0].expand(DRAWS, -1)
    for temperature, low, high in ((0.01, 0.99, 1.0), (1.0, 0.5, 0.8), (100.0, 1 / 6, 0.18)):
        largest = gumbel_softmax(scores, temperature).amax(-1).mean().item()
        measured.value(f"largest weight at {temperature:g}", largest, above=low, below=high)


@pytest.mark.parametrize("hard", [False, True])
def test_mean_gradient_of_two_equal_keys_is_the_integral(hard: bool, measured: Measured) -> None:
    scores = torch.zeros(2, dtype=torch.float64)
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    errors = []
    for temperature in (2.0, 1.0, 0.5, 0.2, 0.1):
        found = estimates(scores, lambda weights: weights[:, 0], temperature, hard)[:, 0]
        y = (u.logit() / temperature).sigmoid()  # the difference of two Gumbel variables is logistic
        mean = (y * (1 - y)).mean() / temperature
        errors.append(((found.mean() - mean) / (found.std() / DRAWS**0.5)).abs().item())
        measured.value(f"share at {temperature:g}", mean.item() / 0.25, below=1)
    measured.value("max |error| in standard errors", max(errors), below=4)


def test_soft_bias_vanishes_with_the_temperature_but_the_noise_grows(measured: Measured) -> None:
    scores, losses = problem()
    exact = exact_gradient(scores, losses["cross-entropy"])
    found = {t: estimates(scores, losses["cross-entropy"], t, hard=False) for t in (2.0, 1.0, 0.5, 0.1)}
    biases = [bias(draws, exact) for draws in found.values()]
    noises = [noise(draws, exact) for draws in found.values()]
    assert biases == sorted(biases, reverse=True)
    assert noises == sorted(noises)
    for t, share, spread in zip(found, biases, noises, strict=True):
        measured.value(f"bias at {t:g}", share, above=0)
        measured.value(f"noise at {t:g}", spread, above=0)


def test_straight_through_keeps_a_bias_unless_the_loss_is_quadratic(measured: Measured) -> None:
    scores, losses = problem()
    measured.close(
        straight_through_limit(scores, losses["quadratic"]), exact_gradient(scores, losses["quadratic"])
    )
    loss = losses["cross-entropy"]
    exact, limit = exact_gradient(scores, loss), straight_through_limit(scores, loss)
    for temperature in (1.0, 0.1):
        share = bias(estimates(scores, loss, temperature, hard=True), exact)
        measured.value(f"bias at {temperature:g}", share, above=0.25)
    measured.value("limit of the bias", bias(limit[None], exact), above=0.15, below=0.25)
    found = estimates(scores, loss, 0.02, hard=True)
    error = (found.mean(0) - limit) / (found.std(0) / DRAWS**0.5)
    measured.value("error at 0.02 in standard errors", error.abs().max().item(), below=4)


def test_straight_through_and_soft_gradients_agree_if_the_loss_is_linear(measured: Measured) -> None:
    scores, losses = problem()
    soft, hard = (estimates(scores, losses["linear"], 0.7, hard) for hard in (False, True))
    measured.close(hard, soft)


def test_reinforce_has_no_bias_and_a_baseline_lowers_its_noise(measured: Measured) -> None:
    scores, losses = problem()
    scores.requires_grad_()
    exact = exact_gradient(scores, losses["cross-entropy"]).detach()
    reward = -losses["cross-entropy"](torch.eye(6, dtype=scores.dtype))
    policy = scores.softmax(0)
    spreads = []
    for baseline in (0.0, (policy * reward).sum().item()):
        terms = torch.stack(
            [
                torch.autograd.grad(
                    reinforce_loss(reward[[i]], scores.log_softmax(0)[[i]], baseline), scores
                )[0]
                for i in range(6)
            ]
        )
        measured.close((policy[:, None] * terms).sum(0).detach(), exact)
        variance = (policy[:, None] * (terms - exact).square()).sum().detach()
        spreads.append((variance.sqrt() / exact.norm()).item())
    measured.value("noise", spreads[0], above=spreads[1])
    measured.value("with the mean reward as baseline", spreads[1], above=0)


def test_reads_the_likeliest_key_in_eval_mode() -> None:
    attend, (query, key, value) = build()
    best = attend.scores(query, key).argmax(-1)
    expected = torch.stack([v[i] for v, i in zip(value, best, strict=True)])
    assert torch.equal(attend.eval()(query, key, value), expected)


@pytest.mark.parametrize("training", [False, True])
def test_a_query_without_a_key_reads_zeros_and_has_finite_gradients(training: bool) -> None:
    attend, (query, key, value) = build()
    attend.temperature = 0.1
    mask = torch.ones(2, 1, 5, dtype=torch.bool)
    mask[0] = False
    output = attend.train(training)(query, key, value, mask)
    assert not output[0].any()
    output.sum().backward()
    for x in (query, key, value):
        assert x.grad is None or x.grad.isfinite().all()


def test_refuses_other_masks() -> None:
    attend, (query, key, value) = build()
    with pytest.raises(TypeError, match="mask must be bool"):
        attend(query, key, value, torch.ones(2, 1, 5))
    with pytest.raises(ValueError, match="three dimensions that broadcast"):
        attend(query, key, value, torch.ones(2, 1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"padding \(B, S\) as padding"):
        attend(query[:, :2], key, value, torch.ones(2, 5, dtype=torch.bool))  # B = T: padding or (T, S)?
    with pytest.raises(ValueError, match="must have at most 2 dimensions that broadcast to scores"):
        gumbel_softmax(torch.zeros(3, 5), 1.0, mask=torch.ones(2, 5, dtype=torch.bool))


def test_refuses_what_cannot_work() -> None:
    with pytest.raises(ValueError, match="key_dim 0"):
        GumbelAttention(3, 0)
    for temperature in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"temperature {temperature} must be above 0"):
            GumbelAttention(3, 3, temperature=temperature)
        with pytest.raises(ValueError, match=f"temperature {temperature} must be above 0"):
            gumbel_softmax(torch.zeros(3), temperature)  # -1 would prefer the worst
    with pytest.raises(TypeError, match="floating-point"):
        gumbel_softmax(torch.tensor([3, 1]), 1.0)


def test_refuses_shapes_that_would_broadcast() -> None:
    attend, (query, key, value) = build()
    with pytest.raises(ValueError, match="query"):
        attend.attention(query[0], key[0])
    with pytest.raises(ValueError, match="key"):
        attend(query, key[:1], value)
    with pytest.raises(ValueError, match="with B and S of key"):
        attend(query, key, value[:1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_scores_in_half_precision_are_drawn_from_fairly(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    weights = gumbel_softmax(torch.full((DRAWS, 4), 200.0, dtype=dtype), 1.0, hard=True)
    assert weights.dtype == dtype
    assert weights.unique().tolist() == [0.0, 1.0]
    counts = weights.argmax(1).bincount(minlength=4)  # sums of score and noise that tie go to the first
    assert ((counts - DRAWS / 4) ** 2 / (DRAWS / 4)).sum() < 16.3  # p = 0.001


def test_chooses_the_largest_of_scores_that_half_precision_cannot_hold() -> None:
    attend = GumbelAttention(512, 512)
    attend.W.weight.data = 100 * torch.eye(512)
    query, key = torch.full((1, 1, 512), 2.0), torch.full((1, 4, 512), 2.0)
    key[0, 2] = 2.5  # scores are 204,800 and 256,000
    attend, query, key = attend.half(), query.half(), key.half()
    assert attend.eval().attention(query, key).tolist() == [[[0, 0, 1, 0]]]
    assert attend.train().attention(query, key).tolist() == [[[0, 0, 1, 0]]]


@pytest.mark.parametrize("temperature", [1e-3, 1e30])
def test_rounds_to_the_largest_sum_at_any_temperature(temperature: float) -> None:
    scores = torch.tensor([0.0, 5.0]).expand(1000, 2)
    torch.manual_seed(0)
    assert gumbel_softmax(scores, temperature, hard=True).mean(0)[1] > 0.98
