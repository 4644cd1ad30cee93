"""The card under the title of a page: the file, both axes, paper, shapes, evidence, cost, names."""

from collections.abc import Iterator, Mapping
from html import escape

from sitekit import references
from sitekit.language import Language
from sitekit.pages import FOUNDATIONS
from sitekit.parts import part
from sitekit.pieces.badges import SECTION, badges
from sitekit.pieces.elements import code, element, formula, link
from sitekit.pieces.named import mechanism_named
from sitekit.pieces.refer import axis, to_overview, to_paper
from sitekit.pieces.used import used_by
from sitekit.results import Results
from sitekit.store import results
from snippets.catalogue import Mechanism

WIDE = {"shapes", "attention", "parameters", "macs", "complexity", "state"}
"""May be wider than a phone and scroll, by keyboard too."""

FIRST = ("place", "weights", "domain", "shapes", "complexity", "evidence", "used by")
"""What a reader sees at once: the idea is to begin on the first screen of a phone."""


@part("card")
def card(body: str, language: Language) -> str:
    """Return buttons that take the file, what tells the mechanism from others, and folded, the rest."""
    mechanism = mechanism_named(body)
    items = dict(_items(mechanism, results(mechanism), language))
    first = {key: items.pop(key) for key in FIRST if key in items}
    rest = element("summary", escape(language.word("more"))) + _list(items, language)
    parts = _take(mechanism, language), _list(first, language), element("details", rest, class_="atlas-more")
    own = {"data_axis": axis(mechanism.domain)} if mechanism.domain else {}
    return element("div", "".join(parts), class_="atlas-card", data_tree="", **own)


def _list(items: Mapping[str, str], language: Language) -> str:
    pairs = (
        element("dt", escape(language.word(key)))
        + element("dd", content, **({"tabindex": "0"} if key in WIDE else {}))
        for key, content in items.items()
    )
    return element("dl", "".join(pairs))


def _take(mechanism: Mechanism, language: Language) -> str:
    """Return two ways to the file; copy.js works the first."""
    file = f"{mechanism.slug}.py"
    copy = element("button", escape(language.word("copy", file=file)), type="button")
    target = f"/snippets/{mechanism.path}.py"
    download = element("a", escape(language.word("download")), href=target, download=file)
    status = element("span", "", role="status")
    return element(
        "p", f"{copy} {download} {status}", class_="atlas-copy", data_copied=language.word("copied")
    )


def _items(mechanism: Mechanism, found: Results, language: Language) -> Iterator[tuple[str, str]]:
    if mechanism.weights is None or mechanism.domain is None:
        yield "place", link(f"/{FOUNDATIONS}", language.word("foundations"))
    if mechanism.weights is not None:
        yield "weights", to_overview(mechanism.weights, language)
    if mechanism.domain is not None:
        yield "domain", to_overview(mechanism.domain, language)
    yield "paper", to_paper(mechanism, language)
    yield "year", str(references.year(mechanism.citation))
    yield "shapes", f"{_shapes(found.inputs)} → {_shapes(found.outputs)}"
    yield "attention", _shapes(found.attention)
    yield "evidence", link(SECTION, badges(mechanism, language))
    if (used := used_by(mechanism.slug)) and used.families:
        yield "used by", used.sentence(language)
    yield "parameters", parameters(found, language)
    yield "macs", formula(found.macs_tex)
    yield "complexity", formula(mechanism.complexity) + _positions(mechanism, found)
    if found.state_tex:
        yield "state", state(found, language)
    if mechanism.aliases:
        yield "aliases", escape(language.separator.join(mechanism.aliases))
    yield "run", code(f"python -m snippets run {mechanism.slug}")


def parameters(found: Results, language: Language) -> str:
    """Return the formula of the number of parameters, "none" where there are none."""
    if found.parameters_tex == "0":
        return language.word("no parameters")
    return formula(found.parameters_tex)


def state(found: Results, language: Language) -> str:
    """Return what a decoder keeps, per token and per sequence, as far as it keeps anything."""
    kinds = zip(("per token", "per sequence"), found.state_tex, strict=False)  # keeps nothing: no formulas
    return language.separator.join(
        language.word(kind, formula=formula(tex)) for kind, tex in kinds if tex != "0"
    )


def _positions(mechanism: Mechanism, found: Results) -> str:
    """Return what N stands for, where the card uses it for H times W."""
    sizes = found.rows[0].sizes
    texts = (mechanism.complexity, *found.inputs, *found.attention, *found.outputs)
    used = "N" not in sizes and {"H", "W"} <= set(sizes) and any("N" in text for text in texts)
    return f" ({formula('N = HW')})" if used else ""


def _shapes(shapes: tuple[str, ...]) -> str:
    return ", ".join(code(shape) for shape in shapes)
