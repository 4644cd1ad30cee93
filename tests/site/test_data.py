"""The taxonomy for programs, at the root of the site."""

import json
from pathlib import Path

import pytest
from mkdocs.utils.yaml import yaml_load

from snippets.catalogue import CATALOGUE
from tests.conftest import ROOT


def test_every_row_is_there_with_what_it_leads_to(site: Path) -> None:
    known = json.loads((site / "catalogue.json").read_text(encoding="utf-8"))
    assert known["version"] == yaml_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert [row["slug"] for row in known["mechanisms"]] == list(CATALOGUE)
    for row in known["mechanisms"]:
        paths = row["paths"]
        assert row["proofs"] > 0
        assert row["evidence"]
        for language in ("", "zh"):
            assert (site / language / paths["page"] / "index.html").is_file()
            assert (site / language / paths["markdown"]).is_file()
        for part in ("module", "tests", "figure"):
            assert (ROOT / paths[part]).is_file()
        assert (site / paths["module"]).is_file()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", {"en": "SENet: squeeze-and-excitation", "zh": "SENet：挤压与激励"}),
        ("weights", "soft"),
        ("domain", "channel"),
        ("parameters", "2*C**2/r + C/r + C"),
        ("state", None),
        (
            "used_by",
            {
                "families": [
                    *("align", "efficientnet", "pp_lcnet", "pp_lcnet_v3", "pp_lcnet_v4"),
                    *("pp_ocrv5_mobile_det", "pp_ocrv6_small_det", "qwen2_5_omni", "regnet"),
                ],
                "counted": 523,
                "package": "transformers 5.23.0",
            },
        ),
    ],
)
def test_a_row_says_what_the_catalogue_says(site: Path, field: str, value: object) -> None:
    known = json.loads((site / "catalogue.json").read_text(encoding="utf-8"))
    (senet,) = (row for row in known["mechanisms"] if row["slug"] == "senet")
    assert senet[field] == value
