"""Citations: `[@hu2018senet]` becomes "Hu et al., 2018" and leads to the bibliography page."""

import re
import xml.etree.ElementTree as etree

from markdown import Markdown  # type: ignore[import-untyped]
from markdown.inlinepatterns import InlineProcessor  # type: ignore[import-untyped]

from sitekit import references
from sitekit.language import Language

KEY = r"[\w:-]+"
CITATION = r"\[(@[\w:-]+(?:\s*;\s*@[\w:-]+)*)\]"
PAGE = "/bibliography.md"


class Citations(InlineProcessor):  # type: ignore[misc]
    """Emits links to a source path from the root of the docs; the generator makes them relative."""

    def __init__(self, md: Markdown) -> None:
        super().__init__(CITATION, md)

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[etree.Element, int, int]:
        language: Language = self.md.sitekit_language
        opening, closing = language.brackets
        span = etree.Element("span", {"class": "citation"})
        span.text = opening
        for key in re.findall(KEY, m[1]):
            if len(span):
                span[-1].tail = language.semicolon
            link = etree.SubElement(span, "a", {"href": f"{PAGE}#ref-{key}"})
            link.text = references.short(key, language, source=m[0])
        span[-1].tail = closing
        return span, m.start(0), m.end(0)


def in_words(text: str, language: Language) -> str:
    """Return a line of Markdown with its citations spelled out: "(Hu et al., 2018)"."""
    opening, closing = language.brackets

    def spelled(found: re.Match[str]) -> str:
        cited = (references.short(key, language, source=found[0]) for key in re.findall(KEY, found[1]))
        return f"{opening}{language.semicolon.join(cited)}{closing}"

    return re.sub(CITATION, spelled, text)


def cited(text: str) -> set[str]:
    """Return the keys of all citations in a text."""
    return {key for found in re.finditer(CITATION, text) for key in re.findall(KEY, found[1])}
