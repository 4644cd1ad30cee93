"""The cost of a mechanism: formulas, and what was counted at several sizes."""

from html import escape

from sitekit.language import Language
from sitekit.parts.html import block_formula, element, table
from sitekit.parts.numbers import counted
from sitekit.parts.sizes import sizes, varied
from sitekit.results import Results


def cost(results: Results, language: Language, onnx: str) -> str:
    """Return formulas, a table of counts, a note that says what is counted, and one on ONNX."""
    formulas = "".join(
        block_formula(rf"\text{{{language.word(key)}}} = {tex}")
        for key, tex in (("parameters", results.parameters_tex), ("macs", results.macs_tex))
    )
    columns = [language.word(key) for key in ("sizes", "parameters", "macs", "attention weights")]
    counts = table(columns, _rows(results, language), class_="number")
    content = formulas + counts + _note(results, language) + onnx
    return element("div", content, class_="atlas-cost", data_tree="")


def _rows(results: Results, language: Language) -> list[list[str]]:
    shown = varied(results) or set(results.rows[0].sizes)
    rows = []
    for at in results.rows:
        label = sizes({name: size for name, size in at.sizes.items() if name in shown})
        if at is results.rows[0]:
            label += language.aside(language.word("example"))
        rows.append([escape(label), counted(at.parameters), counted(at.macs), counted(at.weights)])
    return rows


def _note(results: Results, language: Language) -> str:
    changing = varied(results)
    fixed = {name: size for name, size in results.rows[0].sizes.items() if name not in changing}
    sentences = [language.word("counted")]
    if fixed and changing:
        sentences.insert(0, language.word("fixed", sizes=sizes(fixed)))
    text = language.joiner.join(sentences)
    return element("p", escape(text), class_="atlas-note")
