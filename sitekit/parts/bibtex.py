"""A BibTeX entry to copy."""

from html import escape

from sitekit import references
from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.elements import element


@part("bibtex")
def bibtex(body: str, language: Language) -> str:
    """Return the entry whose key is the body as a code block.

    Raises:
        BuildError: docs/references.bib does not hold the key.
    """
    entry = element("code", escape(references.bibtex(body.strip())), class_="language-bibtex", tabindex="0")
    return element("div", element("pre", entry), class_="atlas-bibtex highlight")
