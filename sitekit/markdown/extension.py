"""The Markdown extension of the site, next to pymdownx.arithmatex (generic: true) and pymdownx.snippets.

Usage in mkdocs.yml:

    markdown_extensions:
      sitekit.markdown.extension: {language: en}
"""

from typing import Any

from markdown import Extension, Markdown  # type: ignore[import-untyped]

from sitekit.language import ENGLISH, LANGUAGES
from sitekit.markdown.citations import Citations
from sitekit.markdown.code import Code
from sitekit.markdown.fences import SUPERFENCES, Leftovers
from sitekit.markdown.formulas import Formulas
from sitekit.markdown.includes import Includes
from sitekit.markdown.linebreaks import LineBreaks
from sitekit.markdown.links import Links
from sitekit.markdown.reconstructions import Reconstructions
from sitekit.markdown.switch import Switch
from sitekit.markdown.tables import Tables


class SiteExtension(Extension):  # type: ignore[misc]
    """Registers all that runs; `md.sitekit_language` tells parts and fences the language of the page."""

    def __init__(self, **options: Any) -> None:
        self.config = {"language": [ENGLISH.code, f"language of the pages, one of {', '.join(LANGUAGES)}"]}
        super().__init__(**options)

    def extendMarkdown(self, md: Markdown) -> None:
        """Register in the order in which things run: a higher number runs first."""
        code = self.getConfig("language")
        if code not in LANGUAGES:
            raise ValueError(f"language {code!r} is not one of {', '.join(LANGUAGES)}")
        md.sitekit_language = LANGUAGES[code]

        # The lines of the page
        md.preprocessors.register(Includes(md), "sitekit-includes", 33)  # before pymdownx.snippets (32)
        md.registerExtensions(["pymdownx.superfences"], SUPERFENCES)  # 25
        md.preprocessors.register(Leftovers(md), "sitekit-leftovers", 24)

        # Its text; code and formulas (190) are set aside by then, links (160 to 170) not yet made
        md.inlinePatterns.register(Citations(md), "sitekit-citations", 175)

        # Its elements, with links (20)
        md.treeprocessors.register(Reconstructions(md), "sitekit-reconstructions", 16)
        md.treeprocessors.register(Links(md), "sitekit-links", 15)  # the parts come in
        # 5: table of contents and anchors
        md.treeprocessors.register(Tables(md), "sitekit-tables", 2)

        # Its HTML
        md.postprocessors.register(LineBreaks(md), "sitekit-linebreaks", 35)
        # 30: the blocks of code come in
        md.postprocessors.register(Switch(md), "sitekit-switch", 8)
        md.postprocessors.register(Formulas(md), "sitekit-formulas", 6)
        md.postprocessors.register(Code(md), "sitekit-code", 5)


def makeExtension(**options: Any) -> SiteExtension:
    """Entry point that Python-Markdown looks for."""
    return SiteExtension(**options)
