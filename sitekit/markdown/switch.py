"""A switch on the code of a module hides its docstrings, on the screen and in what is copied.

The header stays: it names paper and licence. What is left runs, as sitekit takes away what Python calls a
docstring and nothing else. No script: the style sheet looks at the switch.
"""

import re
from functools import cache
from html import escape, unescape
from pathlib import Path

from markdown.postprocessors import Postprocessor  # type: ignore[import-untyped]

from sitekit.closure import digest
from sitekit.paths import ROOT
from sitekit.pieces.elements import element
from sitekit.remembered import Remembered
from snippets.catalogue import CATALOGUE
from snippets.docstrings import docstrings

MODULE = re.compile(
    r'(<div class="language-python highlight"[^>]*>)(<span class="filename">(\w+)\.py</span>'
    r"<pre><span></span><code>)(.*?)(</code></pre>)",
    re.DOTALL,
)
TAG = re.compile("<[^>]+>")


class Switch(Postprocessor):  # type: ignore[misc]
    """Wraps each docstring of a module, with its lines whole."""

    def run(self, text: str) -> str:
        return MODULE.sub(self._switched, text)

    def _switched(self, found: re.Match[str]) -> str:
        block, opening, slug, code, closing = found.groups()
        if slug not in CATALOGUE:
            return found[0]
        name = escape(self.md.sitekit_language.word("hide docstrings"))
        box = element("label", f'<input type="checkbox"/> {name}', class_="atlas-bare")
        return f"{block}{box}{opening}{_known().get(_wrapped, code)}{closing}"


@cache
def _known() -> Remembered:
    """Return the modules as the last build has wrapped them."""
    return Remembered("switch", digest([Path(__file__), ROOT / "snippets" / "docstrings.py"]))


def _wrapped(code: str) -> str:
    """Return highlighted code with an element around each docstring but the header."""
    lines = code.splitlines(keepends=True)
    _, *places = docstrings(unescape(TAG.sub("", code)))
    for place in places:
        lines[place.start] = '<span class="atlas-docstring">' + lines[place.start]
        lines[place.stop - 1] += "</span>"
    return "".join(lines)
