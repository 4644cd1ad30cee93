"""The page for addresses that lead nowhere, and the sitemap, of a small site below a path of its own."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config
from playwright.sync_api import Page, expect, sync_playwright

from tests.conftest import ROOT
from tests.site.conftest import CHROMIUM

SUBPATH = "/below/a-path/"
HOOKS = ("languages", "release", "assets", "replaced", "plain", "search")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found")


class Hosting(SimpleHTTPRequestHandler):
    """Answers as hosts of static pages do: with /404.html for all that is missing."""

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix(SUBPATH.rstrip("/")))

    def send_error(self, code: int, *_: object) -> None:
        body = Path(self.directory, "404.html").read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    """Address of a site of three pages in both languages, built for it with the real theme."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hosting, directory=str(root / "site"))) as server:
        address = f"http://127.0.0.1:{server.server_port}{SUBPATH}"
        for language, inherited, folder in (("en", "mkdocs.yml", ""), ("zh", "mkdocs.zh.yml", "zh")):
            docs = root / language
            docs.mkdir()
            for name in ("Home", "Other", "Squeeze"):
                file = docs / ("index.md" if name == "Home" else f"{name.lower()}.md")
                file.write_text(f"# {name}\n\nText.\n", encoding="utf-8")
            values = {
                "INHERIT": str(ROOT / inherited),
                "docs_dir": str(docs),
                "site_dir": str(root / "site" / folder),
                "nav": ["index.md", "other.md", "squeeze.md"],
                "theme": {"custom_dir": str(ROOT / "overrides")},
                "hooks": [str(ROOT / "sitekit" / "hooks" / f"{name}.py") for name in HOOKS],
                "extra": {"translations": None},
            }
            config = root / f"{language}.yml"
            config.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
            build(load_config(str(config), site_url=address))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield address
        server.shutdown()


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


@needs_chromium
@pytest.mark.parametrize(
    ("missing", "language", "text", "home", "search"),
    [
        ("squeze", "en", "This page does not exist.", "", "Search"),
        ("a/deep/squeze.html", "en", "This page does not exist.", "", "Search"),
        ("zh/squeze/", "zh", "此页面不存在。", "zh/", "搜索"),
    ],
)
def test_missing_page(
    page: Page, address: str, missing: str, language: str, text: str, home: str, search: str
) -> None:
    failed: list[str] = []
    page.on("response", lambda response: None if response.ok else failed.append(response.url))
    page.goto(address + missing)
    expect(page.locator(".atlas-missing:visible p").first).to_have_text(text)
    expect(page.locator("html")).to_have_attribute("lang", language)
    links = page.locator(".atlas-missing:visible a")
    for place, target in enumerate([f"{home}squeeze/", home, f"{home}comparison/"]):
        expect(links.nth(place)).to_have_js_property("href", address + target)
    assert failed == [address + missing]  # style sheets and scripts are found at any depth
    page.get_by_role("button", name=search, exact=True).click()
    page.wait_for_url(f"{address}{home}?q=squeze")
    expect(page.get_by_role("combobox")).to_have_value("squeze")
    expect(page.get_by_role("option").first).to_have_attribute("href", f"{address}{home}squeeze/")


@needs_chromium
def test_missing_page_speaks_both_languages_without_javascript(address: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto(address + "nowhere/")
        expect(page.locator(".atlas-missing:visible")).to_have_count(2)
        browser.close()


def test_sitemap_names_both_languages(root: Path, address: str) -> None:
    names = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9", "x": "http://www.w3.org/1999/xhtml"}
    expected = {address + path + page for path in ("", "zh/") for page in ("", "other/", "squeeze/")}
    for file in ("sitemap.xml", "zh/sitemap.xml"):
        tree = ElementTree.parse(root / "site" / file)
        assert {found.text for found in tree.findall("s:url/s:loc", names)} == expected
        for entry in tree.findall("s:url", names):
            page = (entry.findtext("s:loc", "", names)).removeprefix(address).removeprefix("zh/")
            others = {link.get("hreflang"): link.get("href") for link in entry.findall("x:link", names)}
            assert others == {"en": address + page, "zh": address + "zh/" + page}
