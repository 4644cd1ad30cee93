"""What a printed Chinese text owes: full-width punctuation, no gap before %, settled headings."""

import re
from pathlib import Path

import pytest

from snippets.catalogue import CATALOGUE
from tests.conftest import ROOT
from tests.contract.test_pages import fences, prose

DOCS = ROOT / "docs" / "zh"
TEXTS = [*sorted(DOCS.rglob("*.md")), *sorted(DOCS.rglob("*.py")), ROOT / "README.zh.md"]
HEADINGS = {
    "idea": "核心思想",
    "see": "图示",
    "how": "原理",
    "code": "代码",
    "use": "用法",
    "cost": "代价",
    "paper": "论文、官方代码与本页",
    "limits": "优点与局限",
    "proofs": "证明",
    "references": "参考文献与相关机制",
}

HAN = "[\u4e00-\u9fff]"
MARKS = "[*_”“]*"
WRONG = {
    "half-width mark": f"{HAN}{MARKS} ?[,;:?!]|{HAN}{MARKS}\\.|[,;:?!]{MARKS} ?{HAN}",
    "half-width bracket": f"{HAN}{MARKS}[()]|[()]{MARKS}{HAN}",  # a formula in brackets has gaps around it
    "gap before %": r"[\d}$] %",
    "gap at a quotation mark": f"{HAN} “|” {HAN}|[，。；：？！、] “|” [，。；：？！、]",
}


def written(path: Path) -> str:
    """Return what is read as Chinese: no code, formulas, addresses or syntax; of proofs, the statements."""
    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(), flags=re.DOTALL)  # no head of a page
    if path.suffix == ".py":
        text = "\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("# "))
    proofs = [body for info, body in fences(text) if info == "proofs"]
    statements = [re.sub(r"(?m)^[\w, ]+: ", "", body) for body in proofs]
    text = "\n".join([prose(text), *statements])
    text = re.sub(r"`[^`\n]+`|\$\$.+?\$\$|\$[^$]+\$", "$", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)|\{#[\w-]+\}|\[@[^\]]+\]", "", text)
    return re.sub(r'(?m)^ ?(description|search|tags): |^(!!!|\?\?\?\+?) \w+ "(.*)"$', r"\3", text)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_punctuation_is_that_of_print(path: Path, wrong: str) -> None:
    assert re.findall(f".{{0,12}}(?:{WRONG[wrong]}).{{0,12}}", written(path)) == []


@pytest.mark.parametrize("slug", CATALOGUE)
def test_sections_are_called_alike(slug: str) -> None:
    text = (DOCS / (CATALOGUE[slug].path.replace("_", "-") + ".md")).read_text()
    found = re.findall(r"(?m)^##+ (.+) \{#([\w-]+)\}$", prose(text))
    assert {name: heading for heading, name in found if name in HEADINGS} == HEADINGS
