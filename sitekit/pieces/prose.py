"""A line of Markdown inside a part: emphasis, code, formulas, citations."""

import re
from functools import cache

from markdown import Markdown  # type: ignore[import-untyped]

from sitekit.language import Language
from sitekit.markdown.citations import CITATION, Citations


def inline(text: str, language: Language) -> str:
    """Return one paragraph of Markdown as well-formed HTML without its `<p>`.

    >>> from sitekit.language import ENGLISH
    >>> inline("Scales *each* channel by $g_c < 1$.", ENGLISH)
    'Scales <em>each</em> channel by <span class="arithmatex">\\\\(g_c &lt; 1\\\\)</span>.'
    """
    html: str = _markdown(language).reset().convert(text)
    return html.removeprefix("<p>").removesuffix("</p>")


def without_links(text: str) -> str:
    """Return Markdown with the text of its links and without its citations.

    >>> without_links("A [gate](../x.md) for each channel [@hu2018senet].")
    'A gate for each channel.'
    """
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"\s*" + CITATION, "", text))


@cache
def _markdown(language: Language) -> Markdown:
    arithmatex = {"pymdownx.arithmatex": {"generic": True}}
    md = Markdown(extensions=list(arithmatex), extension_configs=arithmatex, output_format="xhtml")
    md.sitekit_language = language
    md.inlinePatterns.register(Citations(md), "sitekit-citations", 175)
    return md
