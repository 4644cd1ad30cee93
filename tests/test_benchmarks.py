"""What the benchmarks compare computes the same; the times themselves are for `make benchmarks`."""

import pytest

from benchmarks.__main__ import PAIRS
from benchmarks.pair import Pair
from snippets.catalogue import CATALOGUE


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_computes_the_same(name: str) -> None:
    PAIRS[name]().check()


def test_another_computation_is_refused() -> None:
    pair = PAIRS["senet"]()
    with pytest.raises(ValueError, match="computes something else"):
        Pair(pair.public, pair.ours, lambda x: 2 * pair.ours(x), pair.inputs).check()


def test_names_are_those_of_mechanisms() -> None:
    assert [
        name for name in PAIRS if name.removesuffix("_encoder").removesuffix("_decoder") not in CATALOGUE
    ] == []
