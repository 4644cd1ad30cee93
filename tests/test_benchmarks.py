"""What the benchmarks compare computes the same; the times themselves are for those who run them."""

import json
from typing import Any

import pytest

from benchmarks import growth
from benchmarks.pair import Pair
from benchmarks.pairs import ABOVE_ONE, PAIRS, WITHOUT_TWIN
from snippets.catalogue import CATALOGUE

MEASURED: dict[str, dict[str, Any]] = json.loads(growth.FILE.read_text())["blocks"]


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_computes_the_same(name: str) -> None:
    PAIRS[name]().check()


def test_another_computation_is_refused() -> None:
    pair = PAIRS["senet"]()
    with pytest.raises(ValueError, match="computes something else"):
        Pair(pair.public, pair.ours, lambda x: 2 * pair.ours(x), pair.inputs).check()


def test_every_mechanism_has_a_twin_or_a_reason() -> None:
    compared = {name.removesuffix("_encoder").removesuffix("_decoder") for name in PAIRS}
    assert sorted([*compared, *WITHOUT_TWIN]) == sorted(CATALOGUE)
    assert set(ABOVE_ONE) <= set(PAIRS)
    assert all([*WITHOUT_TWIN.values(), *ABOVE_ONE.values()])


def test_every_spatial_block_is_measured_or_left_out_with_a_reason() -> None:
    spatial = {slug for slug, row in CATALOGUE.items() if row.path.startswith("attention_domain/spatial/")}
    assert set(growth.BLOCKS) | set(growth.LEFT_OUT) == spatial
    assert not set(growth.BLOCKS) & set(growth.LEFT_OUT)
    assert all(growth.LEFT_OUT.values())


def test_the_recorded_measurement_is_of_these_blocks_and_sizes() -> None:
    assert list(MEASURED) == list(growth.BLOCKS)
    for slug, block in MEASURED.items():
        assert block["positions"] == [side**2 for side in growth.sides(slug)]


def test_recorded_exponents_are_those_of_the_recorded_figures() -> None:
    assert (
        growth.with_exponents({slug: {**block, "exponents": {}} for slug, block in MEASURED.items()})
        == MEASURED
    )


@pytest.mark.parametrize("slug", growth.BLOCKS)
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
