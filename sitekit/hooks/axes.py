"""Marks the side bar: an overview with the sign of its value, a mechanism with that of its other axis."""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from sitekit import pages
from sitekit.hooks.common import language_of
from sitekit.pieces.refer import axis
from snippets.catalogue import CATALOGUE, Domain, Mechanism, Weights

VALUES = (*Weights, *Domain)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let the theme name each sign."""
    language = language_of(config)
    config.extra["status"] = {axis(value): language.word(value) for value in VALUES}
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Give each page its sign, before any side bar is written."""
    if (value := SIGNS.get(page.file.src_uri)) is not None:
        page.meta["status"] = axis(value)
    return markdown


def _other(mechanism: Mechanism) -> Weights | Domain | None:
    """Return the axis that the folder does not tell."""
    return mechanism.domain if mechanism.path.startswith("weight_assignment/") else mechanism.weights


SIGNS = {pages.overview(value): value for value in VALUES} | {
    pages.page(row): value for row in CATALOGUE.values() if (value := _other(row))
}
