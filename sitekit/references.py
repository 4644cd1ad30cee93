"""The papers of docs/references.bib: how they are cited, listed, and where they are to be read."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from html import escape
from pathlib import Path

from pybtex.database import Entry, Person, parse_file  # type: ignore[import-untyped]
from pybtex.exceptions import PybtexError  # type: ignore[import-untyped]

from sitekit import paths
from sitekit.errors import BuildError, fail
from sitekit.language import ENGLISH, Language


def known(key: str) -> bool:
    """Whether docs/references.bib has this key."""
    return key in _database()


def short(key: str, language: Language, source: str = "") -> str:
    """Return the citation as it stands in the text: "Hu et al., 2018".

    Raises:
        BuildError: the key is unknown; `source` is the text that holds it, to find the line.
    """
    entry = _entry(key, source)
    names = [_last_name(person) for person in entry.persons["author"]]
    match names:
        case [alone]:
            authors = alone
        case [first, second]:
            authors = language.word("two authors", first=first, second=second)
        case _:
            authors = language.word("many authors", first=names[0])
    return f"{authors}{language.comma}{entry.fields['year']}"


def year(key: str) -> int:
    """Return the year of publication."""
    return int(_entry(key).fields["year"])


def paper_url(key: str) -> str:
    """Return where to read the paper: arXiv if it is there, else by DOI, else its own address."""
    fields = _entry(key).fields
    if "eprint" in fields:
        return f"https://arxiv.org/abs/{fields['eprint']}"
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    return str(fields["url"])


def bibtex(key: str) -> str:
    """Return the entry as BibTeX to copy, in UTF-8."""
    entry = _entry(key)
    authors = " and ".join(str(person) for person in entry.persons["author"])
    fields = {"author": authors, **entry.fields}
    width = max(map(len, fields))
    lines = (f"  {name:<{width}} = {{{value}}}," for name, value in fields.items())
    return "\n".join([f"@{entry.type}{{{key},", *lines, "}"])


def entry_html(key: str, language: Language) -> str:
    """Return authors, title, venue, year and link of one paper, as HTML."""
    entry = _entry(key)
    fields = entry.fields
    authors = ", ".join(_full_name(person) for person in entry.persons["author"])
    lang = fields.get("langid", ENGLISH.code)
    title = f'<cite lang="{lang}">{escape(_plain(fields["title"]))}</cite>'
    if "titleaddon" in fields and language.code != lang:
        title += f" ({escape(_plain(fields['titleaddon']))})"
    where = " ".join(filter(None, [escape(_venue(fields)), fields["year"]]))
    link = f'<a href="{escape(paper_url(key))}">{escape(_link_text(fields))}</a>'
    return f"{escape(authors)}. {title}{_stop(title)} {where}. {link}"


def entry_markdown(key: str) -> str:
    """Return authors, title, venue, year and address of one paper, as Markdown."""
    entry = _entry(key)
    fields = entry.fields
    authors = ", ".join(_full_name(person) for person in entry.persons["author"])
    where = " ".join(filter(None, [_venue(fields), fields["year"]]))
    title = _plain(fields["title"])
    return f"{authors}. *{title}*{_stop(title)} {where}. <{paper_url(key)}>"


def _stop(title: str) -> str:
    """A title that asks ends by itself."""
    return "" if title.endswith(("?", "?</cite>")) else "."


def ordered(keys: Iterable[str]) -> list[str]:
    """Return keys in the order of the bibliography: by first author, then by year."""
    return sorted(keys, key=_order)


def bibliography_html(language: Language) -> str:
    """Return all entries, sorted by first author and year; each has the id that citations lead to."""
    items = (f'<li id="ref-{escape(key)}">{entry_html(key, language)}</li>' for key in ordered(_database()))
    return f'<ul class="bibliography" data-tree="">\n{"".join(items)}\n</ul>'


def _order(key: str) -> tuple[str, int, str]:
    return _last_name(_entry(key).persons["author"][0]).casefold(), year(key), key


def _last_name(person: Person) -> str:
    return _plain(" ".join([*person.prelast_names, *person.last_names]))


def _full_name(person: Person) -> str:
    return " ".join([*person.first_names, *person.middle_names, _last_name(person)])


def _plain(field: str) -> str:
    """Return a BibTeX field without the braces that keep capitals."""
    return field.replace("{", "").replace("}", "")


def _venue(fields: Mapping[str, str]) -> str:
    return _plain(fields.get("journal") or fields.get("booktitle") or fields.get("publisher") or "")


def _link_text(fields: Mapping[str, str]) -> str:
    if "eprint" in fields:
        return f"arXiv:{fields['eprint']}"
    if "doi" in fields:
        return f"doi:{fields['doi']}"
    return fields["url"].removeprefix("https://").rstrip("/")


def _entry(key: str, source: str = "") -> Entry:
    entries = _database()
    if key not in entries:
        near = get_close_matches(key, entries, n=1, cutoff=0.4)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        fail(f"unknown citation key '{key}'{hint}", source or key)
    return entries[key]


def _database() -> Mapping[str, Entry]:
    file = paths.DOCS / "references.bib"
    return _parse(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _parse(file: Path, stamp: int) -> Mapping[str, Entry]:
    """Return the entries of the file by key; `stamp` makes `mkdocs serve` see an edit."""
    try:
        return dict(parse_file(str(file), "bibtex", encoding="utf-8").entries.items())
    except PybtexError as error:
        raise BuildError(f"{file.relative_to(paths.ROOT)}: {error}") from error
