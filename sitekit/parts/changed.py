"""What changed since the nearest relative that is older, where the difference is short enough to teach."""

from html import escape

from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from pygments.lexers import DiffLexer  # type: ignore[import-untyped]

from sitekit import pages, references
from sitekit.language import Language
from sitekit.parts import part
from sitekit.pieces.elements import element
from sitekit.pieces.named import mechanism_named
from sitekit.pieces.prose import inline
from snippets.catalogue import Mechanism
from snippets.changes import kinship, short_changes


@part("changed")
def changed(body: str, language: Language) -> str:
    """Return the difference, folded; nothing where no relative is near enough."""
    mechanism = mechanism_named(body)
    relative = nearest(mechanism)
    if relative is None:
        return ""
    lines = "\n".join(short_changes(relative, mechanism))
    name = inline(pages.short_title(pages.page(relative), language), language)
    summary = element("summary", language.word("changed since", name=name))
    coloured = highlight(lines, DiffLexer(), HtmlFormatter(nowrap=True))
    code = element("pre", element("code", coloured, class_="language-diff", tabindex="0"))
    note = element("p", escape(language.word("without docstrings")), class_="atlas-note")
    return element(
        "details", summary + note + element("div", code, class_="highlight"), class_="atlas-changed"
    )


def nearest(mechanism: Mechanism) -> Mechanism | None:
    """Return the related mechanism whose code is most alike, of those no younger that differ in little."""
    relatives = map(mechanism_named, mechanism.related)
    older = (row for row in relatives if _year(row) <= _year(mechanism) and short_changes(row, mechanism))
    return max(older, key=lambda row: kinship(row, mechanism), default=None)


def _year(mechanism: Mechanism) -> int:
    return int(references.year(mechanism.citation))
