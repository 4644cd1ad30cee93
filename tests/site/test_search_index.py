"""What the search knows: the prose of every page, not its code and not the labels of its drawings."""

import json
from pathlib import Path

import pytest

CONDCONV = "attention-domain/branch/condconv/"


@pytest.fixture(params=["", "zh/"])
def language(site: Path, request: pytest.FixtureRequest) -> Path:
    """Folder of one language."""
    return site / str(request.param)


@pytest.fixture
def texts(language: Path) -> dict[str, str]:
    """Text of each section, by its address; the marks where Chinese words part are left out."""
    found = json.loads((language / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    return {section["location"]: section["text"].replace("\u200b", "") for section in found}


def test_prose_is_found_and_drawings_and_code_are_not(language: Path, texts: dict[str, str]) -> None:
    page = (language / CONDCONV / "index.html").read_text(encoding="utf-8")
    known = "".join(text for address, text in texts.items() if address.startswith(CONDCONV))
    assert "sigmoid" in known
    for label in ("±0.050", "±0.077", "matmul with experts", "CondConvBlock"):
        assert label in page
        assert label not in known


def test_nothing_set_aside_stays_aside(language: Path) -> None:
    for file in language.rglob("index.html"):
        assert "<!--set aside" not in file.read_text(encoding="utf-8"), file
