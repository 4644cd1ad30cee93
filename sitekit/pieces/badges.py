"""What modules were held against: badges in words, marks where there is little room."""

from collections.abc import Iterable
from html import escape

from sitekit.language import Language
from sitekit.pages import PROVED
from sitekit.pieces.elements import element, link
from snippets.catalogue import Evidence, Mechanism

SECTION = f"/{PROVED}#evidence"
MARKS = {
    Evidence.PAPER: "¶",
    Evidence.CODE: "</>",
    Evidence.SECONDARY: "≈",
    Evidence.RECONSTRUCTION: "△",
}
"""For where there is no room for a word."""


def badge(value: Evidence, language: Language) -> str:
    """Return mark and word of one kind of evidence."""
    sign = element("span", _sign(value), aria_hidden="true")
    content = f"{sign} {language.word(f'evidence {value}')}"
    return element("span", content, class_="atlas-badge", data_evidence=value.value)


def badges(mechanism: Mechanism, language: Language) -> str:
    """Return what a module was held against, each with its mark and its word."""
    return _list((badge(value, language) for value in _held(mechanism)), "badges")


def marks(mechanism: Mechanism, language: Language) -> str:
    """Return the marks alone, for where each mechanism has a line; a reconstruction is named all the same."""
    return _list(
        (
            badge(value, language) if value is Evidence.RECONSTRUCTION else _mark(value, language)
            for value in _held(mechanism)
        ),
        "marks",
    )


def reconstructed(mechanism: Mechanism, language: Language) -> str:
    """Return the badge of a reconstruction, to stand after a link to it; nothing for others."""
    found = Evidence.RECONSTRUCTION in mechanism.evidence
    return "\u00a0" + badge(Evidence.RECONSTRUCTION, language) if found else ""


def legend(language: Language) -> str:
    """Return what the marks stand for."""
    every = _list((badge(value, language) for value in Evidence), "badges")
    return element("p", f"{link(SECTION, language.word('marks'))} {every}", class_="atlas-note")


def _held(mechanism: Mechanism) -> Iterable[Evidence]:
    return (value for value in Evidence if value in mechanism.evidence)


def _mark(value: Evidence, language: Language) -> str:
    name = language.word(f"evidence {value}")
    return element("span", _sign(value), role="img", aria_label=name, title=name, data_evidence=value.value)


def _sign(value: Evidence) -> str:
    return escape(MARKS[value])


def _list(items: Iterable[str], kind: str) -> str:
    """Return items side by side, or a dash; sitekit.plain puts commas between them."""
    return element("span", " ".join(items) or "–", class_=f"atlas-{kind}")
