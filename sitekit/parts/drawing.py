"""Figures, and the dataflow diagram of a mechanism, as they were drawn by running the code."""

from html import escape

from sitekit import offscreen, pages
from sitekit.errors import fail
from sitekit.kinds import figures
from sitekit.language import Language
from sitekit.parts.html import element
from sitekit.parts.source import chosen, mechanism
from sitekit.store import diagram as drawn
from sitekit.store import drawing
from snippets.catalogue import Mechanism


def figure(source: str, language: Language) -> str:
    """Return the figure of a mechanism, or the one at a path below figures/; its caption follows the fence.

    Raises:
        BuildError: there is no such mechanism or figure.
    """
    name = source.strip()
    if "/" in name:
        return _labelled(drawing(chosen("figure", name, figures()), language), language.word("figure"))
    subject = mechanism(name)
    if subject.path not in figures():
        fail(f"figure of {subject.slug}: figures/{subject.path}.py is missing", subject.slug)
    title = pages.short_title(pages.page(subject), language)
    return _labelled(drawing(subject.path, language), language.word("figure of", title=title))


def diagram(subject: Mechanism, language: Language) -> str:
    """Return the dataflow diagram."""
    return element("figure", drawn(subject, language), class_="atlas-diagram")


def _labelled(svg: str, label: str) -> str:
    named = svg.replace("<svg ", f'<svg aria-label="{escape(label)}" ', 1)
    return element("figure", named, class_="atlas-figure", data_later="", style=offscreen.ratio(svg))
