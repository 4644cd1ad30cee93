"""Keeps the source of whole modules out of the search: it would be most of what every visitor loads."""

import re

from markdown import Markdown  # type: ignore[import-untyped]
from markdown.postprocessors import Postprocessor  # type: ignore[import-untyped]

MODULE = re.compile(r'<div class="language-python highlight">(?=<span class="filename">)')


def register(md: Markdown) -> None:
    """Run when the blocks of code, stashed until `raw_html` (30), are back."""
    md.postprocessors.register(Modules(), "sitekit-search", 6)


class Modules(Postprocessor):  # type: ignore[misc]
    """Marks blocks of code with a file name as not to be indexed."""

    def run(self, text: str) -> str:
        return MODULE.sub('<div class="language-python highlight" data-search-exclude>', text)
