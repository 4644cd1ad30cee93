"""Links in the output of a fence: resolved and checked by the generator like those of the text.

Superfences hides what a fence returns from the generator until the page is done, so a link in it would
be neither rewritten to a relative one nor checked, and an anchor in it would count as missing. A fence
that wants both puts `data-tree` on its outermost element and returns well-formed XML; links to pages are
written from the root of the language, `/attention-domain/channel/senet.md#code`.
"""

import re
import xml.etree.ElementTree as etree

from markdown.treeprocessors import Treeprocessor  # type: ignore[import-untyped]
from markdown.util import HTML_PLACEHOLDER_RE  # type: ignore[import-untyped]

MARK = "data-tree"
MARKED = re.compile(rf"\s*<[a-z]+[^>]*\s{MARK}")


class Links(Treeprocessor):  # type: ignore[misc]
    """Puts the marked output of fences into the element tree of the page."""

    def run(self, root: etree.Element) -> None:
        for parent in root.iter():
            for index, child in enumerate(parent):
                if (tree := self._stashed(child)) is not None:
                    tree.tail = child.tail
                    parent[index] = tree

    def _stashed(self, element: etree.Element) -> etree.Element | None:
        placeholder = HTML_PLACEHOLDER_RE.fullmatch((element.text or "").strip())
        if element.tag != "p" or placeholder is None:
            return None
        html = self.md.htmlStash.rawHtmlBlocks[int(placeholder[1])]
        if not isinstance(html, str) or not MARKED.match(html):
            return None
        tree = etree.fromstring(html)
        del tree.attrib[MARK]
        return tree
