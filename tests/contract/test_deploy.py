"""What becomes of the modules in ONNX Runtime is recorded for the modules as they are (`make onnx`)."""

import json

from deploy import cases
from snippets.catalogue import CATALOGUE
from tests.conftest import ROOT
from tests.contract.walker import slug

RECORD = ROOT / "docs" / "onnx.json"


def test_export_to_onnx_is_recorded_and_current(name: str) -> None:
    row = CATALOGUE[slug(name)]
    recorded = json.loads(RECORD.read_text(encoding="utf-8")).get(row.slug)
    assert recorded, "run `make onnx`"
    assert recorded["source"] == cases.source(row), "the module changed: run `python -m deploy --stale`"
    assert list(recorded["cases"]) == cases.names(row)


def test_most_modules_export_with_an_open_batch() -> None:
    found = [row["cases"][cases.EXAMPLE] for row in json.loads(RECORD.read_text(encoding="utf-8")).values()]
    assert sum("B" in outcome["open"] for outcome in found) >= 0.8 * len(found)
