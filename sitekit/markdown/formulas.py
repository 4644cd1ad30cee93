"""Formulas: TeX to MathML when the site is built, so that a page needs no script."""

import re
from html import unescape

from markdown.postprocessors import Postprocessor  # type: ignore[import-untyped]
from math_core import LatexError, LatexToMathML

from sitekit.errors import fail, locate
from sitekit.language import Language

# What pymdownx.arithmatex (generic: true) leaves in the page.
FORMULA = re.compile(
    r'<span class="arithmatex">\\\((?P<inline>.*?)\\\)</span>'
    r'|<div class="arithmatex">\\\[(?P<block>.*?)\\\]</div>',
    re.DOTALL,
)
INLINE = LatexToMathML(fancy_error=False)
BLOCK = LatexToMathML(fancy_error=False, annotation=True)


def inline(tex: str) -> str:
    """Return a formula that stands in a line of text, as HTML.

    It carries no TeX annotation: tables of contents and page titles keep the text of what stands in a
    heading, and would show the formula twice.

    Raises:
        BuildError: the TeX is wrong or uses an unknown command.
    """
    return f'<span class="arithmatex">{_mathml(INLINE, tex, False)}</span>'


def block(tex: str, language: Language) -> str:
    """Return a formula on its own line, as HTML; it keeps its TeX as an annotation.

    A wide formula scrolls on a narrow screen; `tabindex` lets the keyboard scroll it too.

    Raises:
        BuildError: the TeX is wrong or uses an unknown command.
    """
    return (
        f'<div class="arithmatex" role="group" aria-label="{language.word("formula")}" tabindex="0">'
        f"{_mathml(BLOCK, tex, True)}</div>"
    )


class Formulas(Postprocessor):  # type: ignore[misc]
    """Python-Markdown runs this on the page and, for the table of contents, on each heading."""

    def run(self, text: str) -> str:
        return FORMULA.sub(self._replace, text)

    def _replace(self, match: re.Match[str]) -> str:
        if match["inline"] is not None:
            return inline(unescape(match["inline"]))
        return block(unescape(match["block"]), self.md.sitekit_language)


def _mathml(converter: LatexToMathML, tex: str, display: bool) -> str:
    tex = tex.strip()
    try:
        return converter.convert_with_local_state(tex, displaystyle=display)
    except LatexError as error:
        offset, _, reason = str(error).partition(": ")
        fail(f"formula `{tex}`: {reason}", _source(tex, int(offset)))


def _source(tex: str, offset: int) -> str:
    """Return text to look for in docs/: the formula, or its wrong line where the page indents it."""
    if any(locate(tex)):
        return tex
    return tex.split("\n")[tex.count("\n", 0, offset)].strip()
