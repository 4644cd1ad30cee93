"""One language of the site, kept in memory as mkdocs has built it: only what has changed is built anew."""

import logging
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment
from mkdocs.commands.build import _build_page, _populate_page, build
from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import BasePlugin
from mkdocs.structure.files import Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

from sitekit import entries, store
from sitekit.errors import explain
from sitekit.hooks.assets import STYLE, style_sheet
from sitekit.language import LANGUAGES
from sitekit.paths import ROOT

CODE = (ROOT / "snippets", ROOT / "figures")
RELOAD = """<script>
const ask = async () => {
  if (document.hidden) return
  const answer = await fetch("/.live?since=" + performance.timeOrigin).catch(() => null)
  if (answer?.status === 200) location.reload()
  else setTimeout(ask, answer ? 0 : 1000)
}
addEventListener("visibilitychange", ask)
ask()
</script>"""


class Kept(BasePlugin):  # type: ignore[type-arg, no-untyped-call]
    """Keeps hold of what mkdocs makes of a site, and notes what each page shows."""

    files: Files
    nav: Navigation
    env: Environment

    def __init__(self) -> None:
        self.shows: dict[str, set[tuple[str, str]]] = {}  # kind and name of results, by page

    def on_nav(self, nav: Navigation, /, *, config: MkDocsConfig, files: Files) -> Navigation:
        self.nav = nav
        return nav

    def on_env(self, env: Environment, /, *, config: MkDocsConfig, files: Files) -> Environment:
        self.env, self.files = env, files
        return env

    def on_pre_page(self, page: Page, /, *, config: MkDocsConfig, files: Files) -> Page:
        self.shows[page.file.src_uri] = store.asked = set()
        return page

    def on_page_content(self, html: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
        store.asked = set()  # what templates ask for is not of this page
        return html

    def on_post_page(self, output: str, /, *, page: Page, config: MkDocsConfig) -> str:
        return output + RELOAD

    def page(self, uri: str) -> Page:
        """Return the page of a source."""
        page = self.files.src_uris[uri].page
        assert page
        return page

    def opening(self, uri: str) -> object:
        """Return what other pages show of a page."""
        page = self.page(uri)
        return page.title, page.meta, (page.markdown or "").partition("\n## ")[0]


class Rebuild:
    """One language as it was built last."""

    def __init__(self, language: str, folder: Path, url: str) -> None:
        first = language == next(iter(LANGUAGES))
        self._file = ROOT / ("mkdocs.yml" if first else f"mkdocs.{language}.yml")
        self._prefix = "" if first else language
        self._place = folder
        self._url = url
        self._built: tuple[MkDocsConfig, Kept] | None = None
        self._openings: dict[str, object] = {}
        self._behind: set[str] = set()  # pages with a mistake, to be tried again
        self._folder: Path | None = None
        handler = logging.StreamHandler(sys.stderr)
        handler.addFilter(lambda record: not record.getMessage().startswith("Error "))  # raised as well
        logging.getLogger("mkdocs").addHandler(handler)

    @property
    def folder(self) -> Path | None:
        """Where the site is; None if a mistake has stopped its last build."""
        return self._folder if self._built else None

    def update(self, changed: set[Path]) -> Iterator[str]:
        """Bring the site up to date; yield what is wrong, and at the end what was done."""
        start = time.monotonic()
        try:
            kept = self._built[1] if self._built else None
            pages = self._touched(changed, kept) if kept else None
            if kept and pages:
                yield from self._rebuild(pages)
            if not kept or pages is None or any(kept.opening(uri) != self._openings[uri] for uri in pages):
                self._build()
                pages = set(self._openings)
            yield f"{time.strftime('%H:%M:%S')}  {len(pages)} pages in {time.monotonic() - start:.1f} s"
        except Exception as error:
            yield explain(error)

    def _build(self) -> None:
        """Build everything, into a new folder: the old one is served until this is done."""
        self._built = None
        store.refresh()
        folder = self._place / f"{time.time_ns()}"
        config = load_config(str(self._file), site_url=self._url, site_dir=str(folder / self._prefix))
        config.extra["translations"] = {}
        config.plugins["sitekit.rebuild"] = kept = Kept()
        build(config)
        old, self._folder, self._built, self._behind = self._folder, folder, (config, kept), set()
        self._openings = {uri: kept.opening(uri) for uri in kept.shows}
        if old:
            shutil.rmtree(old, ignore_errors=True)

    def _touched(self, changed: set[Path], kept: Kept) -> set[str] | None:
        """Return the pages that these files touch, None for all; copy what is no page."""
        if not all(file.is_file() for file in changed):
            return None
        sources = {Path(file.abs_src_path): file for file in kept.files if file.abs_src_path}
        code = {file for file in changed if any(file.is_relative_to(folder) for folder in CODE)}
        made = changed.intersection(entries.files())
        pages = set(self._behind)
        for path in changed - code - made:
            if path.is_relative_to(ROOT / "styles"):
                sheet = kept.files.src_uris[STYLE]
                sheet.content_string = style_sheet()
                sheet.copy_file()
            elif path not in sources:
                return None
            elif sources[path].page:
                pages.add(sources[path].src_uri)
            else:
                sources[path].copy_file()
        for path in code & sources.keys():
            sources[path].copy_file()
        if all(path.suffix == ".md" for path in changed):
            return pages
        results, stale = store.look(store.current())
        names = [path.relative_to(ROOT).as_posix() for path in code]
        for uri, shown in kept.shows.items():
            text = kept.page(uri).markdown or ""
            if shown & results or any(name in text for name in names):
                pages.add(uri)
            if any(kind == "notebook" for kind, _ in shown & stale.keys()):
                pages.discard(uri)  # outputs belong to their cells
        return pages

    def _rebuild(self, pages: set[str]) -> Iterator[str]:
        """Read and write these pages; yield what is wrong with them. The search keeps what it had."""
        assert self._built is not None
        config, kept = self._built
        every = kept.files.documentation_pages()
        self._behind = set()
        for uri in pages:
            page = kept.page(uri)
            try:
                _populate_page(page, config, kept.files)
                _build_page(page, config, every, kept.nav, kept.env)
            except Exception as error:
                self._behind.add(uri)
                yield explain(error)
