"""Well-formed HTML for the parts of a page.

Each part puts `data_tree=""` on its outermost element: sitekit.markdown.links then hands it to the generator,
which makes links from the root of the language (`/attention-domain/channel/senet.md`) relative and checks
them.
"""

from collections.abc import Iterable, Sequence
from html import escape


def element(name: str, content: str = "", /, **attributes: str) -> str:
    """Return an element around `content`, which is HTML.

    >>> element("td", "1", class_="x", data_sort="<1>")
    '<td class="x" data-sort="&lt;1&gt;">1</td>'
    """
    pairs = (f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return f"<{name}{''.join(pairs)}>{content}</{name}>"


def link(target: str, content: str) -> str:
    """Return a link to a page, from the root of the language, or to another site."""
    return element("a", content, href=target)


def code(text: str) -> str:
    """Return text as code."""
    return element("code", escape(text))


def code_block(content: str, language: str) -> str:
    """Return lines of code, which are HTML; the style sheet learns how many they are.

    >>> code_block("x = 1", "python")
    '<pre><code class="language-python" tabindex="0" style="--lines: 1">x = 1</code></pre>'
    """
    lines = len(content.splitlines())
    attributes = {"class_": f"language-{language}", "tabindex": "0", "style": f"--lines: {lines}"}
    return element("pre", element("code", content, **attributes))


def formula(tex: str) -> str:
    """Return a formula in a line of text; sitekit.markdown.formulas turns it into MathML."""
    return element("span", escape(rf"\({tex}\)", quote=False), class_="arithmatex")


def block_formula(tex: str) -> str:
    """Return a formula on a line of its own, which scrolls if it is long."""
    return element("div", escape(rf"\[{tex}\]", quote=False), class_="arithmatex")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], **attributes: str) -> str:
    """Return a table whose rows are named by their first cell; sitekit.markdown.tables lets it scroll.

    Args:
        columns: heading of each column, as text.
        rows: cells of each row, as HTML.
        attributes: of every cell but those of the first column.
    """
    return grouped_table(columns, ((name, [cells]) for name, *cells in rows), **attributes)


def grouped_table(
    columns: Sequence[str], groups: Iterable[tuple[str, Sequence[Sequence[str]]]], **attributes: str
) -> str:
    """Return a table in which one name may stand beside several rows; the rest as for `table`.

    Args:
        columns: heading of each column, as text.
        groups: name and rows of each group, as HTML.
        attributes: of every cell but those of the first column.
    """
    first, *rest = (escape(column) for column in columns)
    heads = element("th", first, scope="col") + _cells("th", rest, scope="col", **attributes)
    body = "".join(_group(name, rows, **attributes) for name, rows in groups)
    return element("table", element("thead", element("tr", heads)) + element("tbody", body))


def _group(name: str, rows: Sequence[Sequence[str]], **attributes: str) -> str:
    span = {"rowspan": str(len(rows))} if len(rows) > 1 else {}
    first, *others = (_cells("td", cells, **attributes) for cells in rows)
    lines = [element("th", name, scope="row", **span) + first, *others]
    return "".join(element("tr", line) for line in lines)


def _cells(tag: str, cells: Iterable[str], **attributes: str) -> str:
    return "".join(element(tag, cell, **attributes) for cell in cells)
