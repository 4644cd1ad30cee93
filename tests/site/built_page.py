"""One built page as the tests see it: its ids, links, loads and text."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
NOT_PROSE = {"code", "pre", "script", "style", "svg", "math", "textarea"}
SOCIAL = ("og:", "twitter:")
LOADING = {"src", "srcset", "poster", "data", "action"}
LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "manifest"}


@dataclass
class Page:
    """What a page holds; `links` are the targets a reader can follow, `loads` those a browser fetches."""

    language: str = ""
    title: str = ""
    description: str = ""
    social: dict[str, str] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    text: str = ""


def read(file: Path) -> Page:
    """Return what the HTML file holds."""
    reader = _Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    return reader.page


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.page.ids.append(values["id"])
        if tag == "html":
            self.page.language = values.get("lang", "")
        if tag == "meta" and values.get("name") == "description":
            self.page.description = values.get("content", "")
        if tag == "meta" and (name := values.get("property") or values.get("name", "")).startswith(SOCIAL):
            self.page.social[name] = values.get("content", "")
        if tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        if tag == "link" and LOADED_LINKS & set(values.get("rel", "").split()):
            self.page.loads.append(values.get("href", ""))
        self.page.loads += [value for name, value in values.items() if name in LOADING]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        while tag in self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["title"] and "svg" not in self.open:
            self.page.title += data
        elif not NOT_PROSE & set(self.open):
            self.page.text += data
