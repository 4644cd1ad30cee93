"""What modules can have been held against, and how many were."""

from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.badges import badge
from sitekit.pieces.elements import element, table
from sitekit.pieces.refer import to_mechanism
from snippets.catalogue import CATALOGUE, Evidence


@part("evidence")
def evidence(body: str, language: Language) -> str:
    """No body. Return a table: what each value says, how many modules have it, and which where few do."""
    columns = [language.word(key) for key in ("evidence", "meaning", "modules")]
    rows = []
    for value in Evidence:
        found = [row for row in CATALOGUE.values() if value in row.evidence]
        count = str(len(found))
        if value in (Evidence.SECONDARY, Evidence.RECONSTRUCTION) and found:
            names = language.separator.join(to_mechanism(row, language) for row in found)
            count = language.word("number of", count=count, names=names)
        rows.append([badge(value, language), language.word(f"meaning {value}"), count])
    return element("div", table(columns, rows), class_="atlas-evidence", data_tree="")
