"""Model families and their mechanisms; comparison.js sorts and filters, models.js sets two side by side."""

from collections.abc import Mapping
from html import escape
from typing import Any

from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.cache import constant, layers, per_token, size
from sitekit.pieces.controls import filters, two_names
from sitekit.pieces.elements import element
from sitekit.pieces.used import COMMON, census

FIRST_TWO = ("deepseek_v3", "qwen3_next")


@part("models")
def models(body: str, language: Language) -> str:
    """No body. Return forms and table and, as data attributes, the words their scripts need."""
    found = census()
    names = {
        slug: names[language.column] for slug, names in found["mechanisms"].items() if slug not in COMMON
    }
    families = {name: row for name, row in found["families"].items() if names.keys() & set(row["uses"])}
    heads = [_head(key, language.word(key), "atlas-sorts") for key in ("family", "year")]
    heads += [_head(key, language.word(key), "atlas-sorts atlas-descends") for key in ("cache", "fixed part")]
    heads += [_head(slug, name, "atlas-sorts atlas-descends atlas-upright") for slug, name in names.items()]
    rows = "".join(_row(name, row, names, language) for name, row in families.items())
    parts = (
        two_names(list(families), FIRST_TWO, language),
        filters({"uses": names}, len(families), language),
        element(
            "table",
            element("thead", element("tr", "".join(heads))) + element("tbody", rows),
            class_="atlas-families",
        ),
    )
    words = {
        "data_shown": language.word("shown", shown="{shown}", all="{all}"),
        "data_layers": language.word("layers"),
        "data_only": language.word("only", name="{name}"),
        "data_both": language.word("both"),
        "data_separator": language.separator,
    }
    return element("div", "".join(parts), class_="atlas-models", data_tree="", **words)


def _head(key: str, name: str, classes: str) -> str:
    return element("th", escape(name), scope="col", data_key=key, class_=classes)


def _row(family: str, row: Mapping[str, Any], names: Mapping[str, str], language: Language) -> str:
    keeps = row.get("keeps", [])
    summary = element("span", layers(keeps, language), class_="atlas-summary") if keeps else ""
    cells = [
        element("th", f"{escape(family)} {summary}", scope="row"),
        element("td", str(row["year"] or "–"), data_label=language.word("year")),
        _size(per_token(keeps), "cache", language) if keeps else _unknown(),
        _size(constant(keeps), "fixed part", language) if keeps else _unknown(),
    ]
    cells += [
        element("td", "●", data_uses=slug, data_label=name) if slug in row["uses"] else element("td")
        for slug, name in names.items()
    ]
    return element("tr", "".join(cells), data_slug=family, data_names=family)


def _size(count: float, key: str, language: Language) -> str:
    return element(
        "td", size(count), class_="number", data_sort=str(round(count)), data_label=language.word(key)
    )


def _unknown() -> str:
    """A family that keeps nothing known: no decoder, or not understood."""
    return element("td", data_sort="-1")
