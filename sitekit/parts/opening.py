"""What a visitor finds beside the first figure: doors into the atlas, and what there is of it, counted."""

import json
from collections.abc import Iterator
from html import escape

from mkdocs.utils.yaml import yaml_load

from sitekit import paths
from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.elements import element
from sitekit.pieces.prose import inline
from snippets.catalogue import CATALOGUE


@part("opening")
def opening(body: str, language: Language) -> str:
    """The body: a door a line, a link and what is behind it. Return them and the counts, as lists."""
    doors = "".join(element("li", inline(door, language)) for door in body.strip().splitlines())
    counts = "".join(element("li", escape(count)) for count in _counts(language))
    lists = element("ul", doors, class_="atlas-doors") + element("ul", counts, class_="atlas-counts")
    return element("div", lists, class_="atlas-opening", data_tree="")


def _counts(language: Language) -> Iterator[str]:
    recorded = json.loads((paths.DOCS / "proofs.json").read_text(encoding="utf-8"))
    release = yaml_load((paths.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    yield language.word("mechanisms counted", count=len(CATALOGUE))
    yield language.word("proofs counted", count=sum(len(found["proofs"]) for found in recorded.values()))
    yield language.word("released", date=release["date-released"])
    yield language.word("licence", name=release["license"])
