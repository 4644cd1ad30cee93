"""Notebooks as native pages: mkdocs-jupyter finds and names them, the theme's Markdown renders them.

Its own HTML would bring 575 KB of styles, formulas as TeX, and headings with `id=""` that stop the search.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from mkdocs_jupyter.plugin import NotebookFile  # type: ignore[import-untyped]

from sitekit.notebooks.render import executed, markdown


@event_priority(-100)
def on_pre_page(page: Page, config: MkDocsConfig, files: Files) -> Page:
    """Undo mkdocs-jupyter's own rendering, which it installs on the page."""
    if isinstance(page.file, NotebookFile):
        vars(page).pop("render")
    return page


def on_page_read_source(page: Page, config: MkDocsConfig) -> str | None:
    """Return the executed notebook as Markdown; None leaves other pages alone."""
    if not isinstance(page.file, NotebookFile):
        return None
    file = Path(page.file.abs_src_path)
    return markdown(executed(file), file)
