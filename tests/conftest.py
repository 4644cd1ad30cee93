"""Recording of proofs: `pytest --record` writes what the proofs measured to `docs/proofs.json`."""

import datetime
import importlib
import json
import re
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tests.without_torchvision  # noqa: F401
from sitekit import steps
from sitekit.fingerprint import fingerprint
from snippets.catalogue import CATALOGUE
from tests.measure import Figure, Measured, summary

ROOT = Path(__file__).parents[1]
PROOFS = ROOT / "docs" / "proofs.json"
_recorded: dict[str, dict[str, list[Figure]]] = defaultdict(lambda: defaultdict(list))
_seconds: dict[str, list[float]] = defaultdict(list)
"""Of each test in the file of a mechanism."""


def _slug(item: pytest.Item) -> str:
    return item.path.stem.removeprefix("test_")


def proof_source(slug: str) -> str:
    """Hash of what a proof depends on: the code of the snippet and of its test file."""
    row = CATALOGUE[slug]
    return fingerprint([ROOT / "snippets" / f"{row.path}.py", ROOT / steps.proof(row)])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write docs/proofs.json")
    parser.addoption("--mechanism", choices=CATALOGUE, metavar="SLUG", help="of the contract, this one alone")
    parser.addoption("--all-settings", action="store_true", help="half precision in all settings")


def pytest_configure(config: pytest.Config) -> None:
    """Import yapf once before there are workers: mmcv does, and the first import of all writes a cache.

    A worker that found the file of another half written could not import mmcv, and collected fewer tests.
    """
    if not hasattr(config, "workerinput"):
        importlib.import_module("yapf")


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Iterator[Measured]:
    """What this proof measures; asserts and records."""
    result = Measured()
    yield result
    if request.node.rep_call.passed:
        _recorded[_slug(request.node)][request.node.originalname] += result.figures


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    setattr(item, f"rep_{report.when}", report)
    if report.when == "call":
        _seconds[_slug(item)].append(report.duration)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--record") or session.testsfailed:
        return
    proofs = json.loads(PROOFS.read_text(encoding="utf-8")) if PROOFS.exists() else {}
    for slug, figures in _recorded.items():
        proofs[slug] = {
            "torch": torch.__version__.split("+")[0],
            "date": datetime.date.today().isoformat(),
            "source": proof_source(slug),
            "tests": len(_seconds[slug]),
            "seconds": round(sum(_seconds[slug]), 1),
            "proofs": {test: summary(found) for test, found in sorted(figures.items())},
        }
    PROOFS.write_text(written(proofs), encoding="utf-8")


def written(proofs: dict[str, Any]) -> str:
    """Write the proofs as JSON, one figure a line, so that a difference of two versions can be read."""
    text = json.dumps(dict(sorted(proofs.items())), indent=1, ensure_ascii=False)
    return re.sub(r"\{[^{}]*\}", lambda figure: re.sub(r"\s*\n\s*", " ", figure[0]), text) + "\n"
