"""Writes what the panels of a page fetch."""

import re
from base64 import b64decode
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from mkdocs.utils.templates import TemplateContext

from sitekit.language import LANGUAGES
from sitekit.store import exploration

PANEL = re.compile(r'class="atlas-panel"[^>]* data-source="([^"]*)"')


def on_page_context(
    context: TemplateContext, page: Page, config: MkDocsConfig, nav: Navigation
) -> TemplateContext:
    language = LANGUAGES[config.mdx_configs["sitekit.markdown.extension"]["language"]]
    for path in PANEL.findall(page.content or ""):
        file = Path(config.site_dir, f"assets/panels/{path}.bin")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b64decode(exploration(path, language)["file"]))
    return context
