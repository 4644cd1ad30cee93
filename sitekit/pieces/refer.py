"""Links to mechanisms, overviews and papers."""

from html import escape

from sitekit import pages, references
from sitekit.language import Language
from sitekit.pieces.elements import link
from sitekit.pieces.prose import inline
from snippets.catalogue import Domain, Mechanism, Weights


def to_mechanism(mechanism: Mechanism, language: Language) -> str:
    """Return a link to the page of a mechanism under its short title."""
    page = pages.page(mechanism)
    return link(f"/{page}", inline(pages.short_title(page, language), language))


def to_overview(value: Weights | Domain, language: Language) -> str:
    """Return the name of a value of an axis, a link if it has an overview page."""
    name = escape(language.word(value))
    page = pages.overview(value)
    return link(f"/{page}", name) if pages.exists(page, language) else name


def to_paper(mechanism: Mechanism, language: Language) -> str:
    """Return the short citation as a link to the paper."""
    key = mechanism.citation
    return link(references.paper_url(key), escape(references.short(key, language)))
