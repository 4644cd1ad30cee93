"""Links to the neighbours of a mechanism in the taxonomy."""

from collections.abc import Iterator
from html import escape

from sitekit.labels import axis_value, word
from sitekit.parts.html import element
from sitekit.parts.refer import to_mechanism
from sitekit.parts.source import mechanism as named
from snippets.catalogue import CATALOGUE, Mechanism


def neighbours(mechanism: Mechanism, language: str) -> str:
    """Return the related mechanisms, then those of the same weights and domain, or the foundations."""
    groups = "".join(
        element("p", escape(name)) + element("ul", "".join(_item(row, language) for row in rows))
        for name, rows in _groups(mechanism, language)
        if rows
    )
    label = word("neighbours", language)
    return element("nav", groups, class_="atlas-neighbours", aria_label=label, data_tree="")


def _item(mechanism: Mechanism, language: str) -> str:
    values = [axis_value(value, language) for value in (mechanism.weights, mechanism.domain) if value]
    axes = escape(" × ".join(values) or word("foundations", language))
    return element("li", f"{to_mechanism(mechanism, language)} {element('small', axes)}")


def _groups(mechanism: Mechanism, language: str) -> Iterator[tuple[str, list[Mechanism]]]:
    others = [row for row in CATALOGUE.values() if row is not mechanism]
    yield word("related", language), [named(slug) for slug in mechanism.related]
    if mechanism.weights is not None:
        name = word("same weights", language, value=axis_value(mechanism.weights, language))
        yield name, [row for row in others if row.weights is mechanism.weights]
    if mechanism.domain is not None:
        name = word("same domain", language, value=axis_value(mechanism.domain, language))
        yield name, [row for row in others if row.domain is mechanism.domain]
    if mechanism.weights is None and mechanism.domain is None:
        yield (
            word("foundations", language),
            [row for row in others if row.weights is None and row.domain is None],
        )
