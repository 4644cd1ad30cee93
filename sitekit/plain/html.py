"""The HTML of a part (sitekit.parts) as Markdown."""

import re
import xml.etree.ElementTree as etree
from collections.abc import Callable, Iterator

Link = Callable[[str], str]  # where a target of a part leads from the page

BLOCKS = {"div", "dl", "figure", "nav", "p", "pre", "table", "ul"}


def to_markdown(html: str, link: Link) -> str:
    """Return what a part shows as Markdown; a drawing becomes its description.

    >>> to_markdown('<div><p>A <em>map</em></p><ul><li><a href="/x.md">x</a></li></ul></div>', str.upper)
    'A *map*\\n\\n- [x](/X.MD)'
    """
    return "\n\n".join(_blocks(etree.fromstring(html), link))


def _blocks(element: etree.Element, link: Link) -> Iterator[str]:
    match element.tag:
        case "table":
            yield _table(element, link)
        case "ul":
            yield "\n".join(f"- {_text(item, link)}" for item in element)
        case "dl":
            pairs = zip(element.findall("dt"), element.findall("dd"), strict=True)
            yield "\n".join(f"- **{_text(name, link)}:** {_text(value, link)}" for name, value in pairs)
        case "form":  # nothing to set on paper
            return
        case "pre":
            yield f"```bibtex\n{''.join(element.itertext())}\n```"
        case "div" if element.get("class") == "arithmatex":
            yield "$$\n" + (element.text or "").removeprefix(r"\[").removesuffix(r"\]") + "\n$$"
        case "svg" | "{http://www.w3.org/2000/svg}svg":
            yield _drawing(element)
        case _ if any(child.tag in BLOCKS or child.tag.endswith("svg") for child in element):
            for child in element:
                yield from _blocks(child, link)
        case _:
            if text := _text(element, link):
                yield text


def _drawing(svg: etree.Element) -> str:
    described = svg.get("aria-label") or svg.findtext("{*}desc") or svg.findtext("{*}title") or ""
    return f"*{described}*"


def _table(element: etree.Element, link: Link) -> str:
    head, *rows = ([_cell(cell, link) for cell in row] for row in element.iter("tr"))
    # A name that spans rows stands in the first of them
    full = ([""] * (len(head) - len(row)) + row for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *full))


def _cell(element: etree.Element, link: Link) -> str:
    lists = list(element.iter("ul"))
    items = (_text(item, link) for of in lists for item in of)
    return (", ".join(items) if lists else _text(element, link)).replace("|", r"\|")


def _text(element: etree.Element, link: Link) -> str:
    """Return the text of an element and of what it holds, in one line."""
    inside = "".join([element.text or "", *(_text(child, link) + (child.tail or "") for child in element)])
    match element.tag:
        case "em" | "cite":
            return f"*{inside}*"
        case "strong":
            return f"**{inside}**"
        case "code":
            return f"`{inside}`"
        case "small":
            return f"({inside})"
        case "a":
            return f"[{inside}]({link(element.get('href', ''))})"
        case "span" if element.get("aria-hidden"):
            return ""
        case "span" if label := element.get("aria-label"):
            return label
        case "span" if (kind := element.get("class")) in ("atlas-badges", "atlas-marks"):
            values = ", ".join(_text(child, link).strip() for child in element)
            return f"({values})" if values and kind == "atlas-marks" else values or inside
        case "span" if element.get("class") == "citation":
            return "".join(element.itertext())
        case "span" if element.get("class") == "arithmatex":
            return "$" + inside.removeprefix(r"\(").removesuffix(r"\)") + "$"
        case _:
            return re.sub(r"\s+", " ", inside).strip() if element.tag != "span" else inside
