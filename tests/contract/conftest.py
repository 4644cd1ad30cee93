"""Runs every test that asks for `name` once for each mechanism found by the walker."""

import pytest

from tests.contract.exceptions import EXCEPTIONS
from tests.contract.walker import MODULES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" not in metafunc.fixturenames:
        return
    reasons = EXCEPTIONS.get(metafunc.function.__name__, {})
    cases = []
    for module in MODULES:
        slug = module.rsplit(".", 1)[-1]
        marks = [pytest.mark.xfail(reason=reasons[slug], strict=True)] if slug in reasons else []
        cases.append(pytest.param(module, id=slug, marks=marks))
    metafunc.parametrize("name", cases)
