"""The mechanisms of one value of an axis, or the foundations, side by side."""

from html import escape

from sitekit import pages, references
from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.badges import reconstructed
from sitekit.pieces.elements import code, element, formula, table
from sitekit.pieces.named import chosen
from sitekit.pieces.prose import inline, without_links
from sitekit.pieces.refer import to_mechanism, to_overview
from sitekit.store import results
from snippets.catalogue import CATALOGUE, Domain, Mechanism, Weights

_VALUES: dict[str, Weights | Domain] = {value.name.lower(): value for value in (*Weights, *Domain)}


@part("members")
def members(body: str, language: Language) -> str:
    """The body is a value of an axis, `soft`, `channel_spatial`, ..., or `foundations`; return their table.

    Raises:
        BuildError: there is no such value of an axis, or nothing has it.
    """
    name = chosen("value of an axis", body.strip(), [*_VALUES, "foundations"])
    value = _VALUES.get(name)
    found = [mechanism for mechanism in CATALOGUE.values() if value in (mechanism.weights, mechanism.domain)]
    other = "domain" if isinstance(value, Weights) else "weights"
    keys = ["mechanism", other, "year", "attention", "complexity"]
    if value is None:
        keys.remove(other)
    columns = [language.word(key) for key in keys]
    rows = ([_cell(key, mechanism, language) for key in keys] for mechanism in found)
    note = element("p", escape(language.word("symbols")), class_="atlas-note")
    return element("div", table(columns, rows) + note, class_="atlas-members", data_tree="")


def _cell(key: str, mechanism: Mechanism, language: Language) -> str:
    match key:
        case "mechanism":
            summary = without_links(pages.summary(pages.page(mechanism), language))
            sentence = element("span", inline(summary, language), class_="atlas-summary")
            return f"{to_mechanism(mechanism, language)}{reconstructed(mechanism, language)} {sentence}"
        case "domain":
            return to_overview(mechanism.domain, language) if mechanism.domain else ""
        case "weights":
            return to_overview(mechanism.weights, language) if mechanism.weights else ""
        case "year":
            return escape(str(references.year(mechanism.citation)))
        case "attention":
            return ", ".join(code(shape) for shape in results(mechanism).attention)
        case _:
            return formula(mechanism.complexity)
