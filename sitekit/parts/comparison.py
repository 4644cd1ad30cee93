"""All mechanisms in one table; comparison.js sorts and filters it, sizes.js computes with other sizes."""

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby

from sitekit import references
from sitekit.language import Language
from sitekit.parts import part
from sitekit.parts.card import parameters, state
from sitekit.pieces.badges import badges, reconstructed
from sitekit.pieces.controls import chooser, columns_shown, fields, filters
from sitekit.pieces.elements import element, formula
from sitekit.pieces.numbers import counted
from sitekit.pieces.refer import axis, to_mechanism, to_overview
from sitekit.pieces.sizes import sizes, varied
from sitekit.pieces.used import census, used_by
from sitekit.results import Results
from sitekit.store import results
from snippets.catalogue import CATALOGUE, Evidence, Mechanism, Weights

_SORTED = ("mechanism", "weights", "domain", "year", "parameters", "macs", "used by")
_FORMULAS = ("state", "complexity", "parameter formula")
_COLUMNS = (*_SORTED[:-1], "at sizes", "evidence", "used by", *_FORMULAS)
_PHONE = ("weights", "domain", "year", "parameters", "macs", "at sizes", "evidence", "used by")


@part("comparison")
def comparison(body: str, language: Language) -> str:
    """No body. Return forms and table and, as data attributes, the words their scripts need."""
    mechanisms = CATALOGUE.values()
    empty = {
        "state": not any(row.state for row in mechanisms),
        "used by": not census(),
    }
    columns = [key for key in _COLUMNS if not empty.get(key)]
    lists = {key: _choices(key, language) for key in ("weights", "domain", "chapter")}
    if "used by" in columns:
        lists["used by"] = {key: language.word(key) for key in ("used", "not counted")}
    if "state" in columns:
        lists["state"] = {key: language.word(key) for key in ("grows", "fixed size")}
    lists["evidence"] = {value.value: language.word(f"evidence {value}") for value in Evidence}
    head = "".join(_head(key, language) for key in columns)
    bodies = "".join(_body(placed, list(rows), columns, language) for placed, rows in _parts())
    parts = (
        filters(lists, len(CATALOGUE), language),
        chooser([results(mechanism).rows[-1].sizes for mechanism in mechanisms], language),
        columns_shown({key: language.word(key) for key in _PHONE if key in columns}, "macs", language),
        element("table", element("thead", element("tr", head)) + bodies),
        element("p", escape(language.word("symbols")), class_="atlas-note"),
    )
    words = {
        "data_shown": language.word("shown", shown="{shown}", all="{all}"),
        "data_indivisible": language.word("indivisible"),
    }
    return element("div", "".join(parts), class_="atlas-comparison", data_tree="", **words)


def _head(key: str, language: Language) -> str:
    sorted_ = {"class_": "atlas-sorts"} if key in _SORTED else {}
    return element("th", escape(language.word(key)), scope="col", data_key=key, **sorted_)


def _choices(key: str, language: Language) -> dict[str, str]:
    """Return the name of each value of a column, in the order of the catalogue."""
    shown = (getattr(mechanism, key) for mechanism in CATALOGUE.values())
    return {value: language.word(value) for value in shown if value}


def _parts() -> Iterator[tuple[bool, Iterable[Mechanism]]]:
    """Yield what stands in the taxonomy, then the foundations."""
    for placed in (True, False):
        yield placed, (row for row in CATALOGUE.values() if bool(row.weights and row.domain) == placed)


def _body(placed: bool, rows: Sequence[Mechanism], columns: Sequence[str], language: Language) -> str:
    """Return rows below the names of their domains; below one name for foundations."""
    groups = groupby(rows, key=lambda row: row.domain if placed else None)
    lines = [
        _group(to_overview(domain, language) if domain else escape(language.word("foundations")), columns)
        + "".join(_row(mechanism, columns, language) for mechanism in members)
        for domain, members in groups
    ]
    return element("tbody", "".join(lines))


def _group(name: str, columns: Sequence[str]) -> str:
    """Return the line above a group, which a phone shows as well, where it has two columns."""
    return element(
        "tr", element("th", name, scope="rowgroup", colspan=str(len(columns))), class_="atlas-group"
    )


def _row(mechanism: Mechanism, columns: Sequence[str], language: Language) -> str:
    found = results(mechanism)
    largest = found.rows[-1]
    shown = {name: size for name, size in largest.sizes.items() if name in varied(found)}
    name = to_mechanism(mechanism, language) + reconstructed(mechanism, language)
    place = list(CATALOGUE).index(mechanism.slug)
    cells = {
        "mechanism": element("th", name, scope="row"),
        "weights": _axis("weights", mechanism.weights, language),
        "domain": _place(mechanism, place, language),
        "year": _cell("year", str(references.year(mechanism.citation))),
        "parameters": _count("parameters", largest.parameters),
        "macs": _count("macs", largest.macs),
        "at sizes": _cell("at sizes", escape(sizes(shown))),
        "evidence": _cell("evidence", badges(mechanism, language)),
        "used by": _used(mechanism.slug),
        "state": _cell("state", state(found, language) or "–", data_value=_growth(found)),
        "complexity": _cell("complexity", formula(mechanism.complexity)),
        "parameter formula": _cell("parameter formula", parameters(found, language)),
    }
    names = " ".join([mechanism.slug, mechanism.title, *mechanism.aliases])
    return element(
        "tr",
        "".join(cells[key] for key in columns),
        id=mechanism.slug,
        data_names=names,
        data_slug=mechanism.slug,
        data_chapter=mechanism.chapter,
        data_sizes=json.dumps(dict(largest.sizes)),
        data_fields=json.dumps(fields(largest.sizes)),
        data_shown=" ".join(shown),
    )


def _cell(key: str, content: str, **attributes: str) -> str:
    return element("td", content, data_key=key, **attributes)


def _axis(key: str, value: Weights | None, language: Language) -> str:
    if value is None:
        return _cell(key, "–", data_value="")
    return _cell(key, element("span", escape(language.word(value)), data_axis=axis(value)), data_value=value)


def _place(mechanism: Mechanism, place: int, language: Language) -> str:
    """Return domain and chapter; they sort in reading order."""
    chapter = element("span", escape(language.word(mechanism.chapter)), class_="atlas-summary")
    domain = mechanism.domain
    name = element("span", escape(language.word(domain)), data_axis=axis(domain)) if domain else ""
    return _cell("domain", f"{name} {chapter}", data_value=domain or "", data_sort=str(place))


def _used(slug: str) -> str:
    """Return the number of families; what was not looked for comes after what was not found."""
    used = used_by(slug)
    count = len(used.families) if used else 0
    choice = "used" if count else "not counted"
    content = str(count) if used else "–"
    return _cell("used by", content, class_="number", data_sort=str(count if used else -1), data_value=choice)


def _growth(found: Results) -> str:
    """Return which choice of the list `state` finds the row."""
    return ("fixed size" if found.state_tex[0] == "0" else "grows") if found.state_tex else ""


def _count(key: str, count: int) -> str:
    return _cell(key, counted(count), class_="number", data_sort=str(count))
