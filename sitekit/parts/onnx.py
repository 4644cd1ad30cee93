"""What becomes of a module in ONNX Runtime, as `python -m deploy` measured it: a line, and a table of all."""

from collections.abc import Iterable
from html import escape
from typing import Any

from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.elements import code, element, link, table
from sitekit.pieces.recorded import recorded
from sitekit.pieces.refer import to_mechanism
from snippets.catalogue import CATALOGUE, Mechanism

SECTION = "/plug-in-recipes.md#onnx"
Outcome = dict[str, Any]


def note(mechanism: Mechanism, language: Language) -> str:
    """Return a line on one mechanism; nothing if it was not measured."""
    found = _measured().get(mechanism.slug)
    if found is None:
        return ""
    versions = {key: found[key] for key in ("torch", "onnxruntime", "opset")}
    lead = link(SECTION, escape(language.word("onnx", **versions)))
    sentences = [*_passed(found["cases"], language), *_refused(found["cases"], language)]
    text = language.semicolon.join(sentences)
    return element("p", f"{lead} {text}", class_="atlas-note")


@part("onnx")
def onnx(body: str, language: Language) -> str:
    """No body. Return the table of all mechanisms that were measured."""
    columns = [language.word(key) for key in ("mechanism", "onnx passed", "onnx refused")]
    rows = []
    for slug, found in _measured().items():
        passed, refused = (
            "<br/>".join(part(found["cases"], language)) or "–" for part in (_passed, _refused)
        )
        rows.append([to_mechanism(CATALOGUE[slug], language), passed, refused])
    return element("div", table(columns, rows), class_="atlas-onnx", data_tree="")


def _passed(found: dict[str, Outcome], language: Language) -> Iterable[str]:
    """Return one phrase for all configurations with the same open sizes."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, outcome in found.items():
        if not outcome["refused"]:
            groups.setdefault(tuple(outcome["open"]), []).append(name)
    for sizes, names in groups.items():
        far = max(found[name]["difference"] for name in names)
        key = "onnx open" if sizes else "onnx fixed"
        text = language.word(key, sizes=language.separator.join(sizes), difference=f"{far:.1e}")
        yield f"{_names(names, language)}{escape(text)}"


def _refused(found: dict[str, Outcome], language: Language) -> Iterable[str]:
    """Return a phrase for each configuration that does not go through, with the reason given."""
    for name, outcome in found.items():
        if outcome["refused"]:
            failed = escape(language.word("onnx failed")) + code(outcome["refused"])
            yield _names([name], language) + failed


def _names(names: list[str], language: Language) -> str:
    return language.separator.join(code(name) for name in names)


def _measured() -> dict[str, Outcome]:
    found = recorded("onnx.json")
    return {slug: found[slug] for slug in CATALOGUE if slug in found}
