"""Writes the formulas as JavaScript for a page with the comparison of all mechanisms."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from mkdocs.utils.templates import TemplateContext

from sitekit import javascript

FILE = "assets/javascripts/formulas.js"


def on_page_context(
    context: TemplateContext, page: Page, config: MkDocsConfig, nav: Navigation
) -> TemplateContext:
    if "atlas-comparison" in (page.content or ""):
        file = Path(config.site_dir, FILE)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(javascript.module(), encoding="utf-8")
    return context
