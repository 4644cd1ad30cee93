"""Writes what the search of a language knows, once all its pages have been read: `search.json`."""

import json

from jinja2 import Environment
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files

from sitekit.hooks.common import language_of, write
from sitekit.searchable import entry, order

FILE = "search.json"


def on_env(env: Environment, config: MkDocsConfig, files: Files) -> Environment:
    """Write it before the pages, whose headings and text are all there."""
    pages = sorted((file.page for file in files.documentation_pages() if file.page), key=order)
    language = language_of(config).code
    text = json.dumps([entry(page, language) for page in pages], ensure_ascii=False, separators=(",", ":"))
    write(FILE, text.encode(), config)
    return env
