"""All mechanisms in one table; comparison.js sorts and filters it, sizes.js computes with other sizes."""

import json
from html import escape

from sitekit import citations
from sitekit.labels import axis_value, word
from sitekit.parts.card import parameters
from sitekit.parts.html import element, formula
from sitekit.parts.numbers import counted
from sitekit.parts.refer import to_mechanism
from sitekit.parts.sizes import sizes, varied
from sitekit.run import results
from snippets.catalogue import CATALOGUE, Mechanism

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


def comparison(language: str) -> str:
    """Return the table and, as data attributes, the words its script needs."""
    head = "".join(element("th", escape(word(key, language)), scope="col", data_key=key) for key in _COLUMNS)
    rows = "".join(_row(mechanism, language) for mechanism in CATALOGUE.values())
    table = element("table", element("thead", element("tr", head)) + element("tbody", rows))
    words = {
        f"data_{key}": word(key, language, shown="{shown}", all="{all}")
        for key in ("filter", "all", "shown", "choose", "reset", "indivisible")
    }
    note = element("p", escape(word("symbols", language)), class_="atlas-note")
    return element("div", table + note, class_="atlas-comparison", data_tree="", **words)


def _row(mechanism: Mechanism, language: str) -> str:
    found = results(mechanism)
    largest = found.rows[-1]
    shown = {name: size for name, size in largest.sizes.items() if name in varied(found)}
    weights, domain = (
        axis_value(value, language) if value else "–" for value in (mechanism.weights, mechanism.domain)
    )
    cells = (
        element("th", to_mechanism(mechanism, language), scope="row"),
        element("td", escape(weights)),
        element("td", escape(domain)),
        element("td", str(citations.year(mechanism.citation))),
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
        data_shown=" ".join(shown),
    )


def _count(count: int) -> str:
    return element("td", counted(count), class_="number", data_sort=str(count))
