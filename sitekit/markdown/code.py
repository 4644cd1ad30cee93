"""Keeps blocks of code small: an element only for what has a colour. The keyboard scrolls each block.

The style sheet learns the number of lines: a browser knows the height before it lays a block out.
"""

import re

from markdown.postprocessors import Postprocessor  # type: ignore[import-untyped]

BLOCK = re.compile(r"(<pre><span></span><code)(>.*?</code></pre>)", re.DOTALL)
PLAIN = re.compile(r'<span class="(?:n|o|p|w)">([^<]*)</span>')  # names, operators, punctuation, spaces


class Code(Postprocessor):  # type: ignore[misc]
    """Names and punctuation would be a third of the elements of a page."""

    def run(self, text: str) -> str:
        return BLOCK.sub(_light, text)


def _light(found: re.Match[str]) -> str:
    content = PLAIN.sub(r"\1", found[2])
    lines = content.count("\n")
    return f'{found[1]} tabindex="0" style="--lines: {lines}"{content}'
