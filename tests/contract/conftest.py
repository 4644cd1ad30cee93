"""Runs every test that asks for `name` once for each mechanism, for `case` also for each of its variants."""

import pytest

from tests.contract.exceptions import EXCEPTIONS
from tests.contract.walker import CASES, MODULES, slug


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, values in (("name", MODULES), ("case", CASES)):
        if fixture not in metafunc.fixturenames:
            continue
        reasons = EXCEPTIONS.get(metafunc.function.__name__, {})
        cases = []
        for value in values:
            reason = reasons.get(slug(value))
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            cases.append(pytest.param(value, id=slug(value), marks=marks))
        metafunc.parametrize(fixture, cases)
