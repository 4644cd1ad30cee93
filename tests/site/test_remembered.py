"""What is remembered from build to build never differs from what would be made anew."""

from pathlib import Path

import pytest

from sitekit import paths, remembered
from sitekit.remembered import Remembered


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setattr(remembered, "_all", [])


def build(code: str, *texts: str) -> list[str]:
    """Ask for the texts in capitals, as a build does; return those that were made."""
    made = []

    def capitals(text: str) -> str:
        made.append(text)
        return text.upper()

    kept = Remembered("capitals", code)
    assert [kept.get(capitals, text) for text in texts] == [text.upper() for text in texts]
    remembered.keep()
    remembered._all.clear()
    return made


def test_what_the_last_build_asked_for_is_known() -> None:
    assert build("1", "a", "b", "a") == ["a", "b"]
    assert build("1", "a", "c") == ["c"]
    assert build("1", "a", "b", "c") == ["b"]


def test_other_code_makes_all_anew() -> None:
    build("1", "a")
    assert build("2", "a") == ["a"]


def test_a_file_that_is_not_whole_is_no_memory(tmp_path: Path) -> None:
    build("1", "a")
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(file.read_bytes()[:-1])
    assert build("1", "a") == ["a"]
