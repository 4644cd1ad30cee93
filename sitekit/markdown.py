"""The Markdown extension of the site: formulas, citations, checked includes, links in fences, marks of
reconstructions, line breaks, pieces to lay out.

Usage in mkdocs.base.yml, next to pymdownx.arithmatex (generic: true) and pymdownx.snippets:

    markdown_extensions:
      sitekit.markdown: {language: en}
"""

from typing import Any

from markdown import Extension, Markdown  # type: ignore[import-untyped]

from sitekit import bodies, citations, includes, linebreaks, links, math, offscreen, reconstructions, search
from sitekit.language import ENGLISH, LANGUAGES


class SiteExtension(Extension):  # type: ignore[misc]
    """Registers the parts; `md.sitekit_language` tells them and the fences the language of the page."""

    def __init__(self, **options: Any) -> None:
        self.config = {"language": [ENGLISH.code, f"language of the pages, one of {', '.join(LANGUAGES)}"]}
        super().__init__(**options)

    def extendMarkdown(self, md: Markdown) -> None:
        code = self.getConfig("language")
        if code not in LANGUAGES:
            raise ValueError(f"language {code!r} is not one of {', '.join(LANGUAGES)}")
        language = LANGUAGES[code]
        md.sitekit_language = language
        includes.register(md)
        citations.register(md, language)
        linebreaks.register(md)
        links.register(md)
        reconstructions.register(md)
        math.register(md, language)
        search.register(md)
        offscreen.register(md)
        bodies.register(md)


def makeExtension(**options: Any) -> SiteExtension:
    """Entry point that Python-Markdown looks for."""
    return SiteExtension(**options)
