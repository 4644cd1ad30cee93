"""Puts each second-level heading and what follows into a section, which a browser can lay out by itself."""

import xml.etree.ElementTree as etree

from markdown import Markdown  # type: ignore[import-untyped]
from markdown.treeprocessors import Treeprocessor  # type: ignore[import-untyped]


def register(md: Markdown) -> None:
    """Run after the table of contents has been made (5)."""
    md.treeprocessors.register(Sections(md), "sitekit-sections", 1)


class Sections(Treeprocessor):  # type: ignore[misc]
    """styles/offscreen.css leaves out those below the screen until offscreen.js has time for them."""

    def run(self, root: etree.Element) -> None:
        children = list(root)
        for child in children:
            root.remove(child)
        place = root
        for child in children:
            if child.tag == "h2":
                place = etree.SubElement(root, "section", {"data-later": ""})
            place.append(child)
