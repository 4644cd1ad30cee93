"""Proofs: recorded, current, and shown."""

import ast
import json
import re

from sitekit import steps
from snippets.catalogue import CATALOGUE
from tests.conftest import PROOFS, ROOT, proof_source
from tests.contract.walker import source

FENCE = re.compile(r"^```proofs\n(.*?)^```", re.DOTALL | re.MULTILINE)


def proved(slug: str) -> set[str]:
    """Names of the tests of a mechanism."""
    tree = ast.parse((ROOT / steps.proof(CATALOGUE[slug])).read_text())
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def shown(slug: str, language: str) -> set[str]:
    """Names of the tests that a page shows."""
    page = ROOT / "docs" / language / (CATALOGUE[slug].path.replace("_", "-") + ".md")
    fence = FENCE.search(page.read_text())
    assert fence, f"{page} has no proofs"
    first, *lines = fence[1].strip().splitlines()
    assert first == slug
    return {line.split(":")[0].strip() for line in lines}


def test_proofs_are_recorded_and_current(name: str) -> None:
    slug = source(name).stem
    record = json.loads(PROOFS.read_text()).get(slug)
    assert record, "run `make proofs`"
    assert record["source"] == proof_source(slug), "snippet or test changed: run `make proofs`"
    assert set(record["proofs"]) <= proved(slug)


def test_every_figure_stands_beside_its_limit(name: str) -> None:
    """So that a difference that must be there cannot be read as a failure."""
    record = json.loads(PROOFS.read_text(encoding="utf-8"))[name.rpartition(".")[2]]
    for test, figures in record["proofs"].items():
        assert figures, test
        assert all(figure["measured"] and figure["limit"] for figure in figures), f"{test}: run `make proofs`"


def test_pages_show_exactly_the_proofs_that_exist(name: str) -> None:
    slug = name.rpartition(".")[2]
    recorded = set(json.loads(PROOFS.read_text())[slug]["proofs"])
    for language in ("en", "zh"):
        assert shown(slug, language) == recorded
