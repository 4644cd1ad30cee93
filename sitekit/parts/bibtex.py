"""A BibTeX entry to copy."""

from html import escape

from sitekit import references
from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.elements import code_block, element


@part("bibtex")
def bibtex(body: str, language: Language) -> str:
    """Return the entry whose key is the body as a code block.

    Raises:
        BuildError: docs/references.bib does not hold the key.
    """
    entry = code_block(escape(references.bibtex(body.strip())), "bibtex")
    return element("div", entry, class_="atlas-bibtex highlight")
