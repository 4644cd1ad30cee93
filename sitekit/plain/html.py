"""The HTML of a part (sitekit.parts) as Markdown."""

import re
import xml.etree.ElementTree as etree
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sitekit.language import Language

Link = Callable[[str], str]  # where a target of a part leads from the page

BLOCKS = {"details", "div", "dl", "figure", "nav", "p", "pre", "table", "ul"}


def to_markdown(html: str, link: Link, language: Language) -> str:
    """Return what a part shows as Markdown; a drawing becomes its description.

    >>> from sitekit.language import ENGLISH
    >>> html = '<div><p>A <em>map</em></p><ul><li><a href="/x.md">x</a></li></ul></div>'
    >>> to_markdown(html, str.upper, ENGLISH)
    'A *map*\\n\\n- [x](/X.MD)'
    """
    return "\n\n".join(_Reader(link, language).blocks(etree.fromstring(html))) if html else ""


@dataclass(frozen=True)
class _Reader:
    link: Link
    language: Language

    def blocks(self, element: etree.Element) -> Iterator[str]:
        match element.tag:
            case "table":
                yield self._table(element)
            case "ul":
                yield "\n".join(f"- {self._text(item)}" for item in element)
            case "dl":
                pairs = zip(element.findall("dt"), element.findall("dd"), strict=True)
                texts = ((self._text(name), self._text(value)) for name, value in pairs)
                colon = self.language.colon.strip()
                yield "\n".join(f"- **{name}{colon}** {value}" for name, value in texts)
            case "form" | "button":  # nothing to set on paper
                return
            case "pre":
                kind = element[0].get("class", "").removeprefix("language-")
                yield f"```{kind}\n{''.join(element.itertext()).rstrip()}\n```"
            case "div" if element.get("class") == "arithmatex":
                yield "$$\n" + (element.text or "").removeprefix(r"\[").removesuffix(r"\]") + "\n$$"
            case "svg" | "{http://www.w3.org/2000/svg}svg":
                yield self._drawing(element)
            case _ if any(child.tag in BLOCKS or child.tag.endswith("svg") for child in element):
                for child in element:
                    yield from self.blocks(child)
            case _:
                if text := self._text(element):
                    yield text

    @staticmethod
    def _drawing(svg: etree.Element) -> str:
        described = svg.get("aria-label") or svg.findtext("{*}desc") or svg.findtext("{*}title") or ""
        return f"*{described}*"

    def _table(self, element: etree.Element) -> str:
        head, *rows = (list(self._cells(row)) for row in element.iter("tr"))
        # A name that spans rows stands in the first of them
        full = ([""] * (len(head) - len(row)) + row for row in rows)
        return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *full))

    def _cells(self, row: etree.Element) -> Iterator[str]:
        for cell in row:
            yield self._cell(cell)
            yield from [""] * (int(cell.get("colspan", "1")) - 1)

    def _cell(self, element: etree.Element) -> str:
        lists = list(element.iter("ul"))
        items = (self._text(item) for of in lists for item in of)
        return (self.language.separator.join(items) if lists else self._text(element)).replace("|", r"\|")

    def _text(self, element: etree.Element) -> str:
        """Return the text of an element and of what it holds, in one line."""
        inside = "".join([element.text or "", *(self._text(child) + (child.tail or "") for child in element)])
        match element.tag:
            case "em" | "cite":
                return f"*{inside}*"
            case "strong":
                return f"**{inside}**"
            case "code":
                return f"`{inside}`"
            case "small":
                return self._aside(inside)
            case "a":
                return f"[{inside}]({self.link(element.get('href', ''))})"
            case "span" if element.get("aria-hidden"):
                return ""
            case "span" if label := element.get("aria-label"):
                return label
            case "span" if (kind := element.get("class")) in ("atlas-badges", "atlas-marks"):
                values = self.language.separator.join(self._text(child).strip() for child in element)
                return self._aside(values) if values and kind == "atlas-marks" else values or inside
            case "span" if element.get("class") == "citation":
                return "".join(element.itertext())
            case "span" if element.get("class") == "arithmatex":
                return "$" + inside.removeprefix(r"\(").removesuffix(r"\)") + "$"
            case _:
                return re.sub(r"\s+", " ", inside).strip() if element.tag != "span" else inside

    def _aside(self, text: str) -> str:
        return self.language.aside(text).strip()
