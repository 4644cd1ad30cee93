"""What all blocks for feature maps cost and need, counted at the same sizes."""

from html import escape

from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.badges import reconstructed
from sitekit.pieces.elements import code, element, table
from sitekit.pieces.refer import to_mechanism
from sitekit.results import DropIn
from sitekit.store import drop_in
from snippets.catalogue import CATALOGUE

COLUMNS = ("block", "parameters", "14 × 14", "32 × 32", "weights", "sees layout", "one sample", "other sizes")


@part("blocks")
def blocks(body: str, language: Language) -> str:
    """No body. Return the table, and how the blocks were built."""
    found = {slug: measured for slug, row in CATALOGUE.items() if (measured := drop_in(row))}
    rows = [
        [to_mechanism(CATALOGUE[slug], language) + reconstructed(CATALOGUE[slug], language)]
        + [escape(cell) for cell in _cells(measured, language)]
        for slug, measured in found.items()
    ]
    columns = [language.word(key) if "×" not in key else key for key in COLUMNS]
    special = [code(one.code) for slug, one in found.items() if CATALOGUE[slug].drop_in]
    note = language.word("built", codes=language.separator.join(special)) if special else ""
    return element("div", table(columns, rows) + element("p", note), class_="atlas-blocks", data_tree="")


def figure(number: float) -> str:
    """Write three digits, but whole numbers from 1,000.

    >>> [figure(number) for number in (0.0081923, 35.27, 1723.7)]
    ['0.00819', '35.3', '1,724']
    """
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def _cells(measured: DropIn, language: Language) -> list[str]:
    counts = ["–"] * 4
    if measured.parameters is not None:
        macs = (figure(count / 1e6) for count in measured.macs)
        counts = [f"{measured.parameters:,}", *macs, f"{measured.weights:,}"]
    facts = (measured.layout, measured.one_sample, measured.other_sizes)
    return counts + [language.word("yes" if fact else "no") for fact in facts]
