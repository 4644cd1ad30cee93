"""What a mechanism does, box by box, and its dataflow as it was recorded from the running code.

The body is a slug, then what `sitekit.diagram.idea` describes.
"""

from sitekit import store
from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.elements import element
from sitekit.pieces.named import mechanism_named


@part("diagram")
def diagram(body: str, language: Language) -> str:
    """Return the diagram."""
    slug = body.partition("\n")[0]
    return element("figure", store.diagram(mechanism_named(slug), language), class_="atlas-diagram")
