"""What modules were held against: badges in words, marks where there is little room, and what they mean."""

from collections.abc import Iterable
from html import escape

from sitekit.labels import evidence_mark, evidence_meaning, evidence_word, separator, word
from sitekit.pages import PROVED
from sitekit.parts.html import element, link, table
from sitekit.parts.refer import to_mechanism
from snippets.catalogue import CATALOGUE, Evidence, Mechanism

SECTION = f"/{PROVED}#evidence"


def badges(mechanism: Mechanism, language: str) -> str:
    """Return what a module was held against, each with its mark and its word."""
    return _list((_badge(value, language) for value in _held(mechanism)), "badges")


def marks(mechanism: Mechanism, language: str) -> str:
    """Return the marks alone, for where each mechanism has a line; a reconstruction is named all the same."""
    return _list(
        (
            _badge(value, language) if value is Evidence.RECONSTRUCTION else _mark(value, language)
            for value in _held(mechanism)
        ),
        "marks",
    )


def reconstructed(mechanism: Mechanism, language: str) -> str:
    """Return the badge of a reconstruction, to stand after a link to it; nothing for others."""
    found = Evidence.RECONSTRUCTION in mechanism.evidence
    return "\u00a0" + _badge(Evidence.RECONSTRUCTION, language) if found else ""


def legend(language: str) -> str:
    """Return what the marks stand for."""
    every = _list((_badge(value, language) for value in Evidence), "badges")
    return element("p", f"{link(SECTION, word('marks', language))} {every}", class_="atlas-note")


def meanings(language: str) -> str:
    """Return the table of all values: what each says, how many modules have it, and which where few do."""
    columns = [word(key, language) for key in ("evidence", "meaning", "modules")]
    rows = []
    for value in Evidence:
        found = [row for row in CATALOGUE.values() if value in row.evidence]
        count = str(len(found))
        if value in (Evidence.SECONDARY, Evidence.RECONSTRUCTION) and found:
            names = separator(language).join(to_mechanism(row, language) for row in found)
            count = word("number of", language, count=count, names=names)
        rows.append([_badge(value, language), evidence_meaning(value, language), count])
    return element("div", table(columns, rows), class_="atlas-evidence", data_tree="")


def _held(mechanism: Mechanism) -> Iterable[Evidence]:
    return (value for value in Evidence if value in mechanism.evidence)


def _badge(value: Evidence, language: str) -> str:
    sign = element("span", _sign(value), aria_hidden="true")
    content = f"{sign} {evidence_word(value, language)}"
    return element("span", content, class_="atlas-badge", data_evidence=value.value)


def _mark(value: Evidence, language: str) -> str:
    name = evidence_word(value, language)
    return element("span", _sign(value), role="img", aria_label=name, title=name, data_evidence=value.value)


def _sign(value: Evidence) -> str:
    return escape(evidence_mark(value))


def _list(items: Iterable[str], kind: str) -> str:
    """Return items side by side, or a dash; sitekit.plain puts commas between them."""
    return element("span", " ".join(items) or "–", class_=f"atlas-{kind}")
