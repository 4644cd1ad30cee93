"""The built site, both languages: every link leads somewhere, nothing is loaded from elsewhere."""

import re
from collections import Counter
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from fontTools.ttLib import TTFont
from mkdocs.utils.yaml import yaml_load

from tests.conftest import ROOT
from tests.site.built_page import Page, read

FIRST_CHINESE = 0x3000
LANGUAGES = {"en": "", "zh": "zh/"}  # language to folder of the site


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: read(file) for file in sorted(site.rglob("*.html"))}


@pytest.fixture(scope="module")
def articles(pages: dict[Path, Page]) -> dict[Path, Page]:
    """All pages but 404.html, whose links are absolute: it is shown at any address."""
    return {file: page for file, page in pages.items() if file.name != "404.html"}


def test_both_languages_are_there(site: Path, articles: dict[Path, Page]) -> None:
    paths = [file.relative_to(site).as_posix() for file in articles]
    chinese = {path.removeprefix("zh/") for path in paths if path.startswith("zh/")}
    english = {path for path in paths if not path.startswith("zh/")}
    assert english == chinese != set()


def test_links_lead_to_pages_and_anchors(site: Path, articles: dict[Path, Page]) -> None:
    dead = [
        f"{file.relative_to(site)}: {link} ({reason})"
        for file, page in articles.items()
        for link in page.links
        if (reason := broken(link, file, site, articles))
    ]
    assert not dead, "\n".join(dead)


def broken(link: str, file: Path, site: Path, articles: dict[Path, Page]) -> str:
    """Return why `link` in `file` leads nowhere, or nothing."""
    scheme, host, path, _, fragment = urlsplit(link)
    if scheme in {"http", "https", "mailto", "doi"} and (host or path):
        return ""
    if scheme or host or path.startswith("/"):
        return "not relative"
    target = (file.parent / unquote(path)).resolve() if path else file
    if target.is_dir() and path.rsplit("/", 1)[-1] in {"", ".", ".."}:
        target /= "index.html"
    if not target.is_relative_to(site.resolve()) or not target.is_file():
        return "no such file"
    if fragment and target.suffix == ".html" and unquote(fragment) not in articles[target].ids:
        return "no such anchor"
    return ""


def test_language_switch_stays_on_the_page(site: Path, articles: dict[Path, Page]) -> None:
    for file, page in articles.items():
        path = file.relative_to(site).as_posix()
        other = site / (path.removeprefix("zh/") if path.startswith("zh/") else f"zh/{path}")
        targets = {(file.parent / link / "index.html").resolve() for link in page.links if link}
        assert other.resolve() in targets, f"{path} has no link to its translation"


def test_ids_are_unique(site: Path, pages: dict[Path, Page]) -> None:
    wrong = {
        str(file.relative_to(site)): repeated
        for file, page in pages.items()
        if (repeated := [name for name, count in Counter(page.ids).items() if count > 1 or not name])
    }
    assert not wrong


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    external = [
        f"{file.relative_to(site)}: {address}"
        for file, page in pages.items()
        for address in page.loads
        if urlsplit(address).netloc
    ]
    for sheet in site.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", sheet.read_text("utf-8"))
        external += [f"{sheet.relative_to(site)}: {address}" for address in found]
    assert not external, "\n".join(external)


def test_what_is_loaded_exists(site: Path, articles: dict[Path, Page]) -> None:
    missing = {
        f"{file.relative_to(site)}: {address}"
        for file, page in articles.items()
        for address in page.loads
        if not address.startswith("data:") and not (file.parent / urlsplit(address).path).is_file()
    }
    assert not missing


def test_formulas_are_converted(site: Path, articles: dict[Path, Page]) -> None:
    left = [
        f"{file.relative_to(site)}: {found[0]!r}"
        for file, page in articles.items()
        if (found := re.search(r".{0,30}(?:\$|\\[(\[]|\\(?:frac|mathrm|sum|alpha)).{0,30}", page.text))
    ]
    assert not left, "\n".join(left)


def test_the_math_font_has_every_character(site: Path, pages: dict[Path, Page]) -> None:
    font = TTFont(site / "assets" / "math.woff2").getBestCmap()
    for file in pages:
        for formula in re.findall(r"<math.*?</math>", file.read_text(encoding="utf-8"), re.DOTALL):
            text = unescape(re.sub(r"<annotation.*?</annotation>|<[^>]+>", "", formula, flags=re.DOTALL))
            missing = {c for c in text if ord(c) < FIRST_CHINESE and not c.isspace()} - set(map(chr, font))
            assert not missing, f"{file.relative_to(site)}: {formula}"


def test_head(site: Path, pages: dict[Path, Page]) -> None:
    for file, page in pages.items():
        path = file.relative_to(site).as_posix()
        assert page.language == ("zh" if path.startswith("zh/") else "en"), path
        assert page.title.strip(), path
        assert page.description.strip(), path
        assert "description:" not in page.text, f"{path}: the front matter is not valid YAML"


def test_titles_and_descriptions_tell_pages_apart(articles: dict[Path, Page]) -> None:
    for kind in ("title", "description"):
        values = Counter(getattr(page, kind) for page in articles.values())
        assert not [value for value, count in values.items() if count > 1], kind


def test_foot_names_release_and_licence(site: Path, pages: dict[Path, Page]) -> None:
    release = yaml_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    for file, page in pages.items():
        licence = "MIT 许可证" if file.is_relative_to(site / "zh") else "MIT licence"
        foot = f" {release['version']} · {release['date-released']} · {licence} · "
        assert foot in " ".join(page.text.split()), file


def test_social_description(site: Path, articles: dict[Path, Page]) -> None:
    for file, page in articles.items():
        path = file.relative_to(site).as_posix().removesuffix("index.html")
        assert page.social.pop("og:description") == page.description, path
        assert page.title.startswith(page.social.pop("og:title")), path
        assert page.social.pop("og:url").endswith(f"/{path}"), path
        assert page.social == {
            "og:type": "website" if path in LANGUAGES.values() else "article",
            "og:site_name": articles[site / ("zh" if path.startswith("zh/") else "") / "index.html"].title,
            "og:locale": "zh_CN" if path.startswith("zh/") else "en_GB",
            "twitter:card": "summary",
        }, path


def test_sitemap_names_every_page(site: Path, articles: dict[Path, Page]) -> None:
    paths = {file.relative_to(site).as_posix().removesuffix("index.html") for file in articles}
    listed = re.findall("<loc>https?://[^/]+/(.*)</loc>", (site / "sitemap.xml").read_text("utf-8"))
    assert sorted(listed) == sorted(paths)


def test_every_snippet_can_be_downloaded(site: Path) -> None:
    from snippets.catalogue import CATALOGUE

    for folder in LANGUAGES.values():
        for row in CATALOGUE.values():
            name = f"snippets/{row.path}.py"
            source = Path(__file__).parents[2] / name
            assert (site / folder / name).read_bytes() == source.read_bytes()
