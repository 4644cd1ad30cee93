"""The formulas of the catalogue equal what is counted on the running code."""

import dataclasses

import pytest

from sitekit import cost
from sitekit.errors import BuildError
from snippets.catalogue import CATALOGUE
from tests.contract.walker import load


def test_formulas_equal_the_counts(name: str) -> None:
    rows = cost.rows(CATALOGUE[name.rpartition(".")[2]], load(name))
    assert len(rows) >= 3


@pytest.mark.parametrize("wrong", [{"parameters": "C**2"}, {"macs": "2*B*C**2/r + H"}])
def test_a_wrong_formula_is_refused(wrong: dict[str, str]) -> None:
    mechanism = dataclasses.replace(CATALOGUE["senet"], **wrong)
    with pytest.raises(BuildError, match="counted"):
        cost.rows(mechanism, load(mechanism.module))
