"""Proofs of stochastic hard attention."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from snippets.weight_assignment.hard.stochastic import (
    Glimpse,
    StochasticAttention,
    example,
    reinforce_loss,
    update_baseline,
)
from tests.measure import Measured
from tests.parallel import data_parallel

EXCEPTIONS = {
    "test_every_parameter_receives_a_gradient": {
        "stochastic": "a draw has no derivative: REINFORCE trains the policy, not the output of forward",
    },
}
"""Checks of the contract that it cannot pass, with the reason."""


def naive_scores(
    a: Tensor,
    h: Tensor,
    v: Tensor,
    W_a: Tensor,
    W_h: Tensor,
    b: Tensor | None = None,
    c: Tensor | None = None,
) -> Tensor:
    """a (L,D), h (n,), v (k,), W_a (k,D), W_h (k,n), b (k,), c () -> e (L,)."""
    e = []
    for i in range(a.shape[0]):
        inner = W_a @ a[i] + W_h @ h
        dot = (v * torch.tanh(inner if b is None else inner + b)).sum()
        e.append(dot if c is None else dot + c)
    return torch.stack(e)


def naive_alpha(e: Tensor) -> Tensor:
    total = sum((torch.exp(x) for x in e), e.new_zeros(()))
    return torch.stack([torch.exp(x) / total for x in e])


def soft_context(alpha: Tensor, a: Tensor, beta: Tensor | None = None) -> Tensor:
    """sum_i alpha_i a_i, times the scalar gate beta when one is given."""
    z = sum((alpha[i] * a[i] for i in range(len(alpha))), torch.zeros_like(a[0]))
    return z if beta is None else beta * z


def expected_loss(alpha: Tensor, losses: Tensor) -> Tensor:
    return sum((alpha[i] * losses[i] for i in range(len(alpha))), alpha.new_zeros(()))


def flat_grad(y: Tensor, params: Sequence[Tensor]) -> Tensor:
    """d y / d params as one vector; a parameter y does not depend on counts as zero."""
    grads = torch.autograd.grad(y, params, retain_graph=True, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in zip(params, grads, strict=True)]
    )


def exact_gradient(alpha: Tensor, losses: Tensor, params: Sequence[Tensor]) -> Tensor:
    """Gradient of sum_i alpha_i loss_i (P,); through losses too where they depend on params."""
    return flat_grad(expected_loss(alpha, losses), params)


def score_vectors(alpha: Tensor, params: Sequence[Tensor]) -> Tensor:
    """grad log alpha_i for every location (L,P)."""
    return torch.stack([flat_grad(torch.log(alpha[i]), params) for i in range(len(alpha))])


def reinforce_terms(
    alpha: Tensor, losses: Tensor, baseline: float | Tensor, params: Sequence[Tensor]
) -> Tensor:
    """Single-sample estimates, row i for s = i: (loss_i - b) grad log alpha_i + grad loss_i (L,P)."""
    s, rows = score_vectors(alpha, params), []
    for i in range(len(alpha)):
        path = flat_grad(losses[i], params) if losses.requires_grad else 0.0
        rows.append((losses[i].detach() - baseline) * s[i] + path)
    return torch.stack(rows)


def reinforce_mean(alpha: Tensor, terms: Tensor) -> Tensor:
    return sum((alpha[i].detach() * terms[i] for i in range(len(alpha))), torch.zeros_like(terms[0]))


def reinforce_variance(alpha: Tensor, terms: Tensor) -> Tensor:
    """Trace of the covariance of one estimate: sum_i alpha_i |g_i - mean|^2."""
    mean = reinforce_mean(alpha, terms)
    return sum(
        (alpha[i].detach() * ((terms[i] - mean) ** 2).sum() for i in range(len(alpha))), mean.new_zeros(())
    )


def optimal_baseline(alpha: Tensor, losses: Tensor, params: Sequence[Tensor]) -> Tensor:
    """Constant b of least variance (losses free of params): sum p l |s|^2 / sum p |s|^2."""
    p, loss = alpha.detach(), losses.detach()
    q = (score_vectors(alpha, params) ** 2).sum(dim=1)
    return (p * loss * q).sum() / (p * q).sum()


def build(
    B: int = 1, D: int = 4, H: int = 3, W: int = 5, n: int = 2
) -> tuple[StochasticAttention, Tensor, Tensor]:
    """A policy with random weights in float64, its feature map and its state."""
    attend, (x, h) = example(B=B, D=D, H=H, W=W, n=n, k=6)
    for parameter in attend.parameters():
        nn.init.normal_(parameter, std=0.7)
    return attend.double(), x.double().requires_grad_(), h.double().requires_grad_()


def naive_policy(attend: StochasticAttention, annotations: Tensor, h: Tensor) -> Tensor:
    """Weights of the naive loops: (L, D), (n,) -> (L,)."""
    v, W_a = attend.score.weight[0], attend.annotation.weight
    return naive_alpha(naive_scores(annotations, h, v, W_a, attend.state.weight, attend.state.bias))


def rows(x: Tensor) -> Tensor:
    """Annotation vectors of one sample, row by row: (1, D, H, W) -> (L, D)."""
    return torch.stack([x[0, :, i, j] for i in range(x.shape[2]) for j in range(x.shape[3])])


def reward(context: Tensor, readout: Tensor) -> Tensor:
    """log p(y = 0 | context) of a linear softmax classifier: (B, D), (classes, D) -> (B,)."""
    return (context @ readout.T).log_softmax(1)[:, 0]


def problem() -> tuple[StochasticAttention, Tensor, Tensor, Tensor, list[Tensor]]:
    """A policy, its inputs, a classifier, and everything that the expected reward depends on."""
    attend, x, h = build()
    readout = torch.randn(3, 4, dtype=x.dtype).requires_grad_()
    return attend, x, h, readout, [*attend.parameters(), readout, x, h]


def estimates(baseline: float | Tensor) -> tuple[Tensor, Tensor]:
    """Policy (L,) and the gradient of `reinforce_loss` for a draw of each location (L, P)."""
    attend, x, h, readout, parameters = problem()
    policy = attend.attention(x, h).flatten()
    losses = [
        reinforce_loss(reward(a[None], readout), p.log()[None], baseline)
        for a, p in zip(rows(x), policy, strict=True)
    ]
    return policy, torch.stack([flat_grad(loss, parameters) for loss in losses])


@pytest.mark.parametrize(("H", "W"), [(1, 1), (3, 5), (7, 4)])
def test_policy_equals_a_naive_loop_over_positions(H: int, W: int, measured: Measured) -> None:
    attend, x, h = build(B=2, H=H, W=W)
    naive = torch.stack([naive_policy(attend, rows(x[[b]]), h[b]) for b in range(2)])
    policy = attend.attention(x, h)
    measured.close(policy.flatten(1), naive)
    measured.gradients(policy.flatten(1), naive, [x, h, *attend.parameters()])


def test_reads_the_likeliest_annotation_unchanged(measured: Measured) -> None:
    attend, x, h = build(B=3)
    chosen = [int(naive_policy(attend, rows(x[[b]]), h[b]).argmax()) for b in range(3)]
    expected = torch.stack([rows(x[[b]])[i] for b, i in enumerate(chosen)])
    measured.close(attend(x, h), expected, tolerance=0)
    measured.gradients(attend(x, h), expected, [x], tolerance=0)


def test_a_draw_reads_its_location_and_knows_its_probability(measured: Measured) -> None:
    attend, x, h = build()
    policy = naive_policy(attend, rows(x), h[0])
    draws = attend.sample(x.expand(50, -1, -1, -1), h.expand(50, -1))
    measured.close(draws.context, rows(x)[draws.location], tolerance=0)
    measured.close(draws.log_prob, policy[draws.location].log())
    measured.gradients(draws.log_prob, policy[draws.location].log(), [x, h, *attend.parameters()])
    measured.close(draws.entropy, -(policy * policy.log()).sum().expand(50))


def test_locations_are_drawn_as_often_as_the_policy_says(measured: Measured) -> None:
    attend, x, h = build()
    policy = attend.attention(x, h).flatten().detach()
    draws = attend.sample(x.detach().expand(100_000, -1, -1, -1), h.expand(100_000, -1)).location
    counts, expected = draws.bincount(minlength=15), 100_000 * policy
    chi_squared = ((counts - expected) ** 2 / expected).sum().item()
    measured.value("χ² (14 degrees of freedom)", chi_squared, below=36.1)  # p = 0.001


def test_mean_of_all_hard_contexts_is_the_soft_context(measured: Measured) -> None:
    attend, x, h = build()
    measured.close(attend.expected(x, h)[0], soft_context(naive_policy(attend, rows(x), h[0]), rows(x)))


def test_mean_loss_of_draws_is_above_the_loss_of_the_soft_context(measured: Measured) -> None:
    attend, x, h, readout, _ = problem()
    hard = expected_loss(attend.attention(x, h).flatten(), -reward(rows(x), readout)).item()
    soft = -reward(attend.expected(x, h), readout).item()
    measured.value("mean loss of draws", hard, above=soft)
    measured.value("loss of the soft context", soft, above=0)


@pytest.mark.parametrize("baseline", [0.0, 3.0, -7.0])
def test_reinforce_is_unbiased_whatever_the_baseline(baseline: float, measured: Measured) -> None:
    attend, x, h, readout, parameters = problem()
    naive = naive_policy(attend, rows(x), h[0])
    exact = exact_gradient(naive, -reward(rows(x), readout), parameters)
    measured.close(reinforce_mean(*estimates(baseline)), exact)


def test_mean_of_sampled_gradients_approaches_the_exact_gradient(measured: Measured) -> None:
    attend, x, h, readout, parameters = problem()
    naive = naive_policy(attend, rows(x), h[0])
    exact = exact_gradient(naive, -reward(rows(x), readout), parameters)
    means = []
    for _ in range(500):
        draws = attend.sample(x.expand(256, -1, -1, -1), h.expand(256, -1))
        loss = reinforce_loss(reward(draws.context, readout), draws.log_prob, baseline=-1.0)
        means.append(flat_grad(loss, parameters))
    sampled = torch.stack(means)
    error = (sampled.mean(0) - exact) / (sampled.std(0) / len(sampled) ** 0.5)
    measured.value("max |error| in standard errors", error.abs().max().item(), below=4)


def test_a_baseline_lowers_the_variance_but_the_mean_reward_is_not_the_best(measured: Measured) -> None:
    attend, x, h = build()
    policy = attend.attention(x, h).flatten()
    rewards = torch.randn(15, dtype=x.dtype) - 3
    parameters = list(attend.parameters())
    best = -optimal_baseline(policy, -rewards, parameters)

    def variance(baseline: float | Tensor) -> float:
        pairs = zip(rewards, policy, strict=True)
        losses = [reinforce_loss(r[None], p.log()[None], baseline) for r, p in pairs]
        terms = torch.stack([flat_grad(loss, parameters) for loss in losses])
        return reinforce_variance(policy, terms).item()

    least, mean = variance(best), variance((policy * rewards).sum().detach())
    measured.value("variance without baseline", variance(0.0), above=mean)
    measured.value("with the mean reward", mean, above=least)
    measured.value("with the best", least, below=min(variance(best - 0.1), variance(best + 0.1)))


def test_counts_the_parameters_of_the_paper_without_the_last_bias(measured: Measured) -> None:
    attend = StochasticAttention(channels=512, state_dim=1000, hidden_dim=512)
    paper = 512 * 512 + 1000 * 512 + 512 + 512 + 1
    measured.count(sum(p.numel() for p in attend.parameters()), paper - 1)


def test_draws_in_train_mode_and_is_deterministic_in_eval_mode() -> None:
    attend, x, h = build()
    x, h = x.expand(200, -1, -1, -1), h.expand(200, -1)
    assert len(attend.train()(x, h).unique(dim=0)) > 1
    assert len(attend.eval()(x, h).unique(dim=0)) == 1


def test_baseline_follows_the_reward_and_carries_no_gradient() -> None:
    reward = torch.full((4,), 2.0, requires_grad=True)
    baseline = torch.zeros(())
    for _ in range(100):
        baseline = update_baseline(baseline, reward)
    assert not baseline.requires_grad
    assert baseline.item() == pytest.approx(2 * (1 - 0.9**100))


def test_a_batch_without_a_finite_reward_leaves_the_baseline() -> None:
    baseline = torch.tensor(0.5)
    for rewards in ([], [1.0, math.nan], [-math.inf]):
        baseline = update_baseline(baseline, torch.tensor(rewards))
        assert baseline.item() == 0.5


def test_baseline_of_half_precision_rewards_moves_by_small_steps() -> None:
    baseline = update_baseline(100.0, torch.tensor([100.25], dtype=torch.float16))
    for _ in range(100):
        baseline = update_baseline(baseline, torch.tensor([100.25], dtype=torch.float16))
    assert baseline.item() == pytest.approx(100.25, abs=1e-3)


def test_forward_gives_all_that_training_needs() -> None:
    attend, x, h = build(B=3)
    torch.manual_seed(0)
    found = attend(x, h, full=True)
    torch.manual_seed(0)
    assert isinstance(found, Glimpse)
    assert all(torch.equal(a, b) for a, b in zip(found, attend.sample(x, h), strict=True))


def test_trains_under_data_parallel() -> None:
    attend, (x, h) = example()
    gradients = []
    with data_parallel(attend.train()) as parallel:
        for model in (attend, parallel):
            attend.zero_grad()
            torch.manual_seed(0)
            glimpse = model(x, h, full=True)
            reinforce_loss(glimpse.context.sum(1), glimpse.log_prob, 0.0).backward()
            gradients.append([p.grad.clone() for p in attend.parameters()])
    for alone, synchronised in zip(*gradients, strict=True):
        assert alone.any()
        torch.testing.assert_close(synchronised, 2 * alone)


def test_refuses_sizes_below_one() -> None:
    with pytest.raises(ValueError, match="state_dim 0"):
        StochasticAttention(4, 0, 3)


def test_refuses_shapes_that_would_broadcast() -> None:
    attend, x, h = build(B=3)
    for wrong in (h[:1], h[0], h[:, None]):
        with pytest.raises(ValueError, match=r"h .* with B of x"):
            attend(x, wrong)
    with pytest.raises(ValueError, match=r"x .* must be"):
        attend(x[0], h)


@pytest.mark.parametrize(
    ("log_prob", "baseline", "message"),
    [
        ((4, 1), (), "log_prob"),
        ((1,), (), "log_prob"),
        ((4,), (4, 1), "baseline"),  # every sample would get the mean
        ((4,), (1,), "baseline"),
    ],
)
def test_reinforce_refuses_shapes_that_would_broadcast(
    log_prob: tuple[int, ...], baseline: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        reinforce_loss(torch.randn(4), torch.randn(log_prob), torch.randn(baseline))


def test_reinforce_refuses_an_empty_batch() -> None:
    with pytest.raises(ValueError, match="one draw or more"):
        reinforce_loss(torch.randn(0), torch.randn(0), 0.0)


def test_reinforce_leaves_a_learned_baseline_alone() -> None:
    """Its derivative would be the log-probability, which moves it away for ever."""
    log_prob = torch.tensor([-1.0, -2.0], requires_grad=True)
    baseline = torch.zeros(2, requires_grad=True)
    reinforce_loss(torch.tensor([3.0, 0.0]), log_prob, baseline).backward()
    assert baseline.grad is None
