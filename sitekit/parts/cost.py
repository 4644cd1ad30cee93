"""The cost table: formulas, and what was counted at several sizes."""

from collections.abc import Mapping
from html import escape

from sitekit.labels import word
from sitekit.parts.card import parameters
from sitekit.parts.html import code, element, formula, table
from sitekit.parts.numbers import counted
from sitekit.results import Results


def cost(results: Results, language: str) -> str:
    """Return formulas and counts as a table, and a note that says what is counted."""
    columns = [word(key, language) for key in ("sizes", "parameters", "macs", "attention weights")]
    varied = {
        name
        for name, size in results.rows[0].sizes.items()
        if any(r.sizes[name] != size for r in results.rows)
    }
    symbols = [
        word("formula", language),
        parameters(results, language),
        formula(results.macs_tex),
        ", ".join(code(shape) for shape in results.attention),
    ]
    rows = [symbols]
    for number, at in enumerate(results.rows):
        label = sizes({name: size for name, size in at.sizes.items() if name in varied or not varied})
        if number == 0:
            label += f" ({word('example', language)})"
        rows.append([escape(label), counted(at.parameters), counted(at.macs), counted(at.weights)])
    fixed = {name: size for name, size in results.rows[0].sizes.items() if name not in varied}
    notes = [word("counted", language)]
    if fixed and varied:
        notes.insert(0, word("fixed", language, sizes=sizes(fixed)))
    space = "" if language == "zh" else " "
    note = element("p", escape(space.join(notes)), class_="atlas-note")
    return element("div", table(columns, rows, class_="number") + note, class_="atlas-cost", data_tree="")


def sizes(choice: Mapping[str, int]) -> str:
    """Return sizes as text.

    >>> sizes({"C": 64, "H": 14})
    'C = 64, H = 14'
    """
    return ", ".join(f"{name} = {size}" for name, size in choice.items())
