"""A BibTeX entry to copy."""

from html import escape

from sitekit import citations
from sitekit.parts.html import element


def bibtex(key: str) -> str:
    """Return the entry of this key as a code block.

    Raises:
        BuildError: docs/references.bib does not hold the key.
    """
    entry = element("code", escape(citations.bibtex(key.strip())), tabindex="0")
    return element("div", element("pre", entry), class_="atlas-bibtex highlight")
