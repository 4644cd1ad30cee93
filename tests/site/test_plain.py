"""Pages as plain Markdown: complete, readable without the site, linked, and listed in llms.txt."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sitekit.language import ENGLISH
from sitekit.parts import PARTS
from sitekit.plain.page import plain
from snippets.catalogue import CATALOGUE
from tests.conftest import PROOFS, ROOT

LANGUAGES = {"en": "", "zh": "zh/"}
CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1$|`[^`]+`", re.DOTALL | re.MULTILINE)
LITERAL = "`[@x]` and `{#a}`\n\n```text\n## A {#a}\n\n\n[@x]\n```"
LINK = re.compile(r"\]\(([^\s()]+)\)")


@pytest.fixture(scope="module")
def texts(site: Path) -> dict[Path, str]:
    """Every plain page of both languages."""
    return {file: file.read_text(encoding="utf-8") for file in sorted(site.rglob("*.md"))}


def mechanisms(site: Path) -> Iterator[tuple[str, str, Path]]:
    for folder in LANGUAGES.values():
        for slug, row in CATALOGUE.items():
            yield slug, row.path, site / folder / f"{row.path.replace('_', '-')}.md"


def test_every_page_leads_to_its_plain_text(site: Path, texts: dict[Path, str]) -> None:
    linked = set()
    for file in site.rglob("index.html"):
        page = file.read_text(encoding="utf-8")
        (head,) = re.findall(r'<link rel="alternate " type="text/markdown" href="([^"]+)"', page)
        (link,) = re.findall(r'<p class="atlas-copy atlas-plain".*?<a href="([^"]+)"', page, re.DOTALL)
        assert head == link
        target = (file.parent / link).resolve()
        assert texts[target].startswith("# "), file
        linked.add(target)
    assert linked == set(texts)


def test_links_lead_to_plain_pages_and_files(site: Path, texts: dict[Path, str]) -> None:
    dead = [
        f"{file.relative_to(site)}: {target}"
        for file, text in [
            *texts.items(),
            *((file, file.read_text("utf-8")) for file in site.rglob("llms.txt")),
        ]
        for target in LINK.findall(CODE.sub("", text))
        if not re.match(r"https?:", target) and not (file.parent / target).is_file()
    ]
    assert not dead, "\n".join(dead)


def test_nothing_is_left_that_only_the_site_understands(site: Path, texts: dict[Path, str]) -> None:
    fence = "|".join(PARTS.keys() - {"bibtex"})
    for file, text in texts.items():
        name = file.relative_to(site)
        assert "--8<--" not in text, name
        assert not re.search(rf"^```({fence})$", text, re.MULTILINE), name
        prose = CODE.sub("", text)
        found = re.search(r".*(\[@\w|\{[#:.]\s*\w|^ *(!!!|\?\?\?)|\\[(\[][^\\]|<(div|svg|span|p)\b).*", prose)
        assert not found, f"{name}: {found and found[0]}"


def test_the_module_stands_in_the_page(site: Path, texts: dict[Path, str]) -> None:
    for slug, path, file in mechanisms(site):
        source = (ROOT / "snippets" / f"{path}.py").read_text(encoding="utf-8")
        assert f'```python title="{slug}.py"\n{source.rstrip()}\n```' in texts[file], file


def shown(figure: dict[str, str]) -> str:
    """Two cells: what was measured, and its limit."""
    measured = f"{figure['name']} = {figure['measured']}".removeprefix(" = ")
    return f"{measured.replace('|', chr(92) + '|')} | {figure['limit']}"


def test_the_measured_figures_stand_in_the_page(site: Path, texts: dict[Path, str]) -> None:
    recorded = json.loads(PROOFS.read_text(encoding="utf-8"))
    for slug, _, file in mechanisms(site):
        for name, (first, *others) in recorded[slug]["proofs"].items():
            assert f"`{name}` | {shown(first)} |" in texts[file], file
            assert all(f"\n|  | {shown(figure)} |" in texts[file] for figure in others), file


def test_what_a_page_of_a_mechanism_holds(site: Path) -> None:
    text = (site / "attention-domain/channel/senet.md").read_text(encoding="utf-8")
    for part in (
        "[Download](../../snippets/attention_domain/channel/senet.py)\n\n",
        "- **Weights:** [soft](../../weight-assignment/soft/index.md)\n",
        "- **Parameters:** $\\frac{2 C^{2}}{r} + C + \\frac{C}{r}$\n",
        "may be fully open at once (Hu et al., 2018).",
        "*SENet: figure drawn by running the code",
        "*From x (B, C, H, W): in g(x): mean over H, W,",
        "\\text{Multiply-adds} = \\frac{2 B C^{2}}{r}\n$$",
        "| [B = 1, C = 256, H = W = 14](../../comparison.md) | 8,464 | 8,192 | 256 |",
        "> **You may have read**\n>\n> - *The squeeze",
        "```bibtex\n@inproceedings{hu2018senet,",
        "- [CBAM](../channel-spatial/cbam.md) (soft × channel + spatial)",
        "## Papers cited\n\n- Jie Hu, Li Shen, Samuel Albanie, Gang Sun, Enhua Wu. *Squeeze-and-Excitation",
    ):
        assert part in text
    chinese = (site / "zh/attention-domain/channel/senet.md").read_text(encoding="utf-8")
    assert "可以有好几个通道同时全开（Hu 等，2018）。" in chinese
    assert "## 引用的论文\n\n- Jie Hu" in chinese


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("## A {#a}\n\nB", "## A\n\nB"),
        ("See [the rule](#rule) of [B](../b.md#x), [C](c.py).", "See the rule of [B](../b.md), [C](c.md)."),
        ("[a long\nlink](b.md#c)", "[a long\nlink](b.md)"),
        (LITERAL, LITERAL),
        ('!!! note "Care"\n\n    One.\n\n    Two.\nThree.', "> **Care**\n>\n> One.\n>\n> Two.\n\nThree."),
        ("???+ warning\n    One.", "> **Warning**\n>\n> One."),
        ("``` { .text .atlas-output .no-copy }\n1\n```", "```text\n1\n```"),
        ('<div class="x"><svg aria-label="A map" role="img"><g></g></svg></div>', "*A map*"),
        ("[site](https://a.b/#c)", "[site](https://a.b/#c)"),
    ],
)
def test_plain(markdown: str, expected: str) -> None:
    assert plain(markdown, "x/a.md", ENGLISH) == expected + "\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_llms_txt_lists_every_page_under_its_section(
    site: Path, language: str, texts: dict[Path, str]
) -> None:
    root = site / LANGUAGES[language]
    text = (root / "llms.txt").read_text(encoding="utf-8")
    title, summary, first, *sections = text.rstrip().split("\n\n")
    assert re.fullmatch("# .+", title)
    assert re.fullmatch("> .+", summary)
    pages = [
        file
        for file in texts
        if file.is_relative_to(root) and ("zh" in file.relative_to(site).parts) == bool(LANGUAGES[language])
    ]
    assert sorted(LINK.findall(text)) == sorted(file.relative_to(root).as_posix() for file in pages)
    for line in [line for block in (first, *sections[1::2]) for line in block.splitlines()]:
        assert re.fullmatch(r"- \[[^\]]+\]\(\S+\)(: |：).*[\w)].*[.。！!?？]", line), line
    channel = {"en": "## Attention domain › Channel", "zh": "## 作用于哪个域 › 通道"}[language]
    assert "channel/senet.md)" in sections[sections.index(channel) + 1]
