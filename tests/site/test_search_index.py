"""What the search knows: names and prose of every page, not its code and not the labels of its drawings."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sitekit.searchable import sections
from snippets.catalogue import CATALOGUE

CONDCONV = "attention-domain/branch/condconv/"
LIMIT = 300_000


@pytest.fixture(params=["", "zh/"])
def language(site: Path, request: pytest.FixtureRequest) -> Path:
    """Folder of one language."""
    return site / str(request.param)


@pytest.fixture
def index(language: Path) -> dict[str, Any]:
    """What is known of each page, by its address."""
    return {page["url"]: page for page in json.loads((language / "search.json").read_text(encoding="utf-8"))}


def test_prose_is_found_and_drawings_and_code_are_not(language: Path, index: dict[str, Any]) -> None:
    page = (language / CONDCONV / "index.html").read_text(encoding="utf-8")
    known = " ".join(text for _, _, text in index[CONDCONV]["sections"])
    assert "sigmoid" in known
    for label in ("±0.050", "CondConvBlock"):
        assert label in page
        assert label not in known


def test_every_page_is_known_with_headings_that_exist(language: Path, index: dict[str, Any]) -> None:
    pages = {file.parent.relative_to(language).as_posix() for file in language.rglob("index.html")}
    pages = {"" if name == "." else f"{name}/" for name in pages if not name.startswith("zh")}
    assert index.keys() == pages
    for url, page in index.items():
        html = (language / url / "index.html").read_text(encoding="utf-8")
        for name, heading, _ in page["sections"][1:]:
            assert heading
            assert f'id="{name}"' in html


def test_a_mechanism_is_known_by_its_names_in_both_languages(index: dict[str, Any]) -> None:
    names = {"SENet", "SENet：挤压与激励", "挤压与激励", "SE block", "压缩与激励"}
    assert names <= {*index["attention-domain/channel/senet/"]["names"]}
    classes = ["ChannelGate", "SpatialGate", "CBAM"]
    assert index["attention-domain/channel-spatial/cbam/"]["classes"] == classes


def test_the_index_is_light(language: Path) -> None:
    assert len(gzip.compress((language / "search.json").read_bytes())) < LIMIT


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<math><mi>Q</mi><msup><mi>K</mi><mo>⊤</mo></msup></math>", "QK^T"),
        ("<math><mfrac><mi>a</mi><msub><mi>b</mi><mi>i</mi></msub></mfrac></math>", "a/b_i"),
        ("<math><mrow><mi>x</mi></mrow><annotation>x</annotation></math>", "x"),
        ("a<wbr/>b\u2060c<p>d</p>e", "abc d e"),
        ("3\u00a0× 3, a × b", "3×3, a × b"),
        ("<div class='atlas-cost'><div>1</div>2</div>3", "3"),
    ],
)
def test_text_reads_as_it_is_typed(html: str, text: str) -> None:
    assert sections(html) == [("", "", text)]


def test_no_name_leads_to_two_mechanisms() -> None:
    """But for classes: several modules have an `Attention` of their own."""
    names = [name.casefold() for row in CATALOGUE.values() for name in {row.title, *row.aliases}]
    assert len(names) == len(set(names))
