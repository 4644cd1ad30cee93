"""The cost of a mechanism: formulas, and what was counted at several sizes."""

from collections.abc import Mapping
from html import escape
from urllib.parse import urlencode

from sitekit.language import Language
from sitekit.parts import part
from sitekit.parts.onnx import note
from sitekit.pieces.controls import FREE, fields
from sitekit.pieces.elements import block_formula, element, link, table
from sitekit.pieces.named import mechanism_named
from sitekit.pieces.numbers import counted
from sitekit.pieces.sizes import sizes, varied
from sitekit.results import Results
from sitekit.store import results
from snippets.catalogue import Mechanism


@part("cost")
def cost(body: str, language: Language) -> str:
    """Return formulas, a table of counts, a note that says what is counted, and one on ONNX."""
    mechanism = mechanism_named(body)
    found = results(mechanism)
    formulas = "".join(
        block_formula(rf"\text{{{language.word(key)}}} = {tex}")
        for key, tex in (("parameters", found.parameters_tex), ("macs", found.macs_tex))
    )
    columns = [language.word(key) for key in ("sizes", "parameters", "macs", "attention weights")]
    counts = table(columns, _rows(mechanism, found, language), class_="number")
    content = formulas + counts + _counted(found, language) + note(mechanism, language)
    return element("div", content, class_="atlas-cost", data_tree="")


def _rows(mechanism: Mechanism, found: Results, language: Language) -> list[list[str]]:
    shown = varied(found) or set(found.rows[0].sizes)
    rows = []
    for at in found.rows:
        label = escape(sizes({name: size for name, size in at.sizes.items() if name in shown}))
        label = link(_comparison(mechanism, at.sizes), label)
        if at is found.rows[0]:
            label += escape(language.aside(language.word("example")))
        rows.append([label, counted(at.parameters), counted(at.macs), counted(at.weights)])
    return rows


def _comparison(mechanism: Mechanism, at: Mapping[str, int]) -> str:
    """Return the row of the mechanism among all others, computed with these sizes."""
    query = urlencode({field: at[symbol] for symbol, field in fields(at).items() if field != FREE})
    return f"/comparison.md?{query}#{mechanism.slug}"


def _counted(found: Results, language: Language) -> str:
    changing = varied(found)
    fixed = {name: size for name, size in found.rows[0].sizes.items() if name not in changing}
    sentences = [language.word("counted"), language.word("compared")]
    if fixed and changing:
        sentences.insert(0, language.word("fixed", sizes=sizes(fixed)))
    text = language.joiner.join(sentences)
    return element("p", escape(text), class_="atlas-note")
