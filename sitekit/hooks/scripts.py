"""Writes the formulas as JavaScript for a page with the comparison of all mechanisms."""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from mkdocs.utils.templates import TemplateContext

from sitekit import javascript
from sitekit.hooks.common import write

FILE = "assets/javascripts/formulas.js"


def on_page_context(
    context: TemplateContext, page: Page, config: MkDocsConfig, nav: Navigation
) -> TemplateContext:
    if "atlas-comparison" in (page.content or ""):
        write(FILE, javascript.module().encode(), config)
    return context
