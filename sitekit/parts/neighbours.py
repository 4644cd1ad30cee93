"""Links to the neighbours of a mechanism in the taxonomy."""

from collections.abc import Iterator
from html import escape

from sitekit.labels import axis_value, word
from sitekit.parts.evidence import reconstructed
from sitekit.parts.html import element
from sitekit.parts.refer import to_mechanism, to_overview
from sitekit.parts.source import mechanism as named
from snippets.catalogue import CATALOGUE, Mechanism


def neighbours(mechanism: Mechanism, language: str) -> str:
    """Return the related mechanisms, others at the same place of the taxonomy, and links to its overviews."""
    groups = "".join(
        element("p", escape(name)) + element("ul", "".join(_item(row, language) for row in rows))
        for name, rows in _groups(mechanism, language)
        if rows
    )
    overviews = [to_overview(value, language) for value in (mechanism.weights, mechanism.domain) if value]
    if overviews:
        groups += element("p", escape(word("overviews", language)) + " " + ", ".join(overviews))
    label = word("neighbours", language)
    return element("nav", groups, class_="atlas-neighbours", aria_label=label, data_tree="")


def _item(mechanism: Mechanism, language: str) -> str:
    axes = element("small", escape(_axes(mechanism, language)))
    return element("li", f"{to_mechanism(mechanism, language)}{reconstructed(mechanism, language)} {axes}")


def _axes(mechanism: Mechanism, language: str) -> str:
    values = [axis_value(value, language) for value in (mechanism.weights, mechanism.domain) if value]
    return "\u00a0× ".join(values) or word("foundations", language)


def _groups(mechanism: Mechanism, language: str) -> Iterator[tuple[str, list[Mechanism]]]:
    related = [named(slug) for slug in mechanism.related]
    yield word("related", language), related
    alike = [
        row
        for row in CATALOGUE.values()
        if (row.weights, row.domain) == (mechanism.weights, mechanism.domain)
        and row not in (mechanism, *related)
    ]
    yield word("alike", language, axes=_axes(mechanism, language)), alike
