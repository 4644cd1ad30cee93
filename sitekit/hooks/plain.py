"""Writes each page as plain Markdown at the path of its source, and llms.txt, which lists them all."""

from urllib.parse import urljoin

from jinja2 import Environment
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from mkdocs.utils.templates import TemplateContext

from sitekit.hooks.common import language_of, write
from sitekit.plain.absolute import addressed, linked
from sitekit.plain.overview import overview
from sitekit.plain.page import plain, plain_name


def on_env(env: Environment, config: MkDocsConfig, files: Files) -> Environment:
    """Let templates link to the plain page: `page.file.src_uri | plain_name | url`."""
    env.filters["plain_name"] = plain_name
    return env


def on_page_context(
    context: TemplateContext, page: Page, config: MkDocsConfig, nav: Navigation
) -> TemplateContext:
    """Write while pages are built: then all of them have been read and found without mistakes."""
    language = language_of(config)
    name = plain_name(page.file.src_uri)
    text = plain(page.markdown or "", name, language)
    if config.extra["address"]:
        text = addressed(text, page.canonical_url or "")
    _write(name, text, config)
    if page.is_homepage:
        _write("llms.txt", overview(nav, config.site_name, config.site_description or "", language), config)
    return context


def _write(name: str, text: str, config: MkDocsConfig) -> None:
    if config.extra["address"]:
        text = linked(text, urljoin(config.site_url or "", name))
    write(name, text.encode(), config)
