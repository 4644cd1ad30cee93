"""Links to mechanisms, overviews and papers."""

from html import escape

from sitekit import pages, references
from sitekit.language import Language
from sitekit.pieces.elements import element, link
from sitekit.pieces.prose import inline
from snippets.catalogue import Domain, Mechanism, Weights


def to_mechanism(mechanism: Mechanism, language: Language) -> str:
    """Return a link to the page of a mechanism under its short title."""
    page = pages.page(mechanism)
    return link(f"/{page}", inline(pages.short_title(page, language), language))


def to_overview(value: Weights | Domain, language: Language) -> str:
    """Return the name of a value of an axis with its colour and sign, a link if it has an overview page."""
    name = escape(language.word(value))
    page = pages.overview(value)
    if pages.exists(page, language):
        return element("a", name, href=f"/{page}", data_axis=axis(value))
    return element("span", name, data_axis=axis(value))


def axis(value: Weights | Domain) -> str:
    """Return what styles/axes.css calls a value of an axis: `channel_spatial`."""
    return value.name.lower()


def to_paper(mechanism: Mechanism, language: Language) -> str:
    """Return the short citation as a link to the paper."""
    key = mechanism.citation
    return link(references.paper_url(key), escape(references.short(key, language)))
