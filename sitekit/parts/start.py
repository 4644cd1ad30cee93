"""What new blocks for feature maps do to a map, before anything is learned."""

from html import escape

from sitekit import pages
from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.badges import reconstructed
from sitekit.pieces.elements import code, element, table
from sitekit.pieces.named import chosen
from sitekit.pieces.prose import inline, without_links
from sitekit.pieces.refer import to_mechanism
from sitekit.results import GATE, IDENTITY, OTHER, DropIn
from sitekit.store import drop_in
from snippets.catalogue import CATALOGUE, Mechanism

COLUMNS = {
    IDENTITY: ("block", "zero"),
    GATE: ("block", "factor", "opened by"),
    OTHER: ("block", "moves by", "what it does"),
}


@part("start")
def start(body: str, language: Language) -> str:
    """The body is `identity`, `gate` or `other`; return the table of the blocks that start so.

    Raises:
        BuildError: there is no such start.
    """
    kind = chosen("start", body.strip(), COLUMNS)
    found = [(row, measured) for row in CATALOGUE.values() if (measured := drop_in(row))]
    rows = [
        [to_mechanism(row, language) + reconstructed(row, language), *_cells(row, measured, language)]
        for row, measured in found
        if measured.start == kind
    ]
    columns = [language.word(key) for key in COLUMNS[kind]]
    return element("div", table(columns, rows), class_="atlas-start", data_tree="")


def _cells(row: Mechanism, measured: DropIn, language: Language) -> list[str]:
    names = language.separator.join(code(name) for name in measured.names)
    moves = "–" if measured.moves is None else f"{measured.moves:.2f}"
    if measured.start == IDENTITY:
        return [names]
    if measured.start == GATE:
        value = f"{measured.bias:.0f}".replace("-", "−")
        closed = language.word("set to", names=names, value=value)
        return [moves, (closed if measured.bias < 0 else names) or escape(language.word("none"))]
    return [moves, inline(without_links(pages.summary(pages.page(row), language)), language)]
