"""A mechanism is added in five steps: module, proof, figure, two pages and a row, with a citation."""

from pathlib import Path

import pytest
from bs4 import BeautifulSoup, Tag

from tests.site import small_atlas
from tests.site.small_atlas import SmallAtlas

FENCES = {"card": "recall", "comparison": "", "matrix": "", "members": "set"}


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> SmallAtlas:
    """A small atlas with one more mechanism, built in both languages."""
    atlas = small_atlas.create(tmp_path_factory.mktemp("atlas"))
    atlas.add_recall()
    page = "".join(f"```{name}\n{body}\n```\n\n" for name, body in FENCES.items())
    for language in ("en", "zh"):
        atlas.write(f"docs/{language}/all.md", f"# All\n\n{page}")
        built = atlas.build(language)
        assert built.returncode == 0, built.stderr
    return atlas


def part(atlas: SmallAtlas, name: str, path: str = "all") -> Tag:
    text = (Path(atlas.root) / "site" / path / "index.html").read_text(encoding="utf-8")
    found = BeautifulSoup(text, "html.parser").select_one(f".atlas-{name}")
    assert found is not None
    return found


def test_a_domain_appears_with_its_first_mechanism(atlas: SmallAtlas) -> None:
    rows = [row.get_text(" ", strip=True) for row in part(atlas, "matrix").select("tbody tr")]
    assert [row.split()[0] for row in rows] == ["channel", "set"]
    assert "集合" in part(atlas, "matrix", "zh/all").get_text()
    assert "集合" in [option.get_text() for option in part(atlas, "comparison", "zh/all").select("option")]
    assert [name.get_text() for name in part(atlas, "members").select("tbody th a")] == ["Recall"]


def test_what_a_decoder_keeps_stands_in_card_and_comparison(atlas: SmallAtlas) -> None:
    card, comparison = part(atlas, "card"), part(atlas, "comparison")
    assert "E per token, 2E per sequence" in card.get_text().replace("\u2062", "").replace("\u2009", "")
    heads = [head.get_text() for head in comparison.select("thead th")]
    column = heads.index("Kept by a decoder")
    kept = [row.find_all(["th", "td"])[column] for row in comparison.select("tbody tr")]
    assert [cell["data-sort"] for cell in kept] == ["", "", "", "grows"]
    choices = comparison.select("select[name=state] option")
    assert [choice.get_text() for choice in choices] == ["all", "grows with each token", "of fixed size"]
