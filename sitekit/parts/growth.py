"""How time and memory of mechanisms grew with the number of positions when they were measured."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from sitekit import paths
from sitekit.errors import fail
from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.badges import reconstructed
from sitekit.pieces.elements import code, element, formula, table
from sitekit.pieces.refer import to_mechanism
from snippets.catalogue import CATALOGUE


@part("growth")
def growth(body: str, language: Language) -> str:
    """Return the table of figures/<body>.json, which benchmarks/growth.py writes.

    Raises:
        BuildError: there is no such file.
    """
    name = body.strip()
    file = paths.ROOT / "figures" / f"{name}.json"
    if not file.is_file():
        fail(f"figures/{name}.json is missing; measure: python -m benchmarks.growth", name)
    measured = json.loads(file.read_text(encoding="utf-8"))
    common = min(max(block["positions"]) for block in measured["blocks"].values())
    keys = ("mechanism", "complexity", "time growth", "memory growth")
    columns = [language.word(key, positions=f"{common:,}") for key in keys]
    rows = [_row(slug, block, common, language) for slug, block in measured["blocks"].items()]
    note = escape(language.word("growth measured", **measured["setting"]))
    by = element("p", f"{note} {code('python -m benchmarks.growth')}{language.stop}", class_="atlas-note")
    return element("div", table(columns, rows) + by, class_="atlas-growth", data_tree="")


def _row(slug: str, block: Mapping[str, Any], positions: int, language: Language) -> list[str]:
    place = block["positions"].index(positions)
    mechanism = CATALOGUE[slug]
    return [
        to_mechanism(mechanism, language) + reconstructed(mechanism, language),
        formula(mechanism.complexity),
        f"{_power(block, 'milliseconds')} · {block['milliseconds'][place]:.1f} ms",
        f"{_power(block, 'bytes')} · {block['bytes'][place] / 1e6:.1f} MB",
    ]


def _power(block: Mapping[str, Any], what: str) -> str:
    return formula(f"N^{{{block['exponents'][what]:.2f}}}")
