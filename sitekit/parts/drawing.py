"""The figure and the dataflow diagram of a mechanism, as they were drawn by running it."""

from html import escape

from sitekit import pages
from sitekit.errors import fail
from sitekit.labels import word
from sitekit.parts.html import element
from sitekit.results import Results
from snippets.catalogue import Mechanism


def figure(mechanism: Mechanism, results: Results, language: str) -> str:
    """Return the figure; the paragraph after the fence is its caption.

    Raises:
        BuildError: the mechanism has no figure file.
    """
    if not results.figure_svg:
        fail(f"figure of {mechanism.slug}: figures/{mechanism.path}.py is missing", mechanism.slug)
    title = pages.short_title(pages.page(mechanism), language)
    label = escape(word("figure of", language, title=title))
    svg = results.figure_svg.replace("<svg ", f'<svg aria-label="{label}" ', 1)
    return element("figure", svg, class_="atlas-figure")


def diagram(results: Results) -> str:
    """Return the dataflow diagram."""
    return element("figure", results.diagram_svg, class_="atlas-diagram")
