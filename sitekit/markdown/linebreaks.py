"""Where a line may break, in the page and in its source.

Chinese text may be wrapped in its source: a line break between two Chinese characters, or after full-width
punctuation, is no space. Nor is there one before a full-width bracket, which brings its own room.
A number keeps what belongs to it, as in "3 × 3" and "28 %", and a formula the punctuation after it.
"""

import re

from markdown.postprocessors import Postprocessor  # type: ignore[import-untyped]

WIDE = "[\u2018-\u201d\u3000-\u30ff\u3400-\u9fff\uff00-\uff60]"
STOP = "[\u3001\u3002\uff01\uff09\uff0c\uff1a\uff1b\uff1f]"
INLINE_TAGS = r"(?:</?(?:a|em|span|strong)\b[^>]*>)*"
BREAK = re.compile(rf"({WIDE}{INLINE_TAGS})\n *({INLINE_TAGS})(?={WIDE})")
BREAK_AFTER_STOP = re.compile(rf"({STOP}{INLINE_TAGS})\n *(?=[^\s<]|</?(?:a|em|span|strong|code)\b)")
SPACE_BEFORE_BRACKET = re.compile(r"[ \n]+((?:<span\b[^>]*>)*（)")

IN_NUMBER = re.compile(r"(?<=\d) (?=[×%]|(?:[kMG]|[kMG]i?B|ms|px)\b)|(?<=×) (?=\d)")
AFTER_FORMULA = re.compile(r"(?<=\\\)</span>)(?=[,.;:!?)、。，：；！？）])")
NO_BREAK_SPACE, WORD_JOINER = "\u00a0", "\u2060"


class LineBreaks(Postprocessor):  # type: ignore[misc]
    """Joins what belongs together."""

    def run(self, text: str) -> str:
        return AFTER_FORMULA.sub(WORD_JOINER, IN_NUMBER.sub(NO_BREAK_SPACE, joined(text)))


def joined(text: str) -> str:
    """Return text or HTML without the spaces and line breaks that Chinese does not want."""
    text = BREAK_AFTER_STOP.sub(r"\1", BREAK.sub(r"\1\2", text))
    return SPACE_BEFORE_BRACKET.sub(r"\1", text)
