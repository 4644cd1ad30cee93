"""What the benchmarks compare computes the same; the times themselves are for those who run them."""

import json
from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest

from benchmarks import growth, recurrent
from benchmarks.compare import compare
from benchmarks.pair import Pair
from benchmarks.pairs import ALONE, PAIRS, mechanism
from benchmarks.turns import Ratio, in_turns
from snippets.catalogue import CATALOGUE

MEASURED: dict[str, dict[str, Any]] = json.loads(growth.FILE.read_text())["blocks"]


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_computes_the_same(name: str) -> None:
    PAIRS[name]().check()


def test_another_computation_is_refused() -> None:
    pair = PAIRS["senet"]()
    with pytest.raises(ValueError, match="computes something else"):
        Pair(pair.public, pair.ours, lambda x: 2 * pair.ours(x), pair.inputs).check()


class Clock:
    """Stands still until a step takes its time."""

    def __init__(self) -> None:
        self.now = 0.0

    def step(self, *seconds: float) -> Callable[[], None]:
        """Return a step whose calls take these seconds, one after the other, again and again."""
        durations = cycle(seconds)

        def run() -> None:
            self.now += next(durations)

        return run


def test_turns_keep_the_time_of_each_step_in_each_round() -> None:
    clock = Clock()
    steps = [clock.step(9, 1, 2, 3), clock.step(9, 4, 5, 6)]  # the first call of each warms up
    assert in_turns(steps, 3, lambda: clock.now) == [[1, 2, 3], [4, 5, 6]]


def test_every_second_round_runs_backwards() -> None:
    order: list[str] = []
    in_turns([lambda: order.append("a"), lambda: order.append("b")], 3, report=lambda: order.append("|"))
    assert "".join(order) == "ab" + "ab|ba|ab|"


def test_a_ratio_is_that_of_the_turns_not_of_the_medians() -> None:
    """A machine that slows down from turn to turn slows both sides; only the pairs tell."""
    clock = Clock()
    slowing = [1, 1, 2, 4, 8, 16]
    ours, theirs = in_turns(
        [clock.step(*slowing), clock.step(*(2 * t for t in slowing))], 5, lambda: clock.now
    )
    ratio = Ratio.of(ours, theirs)
    assert (ratio.low, ratio.median, ratio.high) == (0.5, 0.5, 0.5)
    assert str(ratio) == "0.50 (0.50 to 0.50)"


def test_one_disturbed_turn_changes_nothing() -> None:
    ratio = Ratio.of([1, 1, 90, 1, 1], [2, 2, 2, 2, 2])
    assert not ratio.wide
    assert ratio.median == 0.5


def test_wide_quartiles_give_no_verdict() -> None:
    ratio = Ratio.of([0.7, 0.8, 1.0, 1.7, 2.7], [1, 1, 1, 1, 1])
    assert ratio.wide
    assert str(ratio) == "no verdict (0.80 to 1.70)"


@pytest.mark.parametrize(("high", "wide"), [(1.09, False), (1.12, True)])
def test_quartiles_are_wide_from_a_fifth_of_the_median_on(high: float, wide: bool) -> None:
    assert Ratio(0.9, 1.0, high).wide is wide


def test_each_mechanism_is_measured_with_its_twin_or_alone() -> None:
    compared = {mechanism(name) for name in PAIRS}
    assert compared <= set(CATALOGUE)
    assert compared | set(ALONE) == set(CATALOGUE)
    assert not compared & set(ALONE)


@pytest.mark.parametrize("name", ["cbam", *ALONE])
def test_a_benchmark_gives_times_and_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.pair.SIDES", {})
    pair = (PAIRS | ALONE)[name]()
    for cost in compare(pair, 2, lambda: None):
        assert cost.milliseconds > 0
        assert cost.limit.low > 0
        assert cost.peak > max(x.nbytes for x in pair.inputs) / 4
        assert (cost.twin is None) == (cost.twin_peak is None) == (name in ALONE)


def test_growth_is_measured_on_spatial_blocks_of_the_catalogue() -> None:
    """A new one is measured the next time, without being named."""
    assert set(MEASURED) <= set(growth.blocks())
    assert not {"stochastic", "ra_cnn", *growth.LEFT_OUT} & set(growth.blocks())
    assert {*growth.IN_USE, *growth.LARGE} <= set(growth.blocks())


def test_the_recorded_measurement_is_at_these_sizes() -> None:
    for slug, block in MEASURED.items():
        assert block["positions"] == [side**2 for side in growth.sides(slug)]


def test_recorded_exponents_are_those_of_the_recorded_figures() -> None:
    assert (
        growth.with_exponents({slug: {**block, "exponents": {}} for slug, block in MEASURED.items()})
        == MEASURED
    )


@pytest.mark.parametrize("slug", MEASURED)
def test_recorded_memory_is_what_the_block_needs_today(slug: str) -> None:
    assert growth.peak(*growth.build(slug, 24)) == MEASURED[slug]["bytes"][1]


def test_the_overview_says_what_was_measured() -> None:
    """The sentences below the table of docs/*/attention-domain/spatial/index.md."""
    exponents = {slug: block["exponents"] for slug, block in MEASURED.items()}
    for slug in ("non_local", "self_attention_2d", "disentangled_non_local"):
        assert exponents[slug]["milliseconds"] > 1.7
        assert exponents[slug]["bytes"] < 1.05
    assert {slug for slug, kinds in exponents.items() if kinds["bytes"] > 1.9} == {
        "attention_factors",
        "psanet",
    }
    assert all(exponents[slug]["milliseconds"] < 0.8 for slug in ("global_context", "gather_excite"))
    dense, cross = (MEASURED[slug]["milliseconds"] for slug in ("non_local", "criss_cross"))
    assert [a <= b for a, b in zip(dense, cross, strict=True)][:2] == [True, True]
    assert dense[-1] > 2 * cross[-1]


@pytest.mark.parametrize("slug", recurrent.RULES)
def test_a_rule_its_recurrence_and_transformers_compute_the_same(slug: str) -> None:
    recurrent.check(slug)


def test_a_recurrence_without_its_gate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rule, names = recurrent.RULES["gated_delta"]
    monkeypatch.setitem(
        recurrent.RULES, "gated_delta", (lambda q, k, v, g, beta: rule(q, k, v, 0 * g, beta), names)
    )
    with pytest.raises(ValueError, match="gated_delta: the recurrence computes something else"):
        recurrent.check("gated_delta")


def test_the_chapter_on_linear_attention_says_what_was_measured() -> None:
    """The sentences below the figure of docs/*/linear-to-delta.md."""
    record = json.loads(recurrent.FILE.read_text())
    lengths, rules = record["setting"]["lengths"], record["rules"]
    assert tuple(lengths) == recurrent.LENGTHS
    softmax = rules["softmax"]["milliseconds"]
    first = {
        slug: next(
            (n for n, own, other in zip(lengths, rule["milliseconds"], softmax, strict=True) if own < other),
            None,
        )
        for slug, rule in rules.items()
    }
    assert first == {
        "linear": 256,
        "decayed_linear": 512,
        "delta_rule": 1024,
        "gated_delta": 1024,
        "kimi_delta": None,
        "softmax": None,
    }
    for slug, rule in rules.items():
        for kind in ("milliseconds", "bytes"):
            assert growth.exponent(lengths, rule[kind]) == rule["exponents"][kind]
        assert 0.99 < rule["exponents"]["bytes"] < 1.01
        assert rule["bytes"] >= rules["softmax"]["bytes"]
        power = rule["exponents"]["milliseconds"]
        assert round(power, 1) == 1.8 if slug == "softmax" else 1.15 < power < 1.45
