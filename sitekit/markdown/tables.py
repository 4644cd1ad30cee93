"""A table scrolls inside its own box on a narrow screen.

It has a class, because the script of the theme wraps each one without and so lays out the page again. In a
table of the text, cells know the name of their column, so that a phone can show them below each other.
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
                    if not child.get("class"):
                        child.set("class", "atlas-grid")
                        _label(child)
                    box.tail, child.tail = child.tail, None
                    box.append(child)
                    parent[place] = box


def _label(table: Element) -> None:
    names = ["".join(cell.itertext()).strip() for cell in table.iterfind("thead/tr[1]/*")]
    for row in table.iterfind("tbody/tr"):
        for name, cell in zip(names, row, strict=False):
            cell.set("data-label", name)
