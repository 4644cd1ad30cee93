"""Markdown extension: a table scrolls inside its own box on a narrow screen.

It has a class, because the script of the theme wraps each one without and so lays out the page again.
"""

from typing import Any
from xml.etree.ElementTree import Element

from markdown import Extension, Markdown  # type: ignore[import-untyped]
from markdown.treeprocessors import Treeprocessor  # type: ignore[import-untyped]


class _Wrap(Treeprocessor):  # type: ignore[misc]
    def run(self, root: Element) -> None:
        for parent in list(root.iter()):
            for place, child in enumerate(list(parent)):
                if child.tag == "table":
                    # The keyboard scrolls only what can take the focus
                    box = Element("div", {"class": "atlas-table", "tabindex": "0"})
                    child.set("class", child.get("class", "atlas-grid"))
                    box.tail, child.tail = child.tail, None
                    box.append(child)
                    parent[place] = box


class TablesExtension(Extension):  # type: ignore[misc]
    def extendMarkdown(self, md: Markdown) -> None:
        md.treeprocessors.register(_Wrap(md), "atlas-tables", 2)


def makeExtension(**kwargs: Any) -> TablesExtension:
    return TablesExtension(**kwargs)
