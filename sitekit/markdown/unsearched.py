"""Keeps code, proofs and references out of the search: they would be most of what every visitor loads."""

import re

from markdown.postprocessors import Postprocessor  # type: ignore[import-untyped]

CODE = '<div class="language-python highlight"'
LEFT_OUT = re.compile(rf'{CODE}|<div class="atlas-(?:proofs|cost|bibtex|neighbours)\b[^"]*"')
MARK = " data-search-exclude"


class LeftOut(Postprocessor):  # type: ignore[misc]
    """Marks parts of a page as not to be indexed."""

    def run(self, text: str) -> str:
        return LEFT_OUT.sub(rf"\g<0>{MARK}", text)
