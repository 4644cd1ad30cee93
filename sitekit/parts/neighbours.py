"""Links to the neighbours of a mechanism in the taxonomy."""

from collections.abc import Iterator
from html import escape

from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.badges import reconstructed
from sitekit.pieces.elements import element
from sitekit.pieces.named import mechanism_named
from sitekit.pieces.refer import to_mechanism, to_overview
from snippets.catalogue import CATALOGUE, Mechanism


@part("neighbours")
def neighbours(body: str, language: Language) -> str:
    """Return the related mechanisms, others at the same place of the taxonomy, and links to its overviews."""
    mechanism = mechanism_named(body)
    groups = "".join(
        element("p", escape(name)) + element("ul", "".join(_item(row, language) for row in rows))
        for name, rows in _groups(mechanism, language)
        if rows
    )
    overviews = [to_overview(value, language) for value in (mechanism.weights, mechanism.domain) if value]
    if overviews:
        groups += element("p", escape(language.word("overviews")) + language.separator.join(overviews))
    label = language.word("neighbours")
    return element("nav", groups, class_="atlas-neighbours", aria_label=label, data_tree="")


def _item(mechanism: Mechanism, language: Language) -> str:
    axes = element("small", escape(_axes(mechanism, language)))
    return element("li", f"{to_mechanism(mechanism, language)}{reconstructed(mechanism, language)} {axes}")


def _axes(mechanism: Mechanism, language: Language) -> str:
    values = [language.word(value) for value in (mechanism.weights, mechanism.domain) if value]
    return "\u00a0× ".join(values) or language.word("foundations")


def _groups(mechanism: Mechanism, language: Language) -> Iterator[tuple[str, list[Mechanism]]]:
    related = [mechanism_named(slug) for slug in mechanism.related]
    yield language.word("related"), related
    alike = [
        row
        for row in CATALOGUE.values()
        if (row.weights, row.domain) == (mechanism.weights, mechanism.domain)
        and row not in (mechanism, *related)
    ]
    yield language.word("alike", axes=_axes(mechanism, language)), alike
