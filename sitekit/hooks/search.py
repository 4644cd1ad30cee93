"""Writes what the search of a language knows, once all its pages have been read: `search.json`."""

import json
from pathlib import Path

from jinja2 import Environment
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files

from sitekit.searchable import entry, order

FILE = "search.json"


def on_env(env: Environment, config: MkDocsConfig, files: Files) -> Environment:
    """Write it before the pages, whose headings and text are all there."""
    pages = sorted((file.page for file in files.documentation_pages() if file.page), key=order)
    language = config.mdx_configs["sitekit.markdown.extension"]["language"]
    text = json.dumps([entry(page, language) for page in pages], ensure_ascii=False, separators=(",", ":"))
    file = Path(config.site_dir, FILE)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return env
