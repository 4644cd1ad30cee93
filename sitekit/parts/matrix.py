"""The taxonomy at a glance: both axes, each mechanism in its cell with the marks of its evidence."""

from collections.abc import Iterable
from html import escape
from itertools import chain, groupby

from sitekit.language import Language
from sitekit.pages import FOUNDATIONS, exists
from sitekit.parts import part
from sitekit.pieces.badges import legend, marks
from sitekit.pieces.elements import element, link
from sitekit.pieces.refer import axis, to_mechanism, to_overview
from snippets.catalogue import CATALOGUE, Domain, Mechanism, Weights


@part("matrix")
def matrix(body: str, language: Language) -> str:
    """No body. Return the matrix: a row per domain that has mechanisms, a column per kind of weights."""
    domains = dict.fromkeys(row.domain for row in CATALOGUE.values() if row.domain)
    corner = element("td", "")
    head = corner + "".join(_head(value, "col", language) for value in Weights)
    rows = (
        element(
            "tr",
            _head(domain, "row", language) + "".join(_cell(weights, domain, language) for weights in Weights),
        )
        for domain in domains
    )
    grid = element("table", element("thead", element("tr", head)) + element("tbody", "".join(rows)))
    parts = grid + _foundations(language) + legend(language)
    return element("div", parts, class_="atlas-matrix", data_tree="")


def _head(value: Weights | Domain, scope: str, language: Language) -> str:
    return element("th", to_overview(value, language), scope=scope, data_axis=axis(value))


def _cell(weights: Weights, domain: Domain, language: Language) -> str:
    found = [row for row in CATALOGUE.values() if (row.weights, row.domain) == (weights, domain)]
    if not found:
        return element("td", "–", class_="atlas-empty", aria_label=language.word("none here"))
    return element("td", element("div", _lists(found, language)))


def _foundations(language: Language) -> str:
    found = [row for row in CATALOGUE.values() if row.weights is None and row.domain is None]
    if not found:
        return ""
    name = escape(language.word("foundations"))
    title = link(f"/{FOUNDATIONS}", name) if exists(FOUNDATIONS, language) else name
    content = element("p", element("strong", title)) + _lists(found, language)
    return element("div", content, class_="atlas-foundations")


def _lists(found: Iterable[Mechanism], language: Language) -> str:
    """Return a list for each chapter, below its name if there are several."""
    chapters = [(chapter, list(rows)) for chapter, rows in groupby(found, key=lambda row: row.chapter)]
    names = [element("p", escape(language.word(chapter)), class_="atlas-chapter") for chapter, _ in chapters]
    lists = [_list(rows, language) for _, rows in chapters]
    return "".join(chain(*zip(names, lists, strict=True))) if len(chapters) > 1 else "".join(lists)


def _list(found: Iterable[Mechanism], language: Language) -> str:
    items = (f"{to_mechanism(row, language)} {marks(row, language)}" for row in found)
    return element("ul", "".join(element("li", item) for item in items))
