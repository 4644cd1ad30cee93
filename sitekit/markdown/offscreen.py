"""Lets the browser leave out code and drawings at first: they are half of most pages.

Their height is known without them, so nothing moves when they appear.
"""

import re

from markdown.postprocessors import Postprocessor  # type: ignore[import-untyped]

from sitekit.svg import size

CODE = re.compile(r"(<pre><span></span><code)(>.*?</code></pre>)", re.DOTALL)


def ratio(svg: str) -> str:
    """Return the style that tells styles/offscreen.css the shape of a figure."""
    width, height = size(svg)
    return f"--ratio: {width:g} / {height:g}"


class Lines(Postprocessor):  # type: ignore[misc]
    """Tells styles/offscreen.css how many lines a block has; it can be scrolled by keys from the start."""

    def run(self, text: str) -> str:
        return CODE.sub(_count, text)


def _count(found: re.Match[str]) -> str:
    lines = found[2].count("\n")
    return f'{found[1]} tabindex="0" data-later="" style="--lines: {lines}"{found[2]}'
