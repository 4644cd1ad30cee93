"""Chinese text may be wrapped in its source: a line break between two Chinese characters is no space.

Nor is there one before a full-width bracket, which brings its own room.
"""

import re

from markdown import Markdown  # type: ignore[import-untyped]
from markdown.postprocessors import Postprocessor  # type: ignore[import-untyped]

WIDE = "[\u2018-\u201d\u3000-\u30ff\u3400-\u9fff\uff00-\uff60]"
INLINE_TAGS = r"(?:</?(?:a|em|span|strong)\b[^>]*>)*"
BREAK = re.compile(rf"({WIDE}{INLINE_TAGS})\n *({INLINE_TAGS})(?={WIDE})")

SPACE_BEFORE_BRACKET = re.compile(r"[ \n]+((?:<span\b[^>]*>)*（)")


def register(md: Markdown) -> None:
    """Run before the blocks of code, stashed until `raw_html` (30), are back."""
    md.postprocessors.register(LineBreaks(), "sitekit-linebreaks", 35)


class LineBreaks(Postprocessor):  # type: ignore[misc]
    """Joins lines that end and go on with a Chinese character or full-width punctuation."""

    def run(self, text: str) -> str:
        return joined(text)


def joined(text: str) -> str:
    """Return text or HTML without the spaces and line breaks that Chinese does not want."""
    return SPACE_BEFORE_BRACKET.sub(r"\1", BREAK.sub(r"\1\2", text))
