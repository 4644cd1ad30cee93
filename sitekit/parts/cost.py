"""The cost of a mechanism: formulas, and what was counted at several sizes."""

from html import escape

from sitekit.language import Language
from sitekit.parts import part
from sitekit.parts.onnx import note
from sitekit.pieces.elements import block_formula, element, table
from sitekit.pieces.named import mechanism_named
from sitekit.pieces.numbers import counted
from sitekit.pieces.sizes import sizes, varied
from sitekit.results import Results
from sitekit.store import results


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
    counts = table(columns, _rows(found, language), class_="number")
    content = formulas + counts + _counted(found, language) + note(mechanism, language)
    return element("div", content, class_="atlas-cost", data_tree="")


def _rows(found: Results, language: Language) -> list[list[str]]:
    shown = varied(found) or set(found.rows[0].sizes)
    rows = []
    for at in found.rows:
        label = sizes({name: size for name, size in at.sizes.items() if name in shown})
        if at is found.rows[0]:
            label += language.aside(language.word("example"))
        rows.append([escape(label), counted(at.parameters), counted(at.macs), counted(at.weights)])
    return rows


def _counted(found: Results, language: Language) -> str:
    changing = varied(found)
    fixed = {name: size for name, size in found.rows[0].sizes.items() if name not in changing}
    sentences = [language.word("counted")]
    if fixed and changing:
        sentences.insert(0, language.word("fixed", sizes=sizes(fixed)))
    text = language.joiner.join(sentences)
    return element("p", escape(text), class_="atlas-note")
