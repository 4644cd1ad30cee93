"""The house: snippet, test, figure and the pages of a mechanism share one path."""

import dataclasses
import re
from typing import Any

import pytest

from sitekit import steps
from snippets.catalogue import CATALOGUE, Chapter, Domain
from tests.conftest import ROOT
from tests.contract.exceptions import STATED, reasons
from tests.contract.walker import CASES, sizes, slug


def test_nothing_of_any_mechanism_is_missing() -> None:
    steps.check(CATALOGUE.values())


def test_rows_stand_in_reading_order() -> None:
    """By domain, foundations first, and within a domain by chapter; site and command line show them so."""
    places = [(row.domain, row.chapter) for row in CATALOGUE.values()]
    order = [(domain, chapter) for domain in (None, *Domain) for chapter in Chapter]
    assert places == sorted(places, key=order.index)


@pytest.mark.parametrize("field", ["weights", "domain", "chapter", "evidence"])
def test_a_row_with_an_unknown_value_is_refused_in_words(field: str) -> None:
    wrong: dict[str, Any] = {field: ("papper",) if field == "evidence" else "papper"}
    with pytest.raises(ValueError, match=f"^senet: unknown {field} 'papper'; (did you mean|known:)"):
        dataclasses.replace(CATALOGUE["senet"], **wrong)


def test_example_has_distinct_sizes(name: str) -> None:
    defaults = sizes(name)
    assert all(isinstance(size, int) for size in defaults.values())
    assert len(set(defaults.values())) == len(defaults)


def test_related_mechanisms_exist() -> None:
    unknown = {slug for row in CATALOGUE.values() for slug in row.related} - set(CATALOGUE)
    assert not unknown


def test_names_lead_to_one_mechanism() -> None:
    names = [
        (name.casefold(), row.slug)
        for row in CATALOGUE.values()
        for name in {alias.casefold() for alias in (row.slug, row.title, *row.aliases)}
    ]
    assert len(names) == len(dict(names))


def test_exceptions_name_real_tests_and_cases_of_their_own() -> None:
    texts = [file.read_text() for file in (ROOT / "tests" / "contract").glob("test_*.py")]
    known = {slug(case) for case in CASES}
    for mechanism, found in STATED.items():
        for check, excepted in found.items():
            assert any(re.search(rf"def {check}\(\s*(name|case)\b", text) for text in texts), check
            assert {case.partition(":")[0] for case in excepted} == {mechanism}
            assert set(excepted) <= known
            assert all(excepted.values())


def test_exceptions_are_found_where_they_are_stated() -> None:
    assert set(reasons("test_gradcheck")) >= {"em_attention", "ram", "hamburger:vq"}
    assert reasons("test_no_such") == {}
