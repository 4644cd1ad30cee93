"""The site: built once for all tests, and served as a hosting service would, below a path of its own."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from tests.site.wait import TIMEOUT

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
SITE = ROOT / "site"
SOURCES = ["docs", "snippets", "figures", "sitekit", "overrides", "styles"]
SUBPATH = "/attention-atlas/"
PHONE: ViewportSize = {"width": 390, "height": 844}
DESK: ViewportSize = {"width": 1280, "height": 900}
CLIPBOARD = ["clipboard-read", "clipboard-write"]

expect.set_options(timeout=TIMEOUT)


@pytest.fixture(scope="session")
def site() -> Path:
    """Folder of the built site, both languages; built anew if a source is younger."""
    lock = ROOT / ".sitecache" / "site.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):  # workers of pytest-xdist wait for the first
        youngest = youngest_source()
        if not all(page.exists() and page.stat().st_mtime > youngest for page in built_pages()):
            environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
            command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
            build = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            assert build.returncode == 0, build.stdout + build.stderr
    return SITE


def built_pages() -> Iterator[Path]:
    """Every page as Markdown, which is written when its HTML is made."""
    for language, prefix in (("en", ""), ("zh", "zh")):
        docs = ROOT / "docs" / language
        for source in [*docs.rglob("*.md"), *docs.rglob("*.py")]:
            yield SITE / prefix / source.relative_to(docs).with_suffix(".md")


def youngest_source() -> float:
    """Time of the last change of anything the site is made from."""
    files = [ROOT / "CITATION.cff", *ROOT.glob("mkdocs*.yml")]
    for folder in SOURCES:
        files += [file for file in (ROOT / folder).rglob("*.*") if file.suffix != ".pyc"]
    return max(file.stat().st_mtime for file in files)


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Address of the served site, uncompressed; it ends with a slash, `zh/` below it is the Chinese one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hosting, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{SUBPATH}"
    server.shutdown()
    server.server_close()


class Hosting(SimpleHTTPRequestHandler):
    """Serves nothing above the path: a link that leaves it fails."""

    def translate_path(self, path: str) -> str:
        if not path.startswith(SUBPATH):
            return "/nonexistent"
        return super().translate_path(path.removeprefix(SUBPATH.rstrip("/")))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("no Chromium found: install one to test the site in it")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=options)


@pytest.fixture
def context(browser: Browser, address: str) -> Iterator[BrowserContext]:
    with browser.new_context(viewport=DESK) as context:
        context.grant_permissions(CLIPBOARD, origin=address)
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()
