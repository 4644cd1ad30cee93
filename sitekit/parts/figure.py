"""Figures, as they were drawn by running the code, and what a reader can move beside them."""

from html import escape

from sitekit import pages
from sitekit.errors import fail
from sitekit.kinds import draws, figures
from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.elements import element
from sitekit.pieces.named import chosen, mechanism_named
from sitekit.pieces.panel import panel
from sitekit.store import drawing
from sitekit.svg import size


@part("figure")
def figure(body: str, language: Language) -> str:
    """Return the figure of a mechanism, or the one at a path below figures/; its caption follows the fence.

    Raises:
        BuildError: there is no such mechanism or figure.
    """
    name = body.strip()
    if "/" in name or name == "index":
        return _labelled(chosen("figure", name, figures()), language.word("figure"), language)
    mechanism = mechanism_named(name)
    if not draws(mechanism.path):
        fail(f"figure of {name}: figures/{mechanism.path}.py is missing", name)
    title = pages.short_title(pages.page(mechanism), language)
    return _labelled(mechanism.path, language.word("figure of", title=title), language)


def _labelled(path: str, label: str, language: Language) -> str:
    named = drawing(path, language).replace("<svg ", f'<svg aria-label="{escape(label)}" ', 1)
    width, height = size(named)
    shape = f"--ratio: {width / height:.3f}"
    return element("figure", panel(path, language) + named, class_="atlas-figure", style=shape)
