"""All mechanisms in one table; comparison.js sorts and filters it, sizes.js computes with other sizes."""

import json
from html import escape

from sitekit import references
from sitekit.language import Language
from sitekit.parts import part
from sitekit.parts.card import parameters
from sitekit.pieces.badges import legend, marks
from sitekit.pieces.controls import chooser, fields, filters
from sitekit.pieces.elements import element, formula
from sitekit.pieces.numbers import counted
from sitekit.pieces.refer import to_mechanism
from sitekit.pieces.sizes import sizes, varied
from sitekit.store import results
from snippets.catalogue import CATALOGUE, Domain, Evidence, Mechanism, Weights

_COLUMNS = (
    "mechanism",
    "weights",
    "domain",
    "year",
    "parameters",
    "macs",
    "complexity",
    "parameter formula",
    "at sizes",
)
_SORTED = _COLUMNS[:6]


@part("comparison")
def comparison(body: str, language: Language) -> str:
    """No body. Return forms and table and, as data attributes, the words their scripts need."""
    mechanisms = CATALOGUE.values()
    axes = {
        "weights": [_axis(mechanism.weights, language) for mechanism in mechanisms],
        "domain": [_axis(mechanism.domain, language) for mechanism in mechanisms],
    }
    evidence = {value.value: language.word(f"evidence {value}") for value in Evidence}
    head = "".join(_head(key, language) for key in _COLUMNS)
    rows = "".join(_row(mechanism, language) for mechanism in mechanisms)
    parts = (
        filters(axes, evidence, len(CATALOGUE), language),
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


def _row(mechanism: Mechanism, language: Language) -> str:
    found = results(mechanism)
    largest = found.rows[-1]
    shown = {name: size for name, size in largest.sizes.items() if name in varied(found)}
    cells = (
        element("th", f"{to_mechanism(mechanism, language)} {marks(mechanism, language)}", scope="row"),
        element("td", escape(_axis(mechanism.weights, language))),
        element("td", escape(_axis(mechanism.domain, language))),
        element("td", str(references.year(mechanism.citation))),
        _count(largest.parameters),
        _count(largest.macs),
        element("td", formula(mechanism.complexity)),
        element("td", parameters(found, language)),
        element("td", escape(sizes(shown))),
    )
    names = " ".join([mechanism.slug, mechanism.title, *mechanism.aliases])
    return element(
        "tr",
        "".join(cells),
        data_names=names,
        data_slug=mechanism.slug,
        data_sizes=json.dumps(dict(largest.sizes)),
        data_fields=json.dumps(fields(largest.sizes)),
        data_shown=" ".join(shown),
    )


def _axis(value: Weights | Domain | None, language: Language) -> str:
    return language.word(value) if value else "–"


def _count(count: int) -> str:
    return element("td", counted(count), class_="number", data_sort=str(count))
