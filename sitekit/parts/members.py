"""The mechanisms of one value of an axis, or the foundations, side by side."""

from html import escape

from sitekit import pages, references
from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.badges import reconstructed
from sitekit.pieces.elements import code, element, formula, table
from sitekit.pieces.named import chosen
from sitekit.pieces.prose import inline, without_links
from sitekit.pieces.refer import axis, to_mechanism, to_overview
from sitekit.store import results
from snippets.catalogue import CATALOGUE, Mechanism


@part("members")
def members(body: str, language: Language) -> str:
    """The body is a value of an axis, `soft`, `channel_spatial`, ..., or `foundations`; return their table.

    Raises:
        BuildError: there is no such value of an axis, or nothing has it.
    """
    axes = (value for row in CATALOGUE.values() for value in (row.weights, row.domain))
    values = {value.name.lower(): value for value in axes if value}
    value = values.get(chosen("value of an axis", body.strip(), [*values, "foundations"]))
    found = [mechanism for mechanism in CATALOGUE.values() if value in (mechanism.weights, mechanism.domain)]
    keys = ["mechanism", "weights", "domain", "chapter", "year", "attention", "complexity"]
    hidden = {type(value).__name__.lower()} if value else {"weights", "domain"}
    if len({mechanism.chapter for mechanism in found}) == 1:
        hidden.add("chapter")
    keys = [key for key in keys if key not in hidden]
    columns = [language.word(key) for key in keys]
    rows = ([_cell(key, mechanism, language) for key in keys] for mechanism in found)
    note = element("p", escape(language.word("symbols")), class_="atlas-note")
    own = {"data_axis": axis(value)} if value else {}
    return element("div", table(columns, rows) + note, class_="atlas-members", data_tree="", **own)


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
        case "chapter":
            return escape(language.word(mechanism.chapter))
        case "year":
            return escape(str(references.year(mechanism.citation)))
        case "attention":
            return ", ".join(code(shape) for shape in results(mechanism).attention)
        case _:
            return formula(mechanism.complexity)
