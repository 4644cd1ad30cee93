"""What every page owes: its sections, its code, and the same in both languages."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from snippets.catalogue import CATALOGUE, Chapter
from tests.conftest import ROOT

DOCS = ROOT / "docs"
SECTIONS = ["idea", "see", "how", "code", "use", "cost", "paper", "limits", "proofs", "references"]
FURTHER = {
    "transformer": {"use": "today"},
    "rotary": {"how": "conventions"},
    "bounded_logits": {"how": "order"},
    "kimi_delta": {"use": "after"},
}
"""Sections that a page has of its own, each behind one that all have."""
FENCES = ["card", "figure", "diagram", "changed", "cost", "proofs", "bibtex", "neighbours"]
WORDED = {"proofs", "diagram"}
PAGES = sorted(page.relative_to(DOCS / "en") for page in (DOCS / "en").rglob("*.md"))

FENCE = re.compile(r"^ *(`{3,})([^\n]*)\n(.*?)^ *\1$", re.DOTALL | re.MULTILINE)


def fences(text: str) -> list[tuple[str, str]]:
    """Info string and body of every fenced block."""
    return [(match[2].strip(), match[3]) for match in FENCE.finditer(text)]


def prose(text: str) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", text)


def code(text: str) -> list[tuple[str, str]]:
    """Blocks that must be the same in both languages, without the words of those that have some."""
    return [(info, without_words(info, body)) for info, body in fences(text)]


def without_words(info: str, body: str) -> str:
    """What stands before the words of a block, or what they lead to."""
    if info == "opening":
        return "\n".join(re.findall(r"\]\(.*?\)", body))
    return "\n".join(line.split(":")[0] for line in body.splitlines()) if info in WORDED else body


COMPARED: dict[str, Callable[[str], list[object]]] = {
    "heading ids": lambda text: re.findall(r"^#+ .*\{#([\w-]+)\}", prose(text), re.MULTILINE),
    "heading levels": lambda text: re.findall(r"^(#+) ", prose(text), re.MULTILINE),
    "blocks": lambda text: list(code(text)),
    "formulas": lambda text: sorted(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", " ".join(prose(text).split()))),
    "citations": lambda text: sorted(re.findall(r"@[a-z]+\d{4}\w*", prose(text))),
    "page links": lambda text: sorted(set(re.findall(r"\]\(([^)#]*\.md)", prose(text)))),
    "table rows": lambda text: len(re.findall(r"^\|", prose(text), re.MULTILINE)),
}


def test_both_languages_have_the_same_pages() -> None:
    for suffix in ("*.md", "*.py"):
        files = [{f.relative_to(DOCS / lang) for f in (DOCS / lang).rglob(suffix)} for lang in ("en", "zh")]
        assert files[0] == files[1]


@pytest.mark.parametrize("compared", COMPARED)
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_translation_matches(page: Path, compared: str) -> None:
    english, chinese = ((DOCS / lang / page).read_text() for lang in ("en", "zh"))
    assert COMPARED[compared](english) == COMPARED[compared](chinese)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_python_blocks_are_executed_or_included(page: Path) -> None:
    for info, body in fences((DOCS / "en" / page).read_text()):
        if info.startswith("python"):
            assert info == "python" or body.startswith('--8<-- "snippets/'), info


@pytest.mark.parametrize("slug", CATALOGUE)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_mechanism_page_is_complete(slug: str, language: str) -> None:
    path = CATALOGUE[slug].path
    text = (DOCS / language / (path.replace("_", "-") + ".md")).read_text()
    own = FURTHER.get(slug, {})
    expected = [name for section in SECTIONS for name in (section, own.get(section)) if name]
    assert re.findall(r"^##+ .*\{#([\w-]+)\}", prose(text), re.MULTILINE) == expected
    blocks = dict(fences(text))
    assert [fence for fence in FENCES if fence not in blocks] == []
    assert blocks[f'python title="{slug}.py"'] == f'--8<-- "snippets/{path}.py"\n'
    assert "#>" in blocks["python"]
    assert re.search(r"^description: \S", text, re.MULTILINE)


BY_POSITION = [slug for slug, m in CATALOGUE.items() if m.chapter in (Chapter.POSITIONS, Chapter.BOUNDED)]
CONVENTIONS = {"rotary": "rotary.md#conventions", "bounded_logits": "bounded-logits.md#order"}
"""The pages that say what holds for positions and scores in all of them."""


@pytest.mark.parametrize("slug", BY_POSITION)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_pages_on_positions_and_bounded_scores_lead_to_their_conventions(slug: str, language: str) -> None:
    text = prose((DOCS / language / (CATALOGUE[slug].path.replace("_", "-") + ".md")).read_text())
    assert [link for page, link in CONVENTIONS.items() if page != slug and link not in text] == []


CAPTION = {"en": 280, "zh": 130}  # characters: three lines of 720 pixels
NOTICE = {"en": "**What to notice:** ", "zh": "**看点：**"}


@pytest.mark.parametrize("language", CAPTION)
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_figure_has_a_short_caption_and_what_to_notice(page: Path, language: str) -> None:
    text = (DOCS / language / page).read_text()
    for below in re.split(r"^```figure\n.+\n```\n", text, flags=re.MULTILINE)[1:]:
        caption, notice = below.strip().split("\n\n")[:2]
        assert len(re.sub(r"\]\([^)]*\)|[*`$\[\]]", "", " ".join(caption.split()))) <= CAPTION[language]
        assert notice.startswith(NOTICE[language])


@pytest.mark.parametrize("slug", CATALOGUE)
def test_diagram_shows_the_numbered_steps(slug: str) -> None:
    text = (DOCS / "en" / (CATALOGUE[slug].path.replace("_", "-") + ".md")).read_text()
    how = prose(text).partition("{#how}")[2].partition("\n## ")[0]
    boxes = dict(fences(text))["diagram"]
    assert re.findall(r"^(\d+)\. ", how, re.MULTILINE) == sorted(
        set(re.findall(r"^ *(\d+) ", boxes, re.MULTILINE))
    )
