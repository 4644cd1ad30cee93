"""What the search knows of a page: its names, its place, and the text of its sections."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from mkdocs.structure.pages import Page

from sitekit import pages, paths
from sitekit.closure import digest
from sitekit.language import LANGUAGES
from sitekit.remembered import Remembered
from snippets.catalogue import CATALOGUE, fold

LEFT_OUT_TAGS = {"svg", "pre", "annotation", "form", "script"}
LEFT_OUT_CLASSES = re.compile(
    r"\b(headerlink|atlas-(bibtex|calculator|card|changed|comparison|cost|foundations|growth|matrix|members|models|neighbours|onnx|proofs|spread))\b"
)
BLOCK = re.compile("p|div|li|d[dt]|t[rhd]|br|summary|figcaption")
HEADING = re.compile("h[1-6]")
BETWEEN = {"msub": "_", "msup": "^", "msubsup": "_^", "mfrac": "/"}  # what parts of a formula are joined by
INVISIBLE = re.compile("[\u200b\u2060-\u2064]")
TIMES = re.compile(r"(?<=\d)\s*×\s*(?=\d)")
PARTS = re.compile("[:：()（）]")

ROWS = {pages.page(row): row for row in CATALOGUE.values()}


class Section(NamedTuple):
    """Part of a page below one heading; the first has no id."""

    id: str
    heading: str
    text: str


@cache
def known_sections(language: str) -> Remembered:
    """Return the sections of pages as the last build of a language has read them."""
    return Remembered(f"sections-{language}", digest([Path(__file__)]))


def entry(page: Page, language: str) -> dict[str, object]:
    """Return what the index holds of a page."""
    return {
        "url": page.url,
        "title": page.title,
        "place": " › ".join([str(section.title) for section in page.ancestors][::-1]),
        "names": names(page),
        "classes": [*classes(page)],
        "sections": known_sections(language).get(sections, page.content or ""),
    }


def order(page: Page) -> int:
    """Return where a page stands among those that fit equally: mechanisms first, as in the catalogue."""
    return [*ROWS, page.file.src_uri].index(page.file.src_uri)


def names(page: Page) -> list[str]:
    """Return what a page is called in either language, and its aliases.

    `found_as` in the head of a page lists what else leads to it.
    """
    source = page.file.src_uri
    titles = [str(page.title)]
    if source.endswith(".md"):
        written = [language for language in LANGUAGES.values() if pages.exists(source, language)]
        titles += [pages.title(source, language) for language in written]
    found = [part.strip() for title in titles for part in (title, *PARTS.split(title))]
    found += page.meta.get("found_as", [])
    if row := ROWS.get(source):
        found += [row.slug, *row.aliases]
    return list({fold(name): name for name in reversed(found) if fold(name)}.values())[::-1]


def classes(page: Page) -> Iterator[str]:
    """Yield the public classes of a page's module, but for tuples of results; it is read and not run."""
    if row := ROWS.get(page.file.src_uri):
        source = paths.ROOT.joinpath("snippets", f"{row.path}.py").read_text(encoding="utf-8")
        for statement in ast.parse(source).body:
            if not isinstance(statement, ast.ClassDef) or statement.name.startswith("_"):
                continue
            if "NamedTuple" not in map(ast.unparse, statement.bases):
                yield statement.name


def sections(html: str) -> list[Section]:
    """Return the text of a page by heading, without code, drawings and what is made for every mechanism.

    >>> sections('<p>Why?</p><h2 id="so">So<a class="headerlink">#</a></h2><p>A <b>3 × 3</b> map.</p>')
    [Section(id='', heading='', text='Why?'), Section(id='so', heading='So', text='A 3×3 map.')]
    """
    reader = _Reader()
    reader.feed(html)
    return [Section(name, _clean(heading), _clean(text)) for name, heading, text in reader.found]


def _clean(text: str) -> str:
    return TIMES.sub("×", " ".join(INVISIBLE.sub("", text).split()))


class _Reader(HTMLParser):
    """Collects id, heading and text of each section."""

    def __init__(self) -> None:
        super().__init__()
        self.found = [["", "", ""]]
        self._column = 2  # where text goes: 1 inside a heading
        self._left_out: list[str] = []  # the tag that is left out, once for each open tag of its name
        self._formula: list[tuple[str, int]] = []  # open tags of a formula, and how many parts each has had

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if self._left_out:
            self._left_out += [tag] * (tag == self._left_out[0])
        elif tag in LEFT_OUT_TAGS or LEFT_OUT_CLASSES.search(given.get("class") or ""):
            self._left_out = [tag]
        elif HEADING.fullmatch(tag):
            if tag != "h1":
                self.found.append([given.get("id") or "", "", ""])
            self._column = 1
        elif tag == "math" or self._formula:
            self._join(tag)
        elif BLOCK.fullmatch(tag):
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        if self._left_out:
            self._left_out = self._left_out[1:] if tag == self._left_out[0] else self._left_out
        elif self._formula:
            self._formula.pop()
        elif HEADING.fullmatch(tag):
            self._column = 2
        elif BLOCK.fullmatch(tag):
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        if not self._left_out:
            self.found[-1][self._column] += data.replace("⊤", "T") if self._formula else data

    def _join(self, tag: str) -> None:
        """Write what stands before the next part of a formula: softmax(QK^T) is found as it is typed."""
        if self._formula:
            parent, parts = self._formula[-1]
            self.handle_data(BETWEEN.get(parent, "")[parts - 1 : parts] if parts else "")
            self._formula[-1] = parent, parts + 1
        self._formula.append((tag, 0))
