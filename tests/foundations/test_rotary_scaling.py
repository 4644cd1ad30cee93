"""Proofs of stretched rotary positions."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from snippets.foundations.rotary_scaling import (
    ScaledRotaryAttention,
    dynamic,
    example,
    linear,
    longrope,
    longrope_length,
    ntk,
    paper_ramp,
    plain,
    yarn,
    yarn_length,
)
from tests.measure import Measured

D, BASE, FACTOR, TRAINED = 64, 1e4, 4.0, 4096
LONG = tuple(1 + 0.3 * n for n in range(D // 2))


def naive_plain(d: int, base: float) -> list[float]:
    """Return f_i = base^(-2 i / d)."""
    return [base ** (-2 * i / d) for i in range(d // 2)]


def naive_ntk(d: int, base: float, s: float) -> list[float]:
    """Return the frequencies of the base b s^(d / (d - 2))."""
    return naive_plain(d, base * s ** (d / (d - 2)))


def naive_dynamic(d: int, base: float, s: float, length: int, trained: int) -> list[float]:
    """Return the frequencies for a length, plain ones up to the trained length."""
    if length <= trained:
        return naive_plain(d, base)
    return naive_plain(d, base * (s * length / trained - (s - 1)) ** (d / (d - 2)))


def naive_blend(f: float, s: float, keep: float) -> float:
    """Return keep f + (1 - keep) f / s, keep cut to [0, 1]."""
    keep = min(max(keep, 0.0), 1.0)
    return keep * f + (1 - keep) * f / s


def naive_pair_index(r: float, d: int, base: float, trained: int) -> float:
    """Return the real pair index whose frequency makes r turns over the trained length."""
    return d * math.log(trained / (2 * math.pi * r)) / (2 * math.log(base))


def naive_yarn(d: int, base: float, s: float, trained: int, truncate: bool) -> list[float]:
    """Return YaRN's frequencies with the released ramp, linear in the pair index."""
    low, high = naive_pair_index(32, d, base, trained), naive_pair_index(1, d, base, trained)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d - 1)
    return [naive_blend(f, s, 1 - (i - low) / (high - low)) for i, f in enumerate(naive_plain(d, base))]


def naive_ramp(d: int, base: float, s: float, trained: int, slow: float, fast: float) -> list[float]:
    """Return the frequencies with the ramp linear in the turns over the trained length."""
    out = []
    for f in naive_plain(d, base):
        out.append(naive_blend(f, s, (trained * f / (2 * math.pi) - slow) / (fast - slow)))
    return out


def naive(q: Tensor, k: Tensor, v: Tensor, frequencies: list[float], factor: float) -> Tensor:
    """Return (B, H, T, d_v), pairs (i, i + d / 2) turned and lengthened, query t at S - T + t."""
    half, offset = q.shape[-1] // 2, k.shape[2] - q.shape[2]

    def turn(x: Tensor, position: int) -> Tensor:
        first, second = [], []
        for i, f in enumerate(frequencies):
            c, s = factor * math.cos(position * f), factor * math.sin(position * f)
            first.append(x[i] * c - x[i + half] * s)
            second.append(x[i] * s + x[i + half] * c)
        return torch.stack(first + second)

    out = []
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for t in range(q.shape[2]):
                query, seen = turn(q[b, h, t], offset + t), range(offset + t + 1)
                e = [torch.exp((query * turn(k[b, h, j], j)).sum() * q.shape[-1] ** -0.5) for j in seen]
                out.append(sum(a * v[b, h, j] for j, a in enumerate(e)) / sum(e))
    return torch.stack(out).reshape(*q.shape[:3], -1)


def tensors(d: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    shapes = (2, 2, 4, d), (2, 2, 6, d), (2, 2, 6, 5)
    query, key, value = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return query, key, value


def test_equals_naive_reference(measured: Measured) -> None:
    inputs, length = tensors(), yarn_length(4.0)
    attend = ScaledRotaryAttention(yarn(8, 4.0, trained=64, fast=8.0), length)
    low, high = math.floor(naive_pair_index(8, 8, 1e4, 64)), math.ceil(naive_pair_index(1, 8, 1e4, 64))
    keep = [1 - (i - max(low, 0)) / (high - max(low, 0)) for i in range(4)]
    frequencies = [naive_blend(f, 4.0, k) for f, k in zip(naive_plain(8, 1e4), keep, strict=True)]
    expected = naive(*inputs, frequencies, 0.1 * math.log(4.0) + 1)
    measured.close(attend(*inputs), expected)
    measured.gradients(attend(*inputs), expected, of=inputs)


def test_fused_forward_equals_weights_times_values(measured: Measured) -> None:
    inputs, attend = tensors(), ScaledRotaryAttention(yarn(8, 4.0, trained=64), yarn_length(4.0))
    explicit = attend.attention(*inputs) @ inputs[2]
    measured.close(attend(*inputs), explicit)
    measured.gradients(attend(*inputs), explicit, of=inputs)


WAYS: dict[str, tuple[Callable[[], Tensor], Callable[[], list[float]]]] = {
    "linear": (lambda: linear(plain(D), FACTOR), lambda: [f / FACTOR for f in naive_plain(D, BASE)]),
    "ntk": (lambda: ntk(D, FACTOR), lambda: naive_ntk(D, BASE, FACTOR)),
    "dynamic": (
        lambda: dynamic(D, FACTOR, 3 * TRAINED, TRAINED),
        lambda: naive_dynamic(D, BASE, FACTOR, 3 * TRAINED, TRAINED),
    ),
    "yarn": (lambda: yarn(D, FACTOR, TRAINED), lambda: naive_yarn(D, BASE, FACTOR, TRAINED, True)),
    "yarn, not truncated": (
        lambda: yarn(D, FACTOR, TRAINED, truncate=False),
        lambda: naive_yarn(D, BASE, FACTOR, TRAINED, False),
    ),
    "yarn, paper": (
        lambda: paper_ramp(plain(D), FACTOR, TRAINED),
        lambda: naive_ramp(D, BASE, FACTOR, TRAINED, 1, 32),
    ),
    "llama3": (
        lambda: paper_ramp(plain(D), FACTOR, TRAINED, 1.0, 4.0),
        lambda: naive_ramp(D, BASE, FACTOR, TRAINED, 1, 4),
    ),
    "longrope": (
        lambda: longrope(plain(D), LONG),
        lambda: [f / n for f, n in zip(naive_plain(D, BASE), LONG, strict=True)],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_frequencies_equal_naive_reference(measured: Measured, way: str) -> None:
    ours, expected = (make() for make in WAYS[way])
    measured.close(ours, torch.tensor(expected, dtype=torch.float64), tolerance=1e-12)


LENGTHS = {"original_max_position_embeddings": TRAINED}
PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear", {}),
    "dynamic": ("dynamic", {}),
    "yarn": ("yarn", LENGTHS),
    "yarn, not truncated": ("yarn", LENGTHS | {"truncate": False}),
    "llama3": ("llama3", LENGTHS | {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    "longrope": ("longrope", LENGTHS | {"short_factor": [1.0] * (D // 2), "long_factor": list(LONG)}),
}


@pytest.mark.parametrize("way", PARAMETERS)
def test_frequencies_equal_those_of_transformers(measured: Measured, way: str) -> None:
    """They are float32 there."""
    kind, parameters = PARAMETERS[way]
    parameters = {"rope_type": kind, "rope_theta": BASE, "factor": FACTOR} | parameters
    reach = TRAINED if kind == "dynamic" else 4 * TRAINED
    sizes = {"hidden_size": D, "num_attention_heads": 1, "head_dim": D, "max_position_embeddings": reach}
    config = LlamaConfig(**sizes, rope_parameters=parameters)
    theirs, length = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=3 * TRAINED)
    ours = WAYS[way][0]()
    measured.value("relative difference", ((theirs - ours) / ours).abs().max().item(), at_most=1e-6)
    expected = {"yarn": yarn_length(FACTOR), "longrope": longrope_length(FACTOR, TRAINED)}.get(kind, 1.0)
    measured.value("length, |Δ|", abs(length - expected), at_most=1e-12)


def test_factor_one_is_plain(measured: Measured) -> None:
    old = plain(D)
    ways = linear(old, 1.0), ntk(D, 1.0), dynamic(D, 1.0, TRAINED, TRAINED), yarn(D, 1.0, TRAINED)
    for new in (*ways, paper_ramp(old, 1.0, TRAINED), longrope(old, [1.0] * (D // 2))):
        measured.close(new, old, tolerance=1e-15)
    measured.close(dynamic(D, FACTOR, TRAINED, TRAINED), old, tolerance=0)
    further = dynamic(D, 1.0, 2 * TRAINED, TRAINED)  # the exception: it stretches by the length all the same
    measured.close(further, ntk(D, 2.0), tolerance=1e-15)
    assert yarn_length(1.0) == longrope_length(1.0, TRAINED) == 1.0


def test_linear_is_positions_divided(measured: Measured) -> None:
    """The fourth next, at a quarter of the pace, is turned like the next."""
    key = torch.randn(1, 1, 9, 8, dtype=torch.float64)
    slow = ScaledRotaryAttention(linear(plain(8), 4.0))._turned(key, key)[1][:, :, ::4]
    fast = ScaledRotaryAttention(plain(8))._turned(key[:, :, ::4], key[:, :, ::4])[1]
    measured.close(slow, fast)


def test_ntk_keeps_the_first_pair_and_divides_the_last(measured: Measured) -> None:
    ratio = ntk(D, FACTOR) / plain(D)
    measured.value("first", ratio[0].item(), equals=1)
    measured.value("last", ratio[-1].item(), equals=0.25, within=1e-12)


def counts(new: Tensor, old: Tensor, factor: float) -> tuple[int, int, int]:
    """How many pairs are kept, in between, and divided."""
    kept = int(torch.isclose(new, old, rtol=1e-12).sum())
    divided = int(torch.isclose(new, old / factor, rtol=1e-12).sum())
    return kept, len(old) - kept - divided, divided


def test_pairs_of_known_models(measured: Measured) -> None:
    """Llama 3.1, DeepSeek-V3 and gpt-oss."""
    llama = counts(paper_ramp(plain(128, 5e5), 8.0, 8192, 1.0, 4.0), plain(128, 5e5), 8.0)
    deepseek = counts(yarn(64, 40.0, 4096), plain(64), 40.0)
    oss = counts(yarn(64, 32.0, 4096, base=1.5e5, truncate=False), plain(64, 1.5e5), 32.0)
    for found, expected in ((llama, (29, 6, 29)), (deepseek, (11, 12, 9)), (oss, (9, 9, 14))):
        for one, right in zip(found, expected, strict=True):
            measured.count(one, right)


def test_code_of_yarn_is_not_its_paper(measured: Measured) -> None:
    code, paper = yarn(D, FACTOR, TRAINED), paper_ramp(plain(D), FACTOR, TRAINED)
    off = (code - paper).abs() / paper
    measured.count(int((off > 1e-12).sum()), 12)
    measured.value("largest share", off.max().item(), equals=0.73, within=0.005)


def test_rounding_the_ends_of_the_ramp_matters(measured: Measured) -> None:
    """At the sizes of gpt-oss, which does not round."""
    rounded, exact = (yarn(64, 32.0, 4096, base=1.5e5, truncate=truncate) for truncate in (True, False))
    measured.value("largest share", ((rounded - exact).abs() / exact).max().item(), above=0.4)


def test_lengths_act_on_scores_by_their_square(measured: Measured) -> None:
    query, key, _ = tensors()
    long, short = (ScaledRotaryAttention(plain(8), length) for length in (yarn_length(4.0), 1.0))
    products = [torch.matmul(q, k.mT) for q, k in (a._turned(query, key) for a in (long, short))]
    measured.close(products[0], products[1] * yarn_length(4.0) ** 2)
    measured.value("growth of scores", yarn_length(4.0) ** 2, equals=1.2965, within=0.0001)


def test_dynamic_scaling_leaves_keys_of_another_pace(measured: Measured) -> None:
    """A key kept at 5,000 tokens is turned otherwise than one of the same place at 8,000."""
    earlier, later = (dynamic(D, FACTOR, length, TRAINED) * 4999 for length in (5000, 8000))
    measured.value("largest angle between", (earlier - later).abs().max().item(), above=1)


@pytest.mark.parametrize("length", [0.0, -1.0, math.inf, math.nan])
def test_refuses_lengths_that_are_none(length: float) -> None:
    with pytest.raises(ValueError, match="must be above 0 and finite"):
        ScaledRotaryAttention(plain(8), length)


def test_refuses_heads_of_another_width() -> None:
    _, inputs = example(d=8)
    with pytest.raises(ValueError, match="with d = 6"):
        ScaledRotaryAttention(plain(6))(*inputs)
