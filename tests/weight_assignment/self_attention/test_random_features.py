"""Proofs of random features."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from snippets.weight_assignment.self_attention.random_features import (
    PerformerAttention,
    PerformerState,
    directions,
    example,
)
from tests.measure import Measured

PADDED = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 0, 0]]).bool()
each_mask = pytest.mark.parametrize("mask", [None, PADDED], ids=["all", "padded"])


def naive_positive(x: Tensor, omega: Tensor) -> Tensor:
    """Return exp(omega_r . x - |x|^2 / 2) / sqrt(m) for the m rows of omega, x (d,)."""
    m = omega.shape[0]
    half = (x * x).sum() / 2
    features: Tensor = torch.stack([torch.exp((omega[r] * x).sum() - half) for r in range(m)]) / m**0.5
    return features


def naive_variance(x: Tensor, y: Tensor, features: str = "positive") -> Tensor:
    """Return the variance of one independent feature (m = 1) around exp(x . y)."""
    kappa = torch.exp((x * y).sum())
    far, near = ((x + y) ** 2).sum(), ((x - y) ** 2).sum()
    if features == "positive":
        return kappa**2 * (torch.exp(far) - 1)
    return 0.5 * torch.exp(far) * kappa**-2 * (1 - torch.exp(-near)) ** 2


def naive_performer(q: Tensor, k: Tensor, v: Tensor, omega: Tensor, mask: Tensor) -> Tensor:
    """Return out (B, T, H, e); queries and keys are multiplied by d^(-1/4)."""
    batch, t, heads, d = q.shape
    out = []
    for b in range(batch):
        for h in range(heads):
            s, z = v.new_zeros(len(omega), d), v.new_zeros(len(omega))
            for i in range(t):
                if mask[b, i]:
                    f = naive_positive(k[b, i, h] * d**-0.25, omega)
                    s, z = s + f[:, None] * v[b, i, h][None, :], z + f
                    f = naive_positive(q[b, i, h] * d**-0.25, omega)
                    out.append((f[:, None] * s).sum(0) / (f * z).sum())
                else:
                    out.append(v[b, i, h] * 0.0)
    return torch.stack(out).reshape(batch, heads, t, d).transpose(1, 2)


def naive_stabilised_features(x: Tensor, omega: Tensor, query: bool, eps: float) -> Tensor:
    """Return (B, T, H, m), (exp(omega_r . x - |x|^2 / 2 - top) + eps) / sqrt(m) with x d^(-1/4).

    top is the largest omega_r . x of the same row for a query, of all tokens of a head for a key.
    """
    (batch, t, heads, d), m = x.shape, omega.shape[0]
    x = x * d**-0.25
    out = []
    for b in range(batch):
        for i in range(t):
            for h in range(heads):
                rows = [i] if query else range(t)
                top = max(float((omega[r] * x[b, n, h]).sum()) for n in rows for r in range(m))
                half = (x[b, i, h] * x[b, i, h]).sum() / 2
                dots = [(omega[r] * x[b, i, h]).sum() for r in range(m)]
                out.append(torch.stack([torch.exp(a - half - top) + eps for a in dots]) / m**0.5)
    return torch.stack(out).reshape(batch, t, heads, m)


def split(layer: PerformerAttention, x: Tensor) -> list[Tensor]:
    """Queries, keys and values (B, T, heads, d)."""
    inner = (layer.q_proj, layer.k_proj, layer.v_proj)
    return [part(x).unflatten(2, (layer.num_heads, -1)) for part in inner]


def naive(layer: PerformerAttention, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return (B, T, E)."""
    real = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
    q, k, v = split(layer, x)
    y: Tensor = layer.out_proj(naive_performer(q, k, v, layer.projection, real).flatten(2))
    return y


def small(chunk_size: int = 3, length: int = 7) -> tuple[PerformerAttention, Tensor]:
    """A layer with large random weights, and tokens."""
    torch.manual_seed(1)
    layer = PerformerAttention(12, 3, 6, chunk_size).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer, torch.randn(2, length, 12, dtype=torch.float64, requires_grad=True)


@each_mask
def test_equals_naive_reference(measured: Measured, mask: Tensor | None) -> None:
    layer, x = small()
    expected = naive(layer, x, mask)
    measured.close(layer(x, mask), expected)
    measured.gradients(layer(x, mask), expected, of=(x, *layer.parameters()))


@each_mask
def test_forward_equals_weights_times_values(measured: Measured, mask: Tensor | None) -> None:
    layer, x = small()
    read = torch.einsum("bhts,bshd->bthd", layer.attention(x, mask), split(layer, x)[2])
    expected = layer.out_proj(read.flatten(2))
    measured.close(layer(x, mask), expected)
    measured.gradients(layer(x, mask), expected, of=(x, *layer.parameters()))


@pytest.mark.parametrize("chunk_size", [1, 5, 100])
def test_the_size_of_chunks_changes_nothing(measured: Measured, chunk_size: int) -> None:
    layer, x = small(length=17)
    other, _ = small(chunk_size)
    measured.close(other(x), layer(x))
    measured.gradients(other(x), layer(x), of=(x,))


def test_padding_leaves_outputs_and_state_as_they_were(measured: Measured) -> None:
    """Two sequences, padded on the left and in several places, beside those without padding."""
    layer, x = small()
    y, state = layer.step(x, mask=PADDED)
    for row, real in enumerate(PADDED):
        alone, kept = layer.step(x[row : row + 1, real])
        measured.close(y[row : row + 1, real], alone)
        for part, right in zip(state, kept, strict=True):
            torch.testing.assert_close(part[row : row + 1], right, atol=1e-10, rtol=0)
    assert (y[~PADDED] == layer.out_proj.bias).all()


def test_a_state_does_not_grow(measured: Measured) -> None:
    layer, x = small()
    sizes = [sum(part[0].numel() for part in layer.step(x[:, :T])[1]) for T in (1, 7)]
    assert sizes[0] == sizes[1]
    measured.count(sizes[0], 3 * 6 * (4 + 1))


def test_features_are_a_gated_linear_memory(measured: Measured) -> None:
    """A gate for each feature, keys 1 - gate: S = gate S + (1 - gate) v^T, and queries that sum to one."""
    layer, x = small()
    q, k, v = (t.transpose(1, 2) for t in split(layer, x))  # (B, heads, T, 4)
    log_q, log_k = (4**-0.25 * t @ layer.projection.mT for t in (q, k))
    log_sum = (log_k - 4**-0.5 * k.square().sum(dim=-1, keepdim=True) / 2).logcumsumexp(dim=2)
    memory, read = torch.zeros(2, 3, 6, 4, dtype=torch.float64), []
    for t in range(7):
        gate = (log_sum[:, :, t - 1] - log_sum[:, :, t]).exp() if t else torch.zeros_like(log_sum[:, :, 0])
        memory = gate[..., None] * memory + (1 - gate)[..., None] * v[:, :, t, None]
        read.append(torch.einsum("bhr,bhrd->bhd", (log_q + log_sum)[:, :, t].softmax(dim=-1), memory))
    measured.close(layer(x), layer.out_proj(torch.stack(read, dim=1).flatten(2)))


def pair(radius: float, degrees: float, dim: int) -> tuple[Tensor, Tensor]:
    """Two vectors of this length at this angle."""
    x, y = torch.zeros(2, dim, dtype=torch.float64)
    angle = math.radians(degrees)
    x[0], y[0], y[1] = radius, radius * math.cos(angle), radius * math.sin(angle)
    return x, y


def positive(x: Tensor, y: Tensor, omega: Tensor) -> Tensor:
    """Estimates of exp(x . y), one for each vector, divided by it."""
    return (omega @ (x + y) - (x + y).square().sum() / 2).exp()


def trigonometric(x: Tensor, y: Tensor, omega: Tensor) -> Tensor:
    """The same from sines and cosines."""
    return ((x - y).square().sum() / 2).exp() * (omega @ (x - y)).cos()


def unrepaired(features: int, dim: int) -> Tensor:
    """Vectors as public code draws them, from the Q that comes back."""
    q, _ = torch.linalg.qr(torch.randn(features // dim, dim, dim))
    drawn: Tensor = q.mT.flatten(0, 1) * torch.randn(features, dim).norm(dim=1, keepdim=True)
    return drawn


@pytest.mark.parametrize("sign", [1, -1], ids=["along the axes", "against them"])
def test_the_estimate_is_right_on_average_only_with_repaired_signs(measured: Measured, sign: int) -> None:
    """Two vectors of length one at right angles, 80,000 blocks of 8 vectors; of the true exp(x . y)."""
    torch.manual_seed(0)
    x, y = sign * torch.eye(8, dtype=torch.float64)[:2]
    repaired = positive(x, y, directions(640_000, 8).double()).mean().item()
    measured.value("repaired", repaired, equals=1, within=0.03)
    raw = positive(x, y, unrepaired(640_000, 8).double()).mean().item()
    if sign > 0:
        measured.value("as it comes", raw, below=0.9)
    else:
        measured.value("as it comes", raw, above=1.1)


@pytest.mark.parametrize("degrees", [60, 90, 120])
def test_the_variance_is_that_of_the_formula(measured: Measured, degrees: int) -> None:
    """200,000 independent vectors, two vectors of length 1/2; the ratio to the formula."""
    torch.manual_seed(0)
    x, y = pair(0.5, degrees, 16)
    omega, kappa = torch.randn(200_000, 16, dtype=torch.float64), (x @ y).exp()
    for features, estimate in (("positive", positive), ("trigonometric", trigonometric)):
        ratio = (kappa * estimate(x, y, omega)).var() / naive_variance(x, y, features)
        measured.value(features, ratio.item(), equals=1, within=0.05)


def test_positive_features_are_exact_for_opposed_vectors_and_others_for_equal_ones(
    measured: Measured,
) -> None:
    """Deviation of one feature, in units of the true value, two vectors of length one."""
    torch.manual_seed(0)
    omega = torch.randn(200_000, 16, dtype=torch.float64)
    equal, opposed = pair(1, 0, 16), pair(1, 180, 16)
    measured.value("positive, opposed", positive(*opposed, omega).std().item(), at_most=1e-10)
    measured.value("trigonometric, opposed", trigonometric(*opposed, omega).std().item(), above=4)
    measured.value("trigonometric, equal", trigonometric(*equal, omega).std().item(), at_most=1e-10)
    measured.value("positive, equal", positive(*equal, omega).std().item(), above=4)


def test_orthogonal_vectors_lower_the_variance(measured: Measured) -> None:
    """Of the mean over 16 vectors, in units of that of independent ones; length 0.7, right angle."""
    torch.manual_seed(0)
    x, y = pair(0.7, 90, 16)
    means = positive(x, y, directions(16 * 20_000, 16).double()).view(-1, 16).mean(dim=1)
    independent = naive_variance(x, y) / (x @ y).exp() ** 2 / 16
    measured.value("ratio", (means.var() / independent).item(), above=0.6, below=0.95)


def errors(scale: float, features: int | None = None) -> tuple[float, float]:
    """Relative error of a layer, and of the mean of the values so far, against softmax; ten draws.

    Four heads of width 16 on 64 tokens; entries of queries and keys have this deviation.
    """
    found = []
    for seed in range(10):
        torch.manual_seed(seed)
        layer, x = PerformerAttention(64, 4, features), torch.randn(1, 64, 64)
        for projection, std in ((layer.q_proj, scale), (layer.k_proj, scale), (layer.v_proj, 1)):
            nn.init.normal_(projection.weight, std=std / 8)
        exact, mean = MultiHeadAttention(64, 4), MultiHeadAttention(64, 4)
        for other in (exact, mean):
            other.load_state_dict({key: w for key, w in layer.state_dict().items() if key != "projection"})
        for parameter in mean.q_proj.parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            y = exact(x, is_causal=True)
            found.append(
                [((each - y).norm() / y.norm()).item() for each in (layer(x), mean(x, is_causal=True))]
            )
    error, of_mean = torch.tensor(found).mean(dim=0).tolist()
    return error, of_mean


def test_at_the_usual_size_the_mean_of_the_values_is_closer(measured: Measured) -> None:
    """44 features for heads of 16, entries of deviation one."""
    error, of_mean = errors(1.0)
    measured.value("error of the estimate", error, above=0.7)
    measured.value("of the mean of the values", of_mean, below=0.7)
    measured.value("estimate to mean", error / of_mean, above=1.1)


@pytest.mark.parametrize(("scale", "least"), [(0.5, 3), (1.0, 1)], ids=["deviation 1/2", "deviation 1"])
def test_sixteen_times_the_features(measured: Measured, scale: float, least: float) -> None:
    """How many times the error gets smaller; four, if nothing but the variance of a mean counts."""
    gain = errors(scale, 44)[0] / errors(scale, 16 * 44)[0]
    measured.value("error, 44 to 704 features", gain, above=least, below=5)


def test_equal_keys_give_the_mean_of_the_values(measured: Measured) -> None:
    layer, x = small()
    nn.init.zeros_(layer.k_proj.weight)
    mean = split(layer, x)[2].cumsum(dim=1) / torch.arange(1, 8)[:, None, None]
    measured.close(layer(x), layer.out_proj(mean.flatten(2)))


def test_a_shift_of_all_keys_changes_the_estimate(measured: Measured) -> None:
    """Softmax does not see it: each score of a query grows by the same number."""
    layer, x = small()
    exact = MultiHeadAttention(12, 3).double()
    changes = []
    for block in (layer, exact):
        exact.load_state_dict({key: w for key, w in layer.state_dict().items() if key != "projection"})
        before = block(x) if block is layer else exact(x, is_causal=True)
        nn.init.ones_(block.k_proj.bias)
        after = block(x) if block is layer else exact(x, is_causal=True)
        changes.append((after - before).abs().max().item())
    measured.value("change of the estimate", changes[0], above=0.1)
    measured.value("of softmax", changes[1], at_most=1e-10)


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    """Within a chunk and beyond, however large they are."""
    layer, x = small(length=17)
    for scale in (1, 1e4):
        changed = torch.cat([x[:, :8], scale * torch.randn_like(x[:, 8:])], dim=1)
        measured.close(layer(changed)[:, :8], layer(x)[:, :8], tolerance=0)
        assert not torch.isclose(layer(changed), layer(x))[:, 8:].any()


def with_a_maximum(layer: PerformerAttention, x: Tensor, last: float, eps: float) -> Tensor:
    """Reads of all tokens but the last, whose key is so many times as large; as public code stabilises."""
    with torch.no_grad():
        q, k, v = split(layer, x)
        k = torch.cat([k[:, :-1], last * k[:, -1:]], dim=1)
        q = naive_stabilised_features(q, layer.projection, True, eps)
        k = naive_stabilised_features(k, layer.projection, False, eps)
    weights = torch.einsum("bihm,bjhm->bhij", q, k).tril()
    read = torch.einsum("bhij,bjhd->bihd", weights / weights.sum(dim=-1, keepdim=True), v)
    y: Tensor = layer.out_proj(read.flatten(2))
    return y[:, :-1]


def test_a_maximum_over_keys_looks_ahead(measured: Measured) -> None:
    """How far earlier outputs move when the last key is four times as large."""
    layer, x = small()
    added, exact = (
        (with_a_maximum(layer, x, 4, eps) - with_a_maximum(layer, x, 1, eps)).abs().max().item()
        for eps in (1e-4, 0)
    )
    measured.value("with 1e-4 added to features", added, above=0.1)
    measured.value("with nothing added", exact, at_most=1e-10)


def test_a_maximum_over_keys_without_a_number_added_gives_nan(measured: Measured) -> None:
    """The features of earlier keys underflow when the last is 10,000 times as large."""
    layer, x = small()
    measured.count(int(with_a_maximum(layer, x, 1e4, 0).isnan().any(dim=2).sum()), 2 * 6)
    measured.value("outputs of this layer, largest", layer(1e4 * x).abs().max().item(), below=1e6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((65, 4), "embed_dim 65 must be divisible by num_heads 4"),
        ((64, 4, 0), "num_features 0 must be at least 1"),
        ((64, 4, 9, 0), "chunk_size 0 must be at least 1"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerformerAttention(*arguments)


def test_refuses_masks_that_tell_no_padding() -> None:
    layer, (x,) = example()
    with pytest.raises(ValueError, match=r"mask \(10, 10\) must be \(B, T\) = \(2, 10\)"):
        layer(x, torch.ones(10, 10, dtype=torch.bool))
    with pytest.raises(TypeError, match="mask must be bool, True = a token"):
        layer(x, torch.ones(2, 10))


def test_refuses_states_of_other_features() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    with pytest.raises(ValueError, match=r"^state log_sum \(2, 3, 8\) of torch.float32 must be"):
        layer.step(x, PerformerState(state.mean, state.log_sum[:, :, 1:]))


def test_default_features_are_those_of_public_code() -> None:
    assert [PerformerAttention(dim, 1).projection.shape[0] for dim in (1, 16, 64)] == [1, 44, 266]
