"""Writes what the panels of a page fetch."""

import re
from base64 import b64decode

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from mkdocs.utils.templates import TemplateContext

from sitekit.hooks.common import language_of, write
from sitekit.store import exploration

PANEL = re.compile(r'class="atlas-panel"[^>]* data-source="([^"]*)"')


def on_page_context(
    context: TemplateContext, page: Page, config: MkDocsConfig, nav: Navigation
) -> TemplateContext:
    for path in PANEL.findall(page.content or ""):
        packed = b64decode(exploration(path, language_of(config))["file"])
        write(f"assets/panels/{path}.bin", packed, config)
    return context
