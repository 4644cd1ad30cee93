"""What changed since the nearest relative that is older, where the difference is short enough to teach."""

from functools import cache
from html import escape

from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from pygments.lexers import DiffLexer  # type: ignore[import-untyped]

from sitekit import pages, references
from sitekit.closure import digest
from sitekit.language import Language
from sitekit.parts import part
from sitekit.paths import ROOT
from sitekit.pieces.elements import code_block, element
from sitekit.pieces.named import mechanism_named
from sitekit.pieces.prose import inline
from sitekit.remembered import Remembered
from snippets.catalogue import Mechanism
from snippets.changes import kinship, short_changes
from snippets.lookup import code


@part("changed")
def changed(body: str, language: Language) -> str:
    """Return the difference, folded; nothing where no relative is near enough."""
    mechanism = mechanism_named(body)
    relative = nearest(mechanism)
    if relative is None:
        return ""
    lines = "\n".join(compared(relative, mechanism)[0])
    name = inline(pages.short_title(pages.page(relative), language), language)
    summary = element("summary", language.word("changed since", name=name))
    coloured = highlight(lines, DiffLexer(), HtmlFormatter(nowrap=True))
    block = code_block(coloured, "diff")
    note = element("p", escape(language.word("without docstrings")), class_="atlas-note")
    return element(
        "details", summary + note + element("div", block, class_="highlight"), class_="atlas-changed"
    )


def nearest(mechanism: Mechanism) -> Mechanism | None:
    """Return the related mechanism whose code is most alike, of those no younger that differ in little."""
    relatives = map(mechanism_named, mechanism.related)
    older = [row for row in relatives if _year(row) <= _year(mechanism) and compared(row, mechanism)[0]]
    return max(older, key=lambda row: compared(row, mechanism)[1], default=None)


def compared(old: Mechanism, new: Mechanism) -> tuple[list[str], float]:
    """Return the lines of a difference that is short, else none, and how much two modules have in common."""

    def compare(*_: object) -> tuple[list[str], float]:
        return short_changes(old, new), kinship(old, new)

    lines, share = _known().get(compare, old.slug, new.slug, code(old), code(new))
    return lines, share


@cache
def _known() -> Remembered:
    """Return what the last build has compared."""
    return Remembered("changed", digest(ROOT / "snippets" / name for name in ("changes.py", "docstrings.py")))


def _year(mechanism: Mechanism) -> int:
    return int(references.year(mechanism.citation))
