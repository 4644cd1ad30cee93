"""The dataflow of a mechanism, as it was recorded from the running code."""

from sitekit import store
from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.elements import element
from sitekit.pieces.named import mechanism_named


@part("diagram")
def diagram(body: str, language: Language) -> str:
    """Return the diagram."""
    return element("figure", store.diagram(mechanism_named(body), language), class_="atlas-diagram")
