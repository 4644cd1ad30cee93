"""Proofs of attention in one formula."""

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pytorchcv.models.common.att import SEBlock
from torch import Tensor, nn

from snippets.foundations.general import Attention, gate, normalise, scale, weighted_sum, what, when, where
from tests.measure import Measured

Score = Callable[[Tensor], Tensor]
SCORES = {what: "c", where: "hw", when: "t"}
AXES = {what: (2,), where: (3, 4), when: (1,)}


def softmax(e: Tensor, ok: list[bool]) -> Tensor:
    """exp / sum over the allowed entries of (N,), shifted by their maximum; 0 elsewhere, or if none is."""
    top = max((float(x.detach()) for x, k in zip(e, ok, strict=True) if k), default=0.0)
    exps = [torch.exp(x - top) if k else e.new_zeros(()) for x, k in zip(e, ok, strict=True)]
    total = sum(exps, e.new_zeros(()))
    return torch.stack([x / total if k else x for x, k in zip(exps, ok, strict=True)])


def naive_means(x: Tensor, keep: str) -> Tensor:
    """Mean over what is not kept: keep "c" -> (B,C), "ct" -> (B,C,T), "chw" -> (B,C,H,W), "t", "hw", ..."""
    axes, groups = ["cthw".index(k) for k in keep], {}
    for at in itertools.product(*(range(n) for n in x.shape[1:])):
        groups.setdefault(tuple(at[i] for i in axes), []).append(x[(slice(None), *at)])
    means = [sum(groups[key]) / len(groups[key]) for key in sorted(groups)]
    return torch.stack(means, dim=1).reshape(x.shape[0], *[x.shape[1 + i] for i in axes])


def naive_channel_gate(x: Tensor, W: Tensor, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x (B,C,T,H,W), W (C,C), b (C,). Gates (B,C), scaled x."""
    m = naive_means(x, "c")
    gates = []
    for n in range(x.shape[0]):
        z = W @ m[n] + (0 if b is None else b)
        gates.append(1 / (1 + torch.exp(-z)))
    a = torch.stack(gates)
    return a, a[:, :, None, None, None] * x


def naive_spatial(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """x (B,C,T,H,W), w (C,). Weights (B,T,H,W), sum 1 per frame; read (B,C,T)."""
    B, C, T, H, W = x.shape
    weights, reads = [], []
    for n in range(B):
        for t in range(T):
            frame = x[n, :, t].reshape(C, H * W)
            e = torch.stack([(w * frame[:, p]).sum() for p in range(H * W)])
            a = softmax(e, [True] * (H * W))
            weights.append(a)
            reads.append(naive_weighted_sum(a, frame.T))
    return torch.stack(weights).reshape(B, T, H, W), torch.stack(reads).reshape(B, T, C).transpose(1, 2)


def naive_temporal(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """x (B,C,T,H,W), w (C,). Weights (B,T), sum 1 over time; read (B,C,H,W) = sum_t a_t x_t."""
    m, weights, reads = naive_means(x, "ct"), [], []
    for n in range(x.shape[0]):
        e = torch.stack([(w * m[n, :, t]).sum() for t in range(x.shape[2])])
        a = softmax(e, [True] * x.shape[2])
        weights.append(a)
        reads.append(naive_weighted_sum(a, x[n].transpose(0, 1)))
    return torch.stack(weights), torch.stack(reads)


def naive_weighted_sum(e: Tensor, values: Tensor, how: str = "raw") -> Tensor:
    """e (N,), values (N,...): raw sum_n e_n v_n; "softmax" uses softmax(e)."""
    a = softmax(e, [True] * len(e)) if how == "softmax" else e
    return sum((a[n] * values[n] for n in range(len(a))), torch.zeros_like(values[0]))


def clip(T: int = 3, C: int = 5, H: int = 4, W: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, T, C, H, W, dtype=torch.float64, requires_grad=True)


def mean_of(score: Score) -> Attention:
    """The weighted mean whose weights are the normalised scores."""
    return Attention(lambda x: normalise(score(x)), weighted_sum)


def gated(score: Score) -> Attention:
    """Each score a gate of its own."""
    return Attention(lambda x: gate(score(x)), scale)


def naive_sum(x: Tensor, score: Score, how: str) -> Tensor:
    """The weighted sum by loops; attended axes are 1."""
    scores = naive_means(x.movedim(2, 1), SCORES[score]).flatten(1)  # (B, N)
    values = x.movedim(AXES[score], tuple(range(1, 1 + len(AXES[score]))))
    values = values.flatten(1, len(AXES[score]))  # (B, N, ...)
    sums = torch.stack([naive_weighted_sum(e, v, how) for e, v in zip(scores, values, strict=True)])
    return sums.reshape([1 if axis in AXES[score] else n for axis, n in enumerate(x.shape)])


@pytest.mark.parametrize("score", SCORES)
def test_gates_equal_naive_reference(measured: Measured, score: Score) -> None:
    x = clip()
    gates = naive_means(x.movedim(2, 1), SCORES[score])
    block = gated(score)
    expected = (1 / (1 + torch.exp(-gates))).view_as(block.attention(x))
    measured.close(block.attention(x), expected)
    measured.close(block(x), expected * x)
    measured.gradients(block(x), expected * x, of=[x])


@pytest.mark.parametrize("score", SCORES)
def test_weighted_means_equal_naive_reference(measured: Measured, score: Score) -> None:
    x = clip()
    y, expected = mean_of(score)(x), naive_sum(x, score, "softmax")
    measured.close(y, expected)
    measured.gradients(y, expected, of=[x])


@pytest.mark.parametrize("score", SCORES)
def test_sums_of_raw_scores_equal_naive_reference(measured: Measured, score: Score) -> None:
    x = clip()
    y, expected = Attention(score, weighted_sum)(x), naive_sum(x, score, "raw")
    measured.close(y, expected)
    measured.gradients(y, expected, of=[x])


def test_learned_gates_equal_naive_reference(measured: Measured) -> None:
    x, layer = clip(), nn.Linear(5, 5).double()
    block = Attention(lambda x: gate(layer(what(x).flatten(1))).view(2, 1, 5, 1, 1), scale)
    gates, y = naive_channel_gate(x.movedim(2, 1), layer.weight, layer.bias)
    measured.close(block.attention(x).flatten(1), gates)
    measured.close(block(x), y.movedim(1, 2))
    measured.gradients(block(x), y.movedim(1, 2), of=[x, *layer.parameters()])


def test_learned_frame_scores_equal_naive_reference(measured: Measured) -> None:
    x, w = clip(), torch.randn(5, dtype=torch.float64, requires_grad=True)
    block = Attention(lambda x: normalise(5 * when(x * w[:, None, None])), weighted_sum)
    weights, y = naive_temporal(x.movedim(2, 1), w)
    measured.close(block.attention(x).flatten(1), weights)
    measured.close(block(x)[:, 0], y)
    measured.gradients(block(x)[:, 0], y, of=[x, w])


def test_learned_positions_of_each_frame_equal_naive_reference(measured: Measured) -> None:
    x, w = clip(), torch.randn(5, dtype=torch.float64, requires_grad=True)
    block = Attention(lambda x: normalise(5 * where(x * w[:, None, None])), weighted_sum)
    frames = x.flatten(0, 1)[:, None]  # each frame a clip of its own
    weights, y = naive_spatial(x.movedim(2, 1), w)
    measured.close(block.attention(frames).view_as(weights), weights)
    measured.close(block(frames).view(2, 3, 5).mT, y)
    measured.gradients(block(frames).view(2, 3, 5).mT, y, of=[x, w])


def test_squeeze_and_excitation_is_a_choice_of_g(measured: Measured) -> None:
    public = SEBlock(32, reduction=8).double()
    layers = (nn.Conv2d(32, 4, 1), nn.ReLU(), nn.Conv2d(4, 32, 1), nn.Sigmoid())
    block = Attention(nn.Sequential(nn.AdaptiveAvgPool2d(1), *layers), scale).double()
    for ours, theirs in zip(block.parameters(), public.parameters(), strict=True):
        ours.data.copy_(theirs.view_as(ours))
    x = torch.randn(2, 32, 5, 3, dtype=torch.float64, requires_grad=True)
    measured.close(block(x), public(x))
    measured.gradients(block(x), public(x), of=[x])


def test_self_attention_is_a_choice_of_g_and_f(measured: Measured) -> None:
    q, k, v = (nn.Linear(6, 4, bias=False).double() for _ in range(3))
    block = Attention(lambda x: (q(x) @ k(x).mT / 4**0.5).softmax(dim=-1), lambda a, x: a @ v(x))
    x = torch.randn(2, 7, 6, dtype=torch.float64, requires_grad=True)
    public = F.scaled_dot_product_attention(q(x), k(x), v(x))
    parameters = [layer.weight for layer in (q, k, v)]
    measured.close(block(x), public)
    measured.gradients(block(x), public, of=[x, *parameters])


def test_the_domain_is_the_axes_along_which_weights_differ(measured: Measured) -> None:
    x = clip(T=3, C=5, H=4, W=2)
    for score, count in ((what, 5), (where, 8), (when, 3)):
        weights = mean_of(score).attention(x)
        assert [axis for axis, size in enumerate(weights.shape) if axis and size > 1] == list(AXES[score])
        measured.count(weights[0].unique().numel(), count)


@pytest.mark.parametrize("score", SCORES)
def test_each_g_is_blind_to_the_other_axes(measured: Measured, score: Score) -> None:
    x = clip()
    shuffled = x
    for axis in {1, 2, 3, 4} - set(AXES[score]):
        shuffled = shuffled[(slice(None),) * axis + (torch.randperm(x.shape[axis]),)]
    assert not torch.equal(shuffled, x)
    measured.close(mean_of(score).attention(shuffled), mean_of(score).attention(x))


@pytest.mark.parametrize("score", SCORES)
def test_normalised_weights_are_a_distribution(measured: Measured, score: Score) -> None:
    weights = mean_of(score).attention(clip())
    measured.value("smallest weight", weights.min().item(), above=0)
    measured.close(weights.flatten(1).sum(dim=1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("score", SCORES)
def test_gates_are_not_a_distribution(measured: Measured, score: Score) -> None:
    x = clip()
    for shifted in (x - 9, x + 9):  # all may close, all may open
        mean = gated(score).attention(shifted).mean().item()
        measured.value("|mean gate − ½|", abs(mean - 0.5), above=0.49)


@pytest.mark.parametrize("score", SCORES)
def test_weighted_mean_stays_within_the_values(measured: Measured, score: Score) -> None:
    x = clip()
    low, high = (bound(x, dim=AXES[score], keepdim=True) for bound in (torch.amin, torch.amax))
    for place in ((mean_of(score)(x) - low) / (high - low)).aminmax():
        measured.value("place between smallest and largest", place.item(), at_least=0, at_most=1)


@pytest.mark.parametrize("score", SCORES)
def test_raw_sum_of_equal_values_is_another_value(measured: Measured, score: Score) -> None:
    twos = torch.full((1, 3, 5, 4, 2), 2.0, dtype=torch.float64)
    measured.close(mean_of(score)(twos), torch.full_like(mean_of(score)(twos), 2.0))
    raw = Attention(score, weighted_sum)(twos).unique()
    measured.value("raw sum of twos", raw.item(), at_least=12)


def test_seeing_every_frame_twice_changes_a_raw_sum_only(measured: Measured) -> None:
    x = clip()
    twice = x.repeat(1, 2, 1, 1, 1)
    measured.close(mean_of(when)(twice), mean_of(when)(x))
    measured.close(Attention(when, weighted_sum)(twice), 2 * Attention(when, weighted_sum)(x))


@pytest.mark.parametrize("score", SCORES)
def test_a_number_added_to_all_scores_changes_gates_only(measured: Measured, score: Score) -> None:
    x = clip()
    measured.close(mean_of(score).attention(x + 3), mean_of(score).attention(x))
    change = (gated(score).attention(x + 3) - gated(score).attention(x)).min().item()
    measured.value("smallest change of a gate", change, above=0.01)


def test_cold_scores_pick_one_frame_and_zero_scores_average_all(measured: Measured) -> None:
    x = clip()
    picked = Attention(lambda x: normalise(1e4 * when(x)), weighted_sum)(x)
    best = when(x).flatten(1).argmax(dim=1)
    measured.close(picked[:, 0], x[torch.arange(2), best])
    measured.close(Attention(lambda x: normalise(0 * when(x)), weighted_sum)(x), x.mean(dim=1, keepdim=True))


def test_a_gate_cannot_move_information_a_mean_can(measured: Measured) -> None:
    x = clip().detach()
    x[:, 1] = 0  # the second frame is black
    assert not gated(when)(x)[:, 1].any()
    measured.value("largest value from other frames", mean_of(when)(x).abs().max().item(), above=0.1)


@pytest.mark.parametrize("score", SCORES)
def test_scores_want_five_axes(score: Score) -> None:
    with pytest.raises(ValueError, match=r"must be \(B, T, C, H, W\)"):
        score(torch.zeros(2, 3, 4, 5))


@pytest.mark.parametrize("use", [scale, weighted_sum])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 1), (2, 1, 5), (2, 2, 4), (3, 1, 4)])
def test_weights_must_fit_the_input(use: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must have 3 dimensions that broadcast to x"):
        use(torch.ones(shape), torch.ones(2, 3, 4))
    with pytest.raises(
        ValueError, match="must have 3 dimensions that broadcast to x"
    ):  # would stretch x, then sum over samples
        use(torch.ones(2, 3, 4), torch.ones(1, 3, 4))
