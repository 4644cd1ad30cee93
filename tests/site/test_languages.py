"""One command builds both languages, and a mistake in either stops it."""

import shutil
from pathlib import Path

import pytest

from tests.site import small_atlas
from tests.site.small_atlas import SmallAtlas

BOTH = """
INHERIT: mkdocs.en.yml
hooks: [sitekit/hooks/assets.py, sitekit/hooks/languages.py]
extra: {translations: {zh/: mkdocs.zh.yml}}
"""


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> SmallAtlas:
    """An atlas whose results are known."""
    atlas = small_atlas.create(tmp_path_factory.mktemp("languages"))
    atlas.write("mkdocs.both.yml", BOTH)
    assert not atlas.results().errors
    return atlas


@pytest.fixture
def atlas(computed: SmallAtlas, tmp_path: Path) -> SmallAtlas:
    """A copy of it."""
    shutil.copytree(computed.root, tmp_path / "atlas")
    return SmallAtlas(tmp_path / "atlas")


def test_both_languages_are_built(atlas: SmallAtlas) -> None:
    built = atlas.build("both")
    assert built.returncode == 0, built.stderr
    for folder, word in {"": "Home", "zh": "首页"}.items():
        assert word in (atlas.root / "site" / folder / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("language", "blamed"), [("en", False), ("zh", True)])
def test_a_link_to_nowhere_stops_the_build(atlas: SmallAtlas, language: str, blamed: bool) -> None:
    atlas.write(f"docs/{language}/index.md", "# Home\n\n[there](nowhere.md)")
    built = atlas.build("both")
    assert built.returncode == 1
    assert "contains a link 'nowhere.md'" in built.stderr
    assert ("mkdocs.zh.yml: the build failed" in built.stdout) == blamed


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (r"$\frac{x$", r"formula `\frac{x`"),
        ("[@nobody2020]", "unknown citation key"),
        ("```costs\nplain\n```", "unknown fence 'costs'"),
    ],
)
def test_a_mistake_on_a_chinese_page_is_one_sentence(atlas: SmallAtlas, wrong: str, said: str) -> None:
    """With file and line, and no traceback of the process that builds the Chinese site."""
    atlas.write("docs/zh/index.md", f"# 首页\n\n{wrong}")
    built = atlas.build("both")
    assert built.returncode == 1
    sentence = f"docs/zh/index.md:3: {said}"
    assert f"mkdocs.zh.yml: {sentence}" in built.stderr
    told = [line for line in (built.stdout + built.stderr).splitlines() if line and "INFO" not in line]
    assert [line for line in told if "Error reading page" not in line and sentence not in line] == [
        "mkdocs.zh.yml: the build failed, see above"
    ]
