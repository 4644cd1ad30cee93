"""All papers that the pages cite."""

from sitekit import references
from sitekit.language import Language
from sitekit.parts import part


@part("bibliography")
def bibliography(body: str, language: Language) -> str:
    """No body. Return all entries of docs/references.bib, each with the id that citations lead to."""
    return references.bibliography_html(language)
