"""Wraps the blocks between the headings of a page, a few at a time: browsers lay out each piece by itself.

The headings stay outside: the theme asks for the place of each, and would have all of the page laid out.
"""

import xml.etree.ElementTree as etree

from markdown.treeprocessors import Treeprocessor  # type: ignore[import-untyped]

HEADINGS = ("h1", "h2", "h3")
MOST = 5  # blocks in a piece


class Bodies(Treeprocessor):  # type: ignore[misc]
    """styles/offscreen.css leaves out those below the screen until offscreen.js has time for them."""

    def run(self, root: etree.Element) -> None:
        children = list(root)
        for child in children:
            root.remove(child)
        place: etree.Element | None = root  # what comes before the first section is on the screen
        for child in children:
            if child.tag in HEADINGS:
                root.append(child)
                place = root if child.tag == "h1" else None
                continue
            if place is None or (place is not root and len(place) == MOST):
                place = etree.SubElement(root, "div", {"data-later": ""})
            place.append(child)
