"""The mechanisms of one value of an axis, or the foundations, side by side."""

from html import escape

from sitekit import citations, pages
from sitekit.language import Language
from sitekit.parts.evidence import reconstructed
from sitekit.parts.html import code, element, formula, table
from sitekit.parts.inline import inline, without_links
from sitekit.parts.refer import to_mechanism, to_overview
from sitekit.parts.source import chosen
from sitekit.store import results
from snippets.catalogue import CATALOGUE, Domain, Mechanism, Weights

_VALUES: dict[str, Weights | Domain] = {value.name.lower(): value for value in (*Weights, *Domain)}


def members(source: str, language: Language) -> str:
    """Return the table of `soft`, `channel_spatial`, ... or `foundations`.

    Raises:
        BuildError: there is no such value of an axis, or nothing has it.
    """
    name = chosen("value of an axis", source.strip(), [*_VALUES, "foundations"])
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
            return escape(str(citations.year(mechanism.citation)))
        case "attention":
            return ", ".join(code(shape) for shape in results(mechanism).attention)
        case _:
            return formula(mechanism.complexity)
