"""A folder in `nav` stands for its pages, so that a new mechanism needs no line there."""

from pathlib import Path

import pytest

from sitekit.hooks import navigation


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    for name in ["index.md", "gates/index.md", "gates/zeta.md", "gates/alpha.md", "gates/extra.md"]:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    return tmp_path


def test_pages_follow_the_catalogue_then_the_alphabet(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(navigation, "ORDER", ["gates/zeta", "gates/alpha"])
    assert navigation.expand([{"Gates": "gates/"}], docs) == [
        {"Gates": ["gates/index.md", "gates/zeta.md", "gates/alpha.md", "gates/extra.md"]}
    ]


def test_a_folder_without_title_joins_the_list_it_stands_in(docs: Path) -> None:
    assert navigation.expand([{"All": ["index.md", "gates/"]}], docs)[0]["All"][:2] == [
        "index.md",
        "gates/index.md",
    ]


def test_what_is_empty_is_left_out(docs: Path) -> None:
    nav = [{"Home": "index.md"}, {"None": "none/"}, {"Section": [{"None": "none/"}]}]
    assert navigation.expand(nav, docs) == [{"Home": "index.md"}]
