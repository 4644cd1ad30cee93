"""All mechanisms in one table; comparison.js sorts and filters it, sizes.js computes with other sizes."""

import json
from collections.abc import Sequence
from html import escape

from sitekit import references
from sitekit.language import Language
from sitekit.parts import part
from sitekit.parts.card import parameters, state
from sitekit.pieces.badges import legend, marks
from sitekit.pieces.controls import chooser, fields, filters
from sitekit.pieces.elements import element, formula
from sitekit.pieces.numbers import counted
from sitekit.pieces.refer import to_mechanism
from sitekit.pieces.sizes import sizes, varied
from sitekit.results import Results
from sitekit.store import results
from snippets.catalogue import CATALOGUE, Chapter, Domain, Evidence, Mechanism, Weights

_SORTED = ("mechanism", "weights", "domain", "chapter", "year", "parameters", "macs")
_COLUMNS = (*_SORTED, "complexity", "state", "parameter formula", "at sizes")


@part("comparison")
def comparison(body: str, language: Language) -> str:
    """No body. Return forms and table and, as data attributes, the words their scripts need."""
    mechanisms = CATALOGUE.values()
    columns = [key for key in _COLUMNS if key != "state" or any(row.state for row in mechanisms)]
    lists = {key: _choices(key, language) for key in ("weights", "domain", "chapter")}
    if "state" in columns:
        lists["state"] = {key: language.word(key) for key in ("grows", "fixed size")}
    lists["evidence"] = {value.value: language.word(f"evidence {value}") for value in Evidence}
    head = "".join(_head(key, language) for key in columns)
    rows = "".join(_row(mechanism, columns, language) for mechanism in mechanisms)
    parts = (
        filters(lists, len(CATALOGUE), language),
        chooser([results(mechanism).rows[-1].sizes for mechanism in mechanisms], language),
        element("table", element("thead", element("tr", head)) + element("tbody", rows)),
        legend(language),
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
    """Return the values of a column as it shows them, in the order of the catalogue."""
    shown = (_axis(getattr(mechanism, key), language) for mechanism in CATALOGUE.values())
    return {value: value for value in shown}


def _row(mechanism: Mechanism, columns: Sequence[str], language: Language) -> str:
    found = results(mechanism)
    largest = found.rows[-1]
    shown = {name: size for name, size in largest.sizes.items() if name in varied(found)}
    name = f"{to_mechanism(mechanism, language)} {marks(mechanism, language)}"
    cells = {
        "mechanism": element("th", name, scope="row"),
        "weights": element("td", escape(_axis(mechanism.weights, language))),
        "domain": element("td", escape(_axis(mechanism.domain, language))),
        "chapter": element("td", escape(_axis(mechanism.chapter, language))),
        "year": element("td", str(references.year(mechanism.citation))),
        "parameters": _count(largest.parameters),
        "macs": _count(largest.macs),
        "complexity": element("td", formula(mechanism.complexity)),
        "state": element("td", state(found, language) or "–", data_sort=_growth(found)),
        "parameter formula": element("td", parameters(found, language)),
        "at sizes": element("td", escape(sizes(shown))),
    }
    names = " ".join([mechanism.slug, mechanism.title, *mechanism.aliases])
    return element(
        "tr",
        "".join(cells[key] for key in columns),
        id=mechanism.slug,
        data_names=names,
        data_slug=mechanism.slug,
        data_sizes=json.dumps(dict(largest.sizes)),
        data_fields=json.dumps(fields(largest.sizes)),
        data_shown=" ".join(shown),
    )


def _axis(value: Weights | Domain | Chapter | None, language: Language) -> str:
    return language.word(value) if value else "–"


def _growth(found: Results) -> str:
    """Return which choice of the list `state` finds the row."""
    return ("fixed size" if found.state_tex[0] == "0" else "grows") if found.state_tex else ""


def _count(count: int) -> str:
    return element("td", counted(count), class_="number", data_sort=str(count))
