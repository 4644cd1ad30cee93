"""A table scrolls inside its own box on a narrow screen.

It has a class, because the script of the theme wraps each one without and so lays out the page again.
"""

from xml.etree.ElementTree import Element

from markdown.treeprocessors import Treeprocessor  # type: ignore[import-untyped]


class Tables(Treeprocessor):  # type: ignore[misc]
    """Puts a box around each table."""

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
