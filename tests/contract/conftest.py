"""Runs every test that asks for `name` once for each mechanism, for `case` also for each of its variants.

`reader` stands for those of them that have `step`, `recurrent` for those whose `step` takes a mask.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from filelock import FileLock

from sitekit import store
from snippets.catalogue import CATALOGUE
from tests.conftest import ROOT
from tests.contract.exceptions import reasons
from tests.contract.walker import CASES, MODULES, READERS, RECURRENT, slug


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kinds = {"name": MODULES, "case": CASES, "reader": READERS, "recurrent": RECURRENT}
    for fixture, values in kinds.items():
        if fixture not in metafunc.fixturenames:
            continue
        excepted = reasons(metafunc.function.__name__)
        cases = []
        for value in values:
            reason = excepted.get(slug(value))
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            cases.append(pytest.param(value, id=slug(value), marks=marks))
        metafunc.parametrize(fixture, cases)


@pytest.fixture(scope="session")
def counted(request: pytest.FixtureRequest) -> None:
    """Count what the tests ask the store for, all in one go; nothing is left to do if the site was built."""
    items = [item for item in request.session.items if "counted" in getattr(item, "fixturenames", ())]
    slugs = {found for item in items for found in _about(item)}
    lock = ROOT / ".sitecache" / "site.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        store.refresh((kind, name) for kind in ("block", "cost") for name in slugs)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--mechanism`, leave out of the contract what is not about it; other tests stay."""
    wanted = config.getoption("--mechanism")
    if not wanted:
        return
    contract = ROOT / "tests" / "contract"
    left_out = [item for item in items if item.path.is_relative_to(contract) and wanted not in _about(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _about(item: pytest.Item) -> Iterator[str]:
    """Yield the slugs of the mechanisms that a test of the contract is about."""
    parameters: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    for key in ("name", "case", "reader", "recurrent", "slug"):
        if key in parameters:
            yield slug(parameters[key]).partition(":")[0]
    if "page" in parameters:
        pages = {row.path.replace("_", "-") + ".md": row.slug for row in CATALOGUE.values()}
        yield pages.get(str(parameters["page"]), "")
