"""Says of each link to a reconstruction that it leads to one, wherever the text of a page has such a link.

A reader who is sent to a mechanism should know before the choice, not after, that gaps were filled in it
(`Evidence.RECONSTRUCTION`). Parts of a page say it themselves (sitekit.pieces.badges).
"""

import re
import xml.etree.ElementTree as etree
from collections.abc import Iterator
from pathlib import PurePosixPath

from markdown.treeprocessors import Treeprocessor  # type: ignore[import-untyped]

from sitekit.pages import PROVED
from sitekit.pieces.badges import MARKS
from snippets.catalogue import CATALOGUE, Evidence

HEADING = re.compile("h[1-6]")


def leads_to_one(target: str) -> bool:
    """Whether a link from one page to another leads to a reconstruction; slugs are told by their last part.

    >>> leads_to_one("../spatial/senet.md#code"), leads_to_one("https://a.b/canet.md"), leads_to_one("#code")
    (False, False, False)
    """
    path, _, _ = target.partition("#")
    if "://" in path or not path.endswith(".md"):
        return False
    found = CATALOGUE.get(PurePosixPath(path).stem.replace("-", "_"))
    return found is not None and Evidence.RECONSTRUCTION in found.evidence


class Reconstructions(Treeprocessor):  # type: ignore[misc]
    """Puts a mark behind each link to a reconstruction."""

    def run(self, root: etree.Element) -> None:
        for parent, place in list(_links(root))[::-1]:
            link = parent[place]
            mark = etree.Element("a", {"class": "atlas-badge", "href": f"/{PROVED}#evidence"})
            mark.text = MARKS[Evidence.RECONSTRUCTION] + "\u00a0"
            mark.text += self.md.sitekit_language.word(f"evidence {Evidence.RECONSTRUCTION}")
            link.tail, mark.tail = "\u00a0", link.tail
            parent.insert(place + 1, mark)


def _links(element: etree.Element) -> Iterator[tuple[etree.Element, int]]:
    """Yield parent and place of each link to a reconstruction, but for those in headings."""
    for place, child in enumerate(element):
        if child.tag == "a" and leads_to_one(child.get("href", "")):
            yield element, place
        elif not HEADING.fullmatch(str(child.tag)):
            yield from _links(child)
