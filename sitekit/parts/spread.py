"""How many model families use each mechanism, by the year in which their code was written."""

from collections import Counter
from html import escape

from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.elements import element, table
from sitekit.pieces.refer import to_mechanism
from sitekit.pieces.used import census, package
from snippets.catalogue import CATALOGUE

SINCE = 2022


@part("spread")
def spread(body: str, language: Language) -> str:
    """No body. Return the table, the year of the last count at its end."""
    found = census()
    rows = found["families"].values()
    years = range(SINCE, max(row["year"] or 0 for row in rows) + 1)
    columns = [language.word("mechanism"), language.word("until", year=SINCE - 1), *map(str, years)]
    columns += [language.word("sum")]
    lines = []
    for slug, names in found["mechanisms"].items():
        count = Counter(max(row["year"] or 0, SINCE - 1) for row in rows if slug in row["uses"])
        name = escape(names[language.column])
        name = (
            f"{name}{language.colon}{to_mechanism(CATALOGUE[slug], language)}" if slug in CATALOGUE else name
        )
        lines.append([name, *(str(count[year] or "–") for year in (SINCE - 1, *years)), str(count.total())])
    counts = table(columns, lines, class_="number")
    note = language.word("read on", counted=len(rows), package=package(), date=found["date"])
    return element(
        "div", counts + element("p", note, class_="atlas-note"), class_="atlas-spread", data_tree=""
    )
