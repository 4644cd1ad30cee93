"""The Markdown extension: formulas, citations, includes, links in fences, and the font of the formulas."""

import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from fontTools.ttLib import TTFont
from markdown import Markdown
from mkdocs.commands.build import build
from mkdocs.config import load_config

from sitekit import mathfont, paths, references
from sitekit.errors import BuildError
from sitekit.language import ENGLISH
from snippets.catalogue import CATALOGUE

BIBLIOGRAPHY = """\
@inproceedings{hu2018senet,
  author = {Hu, Jie and Shen, Li and Sun, Gang},
  title = {Squeeze-and-{Excitation} Networks},
  booktitle = {CVPR},
  year = {2018},
  eprint = {1709.01507},
}
@inproceedings{jain2019,
  author = {Jain, Sarthak and Wallace, Byron C.},
  title = {Attention is not <Explanation>},
  booktitle = {NAACL},
  year = {2019},
  doi = {10.1/x},
}
"""


def extensions(root: Path, language: str = "en") -> dict[str, dict[str, object]]:
    return {
        "tables": {},
        "toc": {},
        "pymdownx.arithmatex": {"generic": True},
        "pymdownx.snippets": {"base_path": [str(root)], "check_paths": True},
        "sitekit.markdown.extension": {"language": language},
    }


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty site with a bibliography of two papers."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "DOCS", tmp_path / "docs")
    (tmp_path / "docs/en").mkdir(parents=True)
    (tmp_path / "docs/references.bib").write_text(BIBLIOGRAPHY, encoding="utf-8")
    return tmp_path


def render(site: Path, text: str, language: str = "en") -> BeautifulSoup:
    (site / "docs/en/page.md").write_text(text, encoding="utf-8")
    options = extensions(site, language)
    return BeautifulSoup(
        Markdown(extensions=list(options), extension_configs=options).convert(text), "html.parser"
    )


def refusal(site: Path, text: str) -> str:
    with pytest.raises(BuildError) as error:
        render(site, text)
    return str(error.value)


def test_inline_formula_becomes_mathml(site: Path) -> None:
    page = render(site, r"The scale is $\frac{1}{\sqrt{d}}$, and $a < b$.")
    first, second = page.select("span.arithmatex > math")
    assert first.find("mfrac").find("msqrt").mi.text == "d"
    assert second.text == "a<b"


def test_displayed_formula_is_a_block_that_the_keyboard_can_scroll(site: Path) -> None:
    tex = r"M = \begin{cases} 0 & j \le i \\ -\infty & \text{otherwise} \end{cases}"
    (formula,) = render(site, f"$$\n{tex}\n$$\n", "zh").select("div.arithmatex")
    assert (formula["tabindex"], formula["role"], formula["aria-label"]) == ("0", "group", "公式")
    assert formula.math["display"] == "block"
    assert len(formula.find_all("mtr")) == 2
    assert formula.annotation.text == tex


def test_no_dollar_sign_is_left_and_code_is_left_alone(site: Path) -> None:
    page = render(site, "# Divide by $d$\n\n| $x$ |\n|---|\n| $y$ |\n\n`$z$`\n\n    $z$\n")
    assert [formula.text for formula in page.select("math")] == ["d", "x", "y"]
    assert [code.text.strip() for code in page.select("code")] == ["$z$", "$z$"]


def test_table_of_contents_shows_a_formula_once(site: Path) -> None:
    options = extensions(site)
    md = Markdown(extensions=list(options), extension_configs=options)
    md.convert("# Divide by $d$ first")
    assert md.toc_tokens[0]["name"] == "Divide by d first"  # type: ignore[attr-defined]


def test_unknown_command_is_refused_with_file_line_and_formula(site: Path) -> None:
    message = refusal(site, "One.\n\nTwo $\\softmx(x)$.\n")
    assert message.startswith("docs/en/page.md:3: ")
    assert r"\softmx" in message
    assert "Unknown command" in message


def test_wrong_line_of_an_indented_formula_is_found(site: Path) -> None:
    message = refusal(site, "- item\n\n    $$\n    数 = 1 \\\\\n    \\nope{c}\n    $$\n")
    assert message.startswith("docs/en/page.md:5: ")


def test_citation_names_authors_and_year(site: Path) -> None:
    text = "See [@hu2018senet; @jain2019], `[@code]` and [text](https://example.org)."
    english, chinese = render(site, text), render(site, text, "zh")
    assert english.select_one(".citation").text == "(Hu et al., 2018; Jain and Wallace, 2019)"
    assert chinese.select_one(".citation").text == "（Hu 等，2018；Jain、Wallace，2019）"
    assert english.code.text == "[@code]"


def test_chinese_lines_are_joined(site: Path) -> None:
    text = "注意力**权重**，\n**通道**\n与空间；SENet\n是一例 [@hu2018senet]。\n\n```\n通道\n空间\n```\n"
    page = render(site, text, "zh")
    assert page.p.text == "注意力权重，通道与空间；SENet\n是一例（Hu 等，2018）。"
    assert "通道\n空间" in page.pre.text


def test_a_line_that_ends_in_full_width_punctuation_brings_no_space(site: Path) -> None:
    page = render(site, "权重，\nSENet 与 $x$。\n[通道](index.md)：\n`pool`\n\n- 一。\n- 二\n", "zh")
    assert page.p.get_text().startswith("权重，SENet 与 ")
    assert page.p.get_text().endswith("。通道：pool")
    assert [item.text for item in page.select("li")] == ["一。", "二"]


def test_what_belongs_together_stays_on_one_line(site: Path) -> None:
    page = render(site, "A 3 × 3 map, 28 % of 1.5 M, weights $x$, and *x* 2 more.\n\n```\n3 × 3\n```\n")
    text = page.p.get_text()
    assert text.startswith("A 3\u00a0×\u00a03 map, 28\u00a0% of 1.5\u00a0M, weights ")
    assert text.endswith("\u2060, and x 2 more.")
    assert "3 × 3" in page.pre.text


def test_code_has_elements_only_for_what_has_a_colour(site: Path) -> None:
    code = 'def f(x):\n    return x.a + "<1>"  # so\n'
    block = render(site, f"```python\n{code}```\n").select_one("pre > code")
    assert block
    assert block.get_text() == code
    assert [span.text for span in block.find_all("span")] == ["def", "f", "return", '"<1>"', "# so"]
    assert block["tabindex"] == "0"  # the keyboard scrolls it


def test_unknown_citation_is_refused_with_file_line_and_nearest_key(site: Path) -> None:
    message = refusal(site, "Not hu2018sennet.\n\nSee [@jain2019; @hu2018sennet].\n")
    assert message == ("docs/en/page.md:3: unknown citation key 'hu2018sennet'; did you mean 'hu2018senet'?")


def test_broken_bibliography_is_refused_with_its_line(site: Path) -> None:
    (site / "docs/references.bib").write_text("@book{a,\n  title = {A\n}\n", encoding="utf-8")
    assert refusal(site, "See [@a].").startswith("docs/references.bib: syntax error in line 4")


def test_bibtex_to_copy(site: Path) -> None:
    assert references.bibtex("hu2018senet").splitlines()[:3] == [
        "@inproceedings{hu2018senet,",
        "  author    = {Hu, Jie and Shen, Li and Sun, Gang},",
        "  title     = {Squeeze-and-{Excitation} Networks},",
    ]
    assert references.year("hu2018senet") == 2018
    assert references.paper_url("hu2018senet") == "https://arxiv.org/abs/1709.01507"
    assert references.paper_url("jain2019") == "https://doi.org/10.1/x"


def test_entry_is_escaped_and_without_braces(site: Path) -> None:
    html = references.entry_html("jain2019", ENGLISH)
    assert '<cite lang="en">Attention is not &lt;Explanation&gt;</cite>. NAACL 2019.' in html
    assert "Squeeze-and-Excitation Networks" in references.entry_html("hu2018senet", ENGLISH)


@pytest.mark.parametrize("directory_urls", [True, False])
def test_citation_leads_to_its_entry_from_any_depth(site: Path, directory_urls: bool) -> None:
    deep = site / "docs/en/a/b"
    deep.mkdir(parents=True)
    (site / "docs/en/index.md").write_text("# Home\n", encoding="utf-8")
    (site / "docs/en/bibliography.md").write_text("# B\n\n```bibliography\n```\n", encoding="utf-8")
    (deep / "page.md").write_text("# P\n\nSee [@jain2019].\n", encoding="utf-8")
    options = extensions(site)
    (site / "mkdocs.yml").touch()
    config = load_config(
        config_file=str(site / "mkdocs.yml"),
        site_name="test",
        docs_dir=str(site / "docs/en"),
        site_dir=str(site / "site"),
        use_directory_urls=directory_urls,
        strict=True,
        plugins=[],
        markdown_extensions=[{name: values} for name, values in options.items()],
        validation={"links": {"absolute_links": "relative_to_docs", "anchors": "warn"}},
    )
    build(config)
    page = site / "site" / ("a/b/page/index.html" if directory_urls else "a/b/page.html")
    link = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select_one(".citation a")
    path, _, anchor = str(link["href"]).partition("#")
    target = (page.parent / path).resolve()
    html = (target / "index.html" if target.is_dir() else target).read_text(encoding="utf-8")
    assert BeautifulSoup(html, "html.parser").find(id=anchor).cite.text == "Attention is not <Explanation>"


def test_missing_include_is_refused_with_the_nearest_path(site: Path) -> None:
    (site / "snippets/channel").mkdir(parents=True)
    (site / "snippets/channel/senet.py").write_text("one = 1\n", encoding="utf-8")
    good = '```python\n--8<-- "snippets/channel/senet.py"\n```\n\n;--8<-- "no/such.py"\n'
    assert "one = 1" in render(site, good).text
    message = refusal(site, good.replace("channel/senet", "chanel/senet"))
    assert message == (
        "docs/en/page.md:2: included file 'snippets/chanel/senet.py' does not exist; "
        "did you mean 'snippets/channel/senet.py'?"
    )


def test_every_mechanism_cites_an_entry_of_the_real_bibliography() -> None:
    for mechanism in CATALOGUE.values():
        assert references.paper_url(mechanism.citation).startswith("https://")


def test_every_real_entry_is_complete() -> None:
    ids = re.findall(r'id="ref-([^"]+)"', references.bibliography_html(ENGLISH))
    assert len(ids) == len(set(ids)) >= 30
    for key in ids:
        assert references.year(key) > 1900
        assert references.short(key, ENGLISH)
        assert "\\" not in references.bibtex(key)


@pytest.fixture(scope="module")
def font() -> TTFont:
    return TTFont(BytesIO(b64decode(mathfont.make("math"))))


def test_font_is_small() -> None:
    content = b64decode(mathfont.make("math"))
    assert content[:4] == b"wOF2"
    assert len(content) < 110_000


def test_font_holds_what_formulas_need(font: TTFont) -> None:
    needed = "aZ09𝑥𝑊𝐖𝐛𝒜ℒℝ𝔼αωΣ𝛼𝜃𝜶∑∏∫√∞∈∝⊙⊕⊗⊤≤≥≠∇∂→⟨⟩⌊⌋‖⋯⋮⋱⏟⏞ˆ˜¯"
    assert [character for character in needed if ord(character) not in font.getBestCmap()] == []


def test_font_stretches_brackets_and_roots(font: TTFont) -> None:
    variants = font["MATH"].table.MathVariants
    glyphs = variants.VertGlyphCoverage.glyphs
    for character in "()[]{}|√∑":
        name = font.getBestCmap()[ord(character)]
        sizes = variants.VertGlyphConstruction[glyphs.index(name)]
        assert len(sizes.MathGlyphVariantRecord) > 1 or sizes.GlyphAssembly, character
    root = variants.VertGlyphConstruction[glyphs.index(font.getBestCmap()[ord("√")])]
    assert len({font["hmtx"][record.VariantGlyph][0] for record in root.MathGlyphVariantRecord}) == 1


def test_font_keeps_copyright_and_licence_under_its_own_name(font: TTFont) -> None:
    names = {record.nameID: str(record) for record in font["name"].names}
    assert "The STIX Fonts Project Authors" in names[0]
    assert "SIL Open Font License" in names[13]
    assert "STIX" not in names[1] + names[4] + names[6]
