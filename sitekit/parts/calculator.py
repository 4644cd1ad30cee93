"""What the cache of a decoder takes: a form that calculator.js works, and ten models as they are."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.cache import BYTES, constant, layers, per_token, size
from sitekit.pieces.controls import labelled, options
from sitekit.pieces.elements import element, table
from sitekit.pieces.refer import to_mechanism
from sitekit.pieces.used import census
from snippets.catalogue import CATALOGUE

KINDS: Mapping[str, tuple[str, Sequence[str]]] = {
    "full": ("grouped_query", ("layers", "heads", "key", "value")),
    "window": ("sliding_window", ("layers", "heads", "key", "value", "window")),
    "latent": ("latent", ("layers", "rank", "rotated")),
    "index": ("lightning_indexer", ("layers", "width")),
    "compressed": ("compressed_sparse", ("layers", "width", "every")),
    "compressed more": ("compressed_sparse", ("layers", "width", "every")),
    "state": ("gated_delta", ("layers", "state heads", "key", "value")),
}
"""Kinds of what is kept: the mechanism that explains it, and its sizes. Entries may be of two lengths."""

FIRST = "Llama 3 8B"
CONTEXT = 131_072
BITS = {"2": "16", "1": "8", "4": "32"}


@part("calculator")
def calculator(body: str, language: Language) -> str:
    """No body. Return the form, then the table of the models it begins with."""
    presets = census()["presets"]
    form = element(
        "form",
        _whole(presets, language) + _result(language) + "".join(_kind(kind, language) for kind in KINDS),
        autocomplete="off",
        aria_label=language.word("calculator"),
        data_presets=json.dumps(presets),
    )
    columns = [language.word(key) for key in ("field model", "keeps", "cache", "fixed part")]
    columns += [language.word("at tokens", tokens=f"{CONTEXT:,}")]
    rows = [_model(name, rows, language) for name, rows in presets.items()]
    note = element("p", escape(language.word("calculated", bits=8 * BYTES)), class_="atlas-note")
    return element("div", form + table(columns, rows) + note, class_="atlas-calculator", data_tree="")


def _model(name: str, rows: Sequence[Mapping[str, Any]], language: Language) -> list[str]:
    grown, fixed = per_token(rows), constant(rows)
    return [escape(name), layers(rows, language), size(grown), size(fixed), size(grown * CONTEXT + fixed)]


def _whole(presets: Mapping[str, Any], language: Language) -> str:
    """Return the fields that concern all layers."""
    models = options({name: name for name in presets}, FIRST)
    bits = options(BITS, str(BYTES))
    fields = (
        _label("model", element("select", models, name="model"), language),
        _label("bits", element("select", bits, name="bytes"), language),
        _number("context", CONTEXT, language, least=1),
        _number("batch", 1, language, least=1),
    )
    return element("div", "".join(fields), class_="atlas-filter")


def _kind(kind: str, language: Language) -> str:
    slug, names = KINDS[kind]
    name = escape(language.word(f"kept {kind}"))
    page = to_mechanism(CATALOGUE[slug], language) if slug in CATALOGUE else ""
    legend = element("legend", f"{name} {element('small', page)}" if page else name)
    share = element("output", "", name="share")
    fields = "".join(_number(key, *((1, language, 1) if key == "every" else (0, language))) for key in names)
    return element("fieldset", legend + fields + share, data_kind=kind)


def _number(key: str, value: int, language: Language, least: int = 0) -> str:
    name = key.removeprefix("state ")
    sizes = {"value": str(value), "min": str(least), "max": "100000000", "step": "1"}
    control = element("input", type="number", name=name, inputmode="numeric", required="", **sizes)
    return _label(key, control, language)


def _label(key: str, control: str, language: Language) -> str:
    return labelled(language.word(f"field {key}"), control)


def _result(language: Language) -> str:
    names = ("cache", "fixed part", "sum")
    rows = (
        element("div", element("dt", escape(language.word(name))) + element("dd", "", data_total=name))
        for name in names
    )
    return element("div", element("dl", "".join(rows)), role="status", class_="atlas-totals")
