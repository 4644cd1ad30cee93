"""The custom fences: what the parts of a page show, where their links lead, what they refuse."""

import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup, Tag
from markdown import Markdown
from playwright.sync_api import sync_playwright

from sitekit import paths
from sitekit.errors import BuildError
from sitekit.language import ENGLISH, Language
from sitekit.parts import PARTS
from sitekit.parts.neighbours import neighbours
from snippets.catalogue import CATALOGUE
from tests.site import small_atlas
from tests.site.conftest import CHROMIUM
from tests.site.small_atlas import OVERVIEW, ROOT, SmallAtlas
from tests.site.wait import wait_for

FENCES = {
    "card": "senet",
    "figure": "senet",
    "diagram": "senet",
    "cost": "senet",
    "proofs": "senet\ntest_halves: Zero weights *halve* the input: $\\sigma(0) < 1$\ntest_counts: ResNet-50",
    "bibtex": "b2020",
    "growth": OVERVIEW,
    "blocks": "",
    "start": "gate",
    "members": "channel",
    "comparison": "",
    "neighbours": "senet",
}


def fence(name: str, body: str) -> str:
    return f"```{name}\n{body}\n```\n\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SmallAtlas:
    """A small atlas, strictly built in both languages, with a page `deep/all.md` of all fences."""
    atlas = small_atlas.create(tmp_path_factory.mktemp("site"))
    page = "# All\n\n" + "".join(fence(name, body) for name, body in FENCES.items())
    for language in ("en", "zh"):
        atlas.write(f"docs/{language}/deep/all.md", page)
        atlas.write(f"docs/{language}/deep/overview.md", "# Overview\n\n" + fence("figure", OVERVIEW))
        built = atlas.build(language)
        assert built.returncode == 0, built.stderr
    return atlas


def page(site: SmallAtlas, path: str = "deep/all") -> BeautifulSoup:
    return BeautifulSoup(
        (site.root / "site" / path / "index.html").read_text(encoding="utf-8"), "html.parser"
    )


def part(site: SmallAtlas, name: str, path: str = "deep/all") -> Tag:
    found = page(site, path).select_one(f".atlas-{name}")
    assert found is not None
    return found


def entries(card: Tag) -> dict[str, Tag]:
    return {name.get_text(): value for name, value in zip(card.select("dt"), card.select("dd"), strict=True)}


def table(of: Tag) -> list[list[str]]:
    return [
        [cell.get_text(" ", strip=True).replace("\u00a0", " ") for cell in row.find_all(["th", "td"])]
        for row in of.select("tr")
    ]


def links(of: Tag) -> list[tuple[str, str]]:
    return [(link.get_text(), str(link["href"])) for link in of.find_all("a")]


def test_card(site: SmallAtlas) -> None:
    card = entries(part(site, "card"))
    texts = {name: value.get_text() for name, value in card.items()}
    assert texts["Weights"] == "soft"
    assert links(card["Domain"]) == [("channel", "../../attention-domain/channel/")]
    assert links(card["Paper"]) == [("Hu et al., 2018", "https://arxiv.org/abs/1709.01507")]
    assert texts["Year"] == "2018"
    assert texts["Shapes"] == "(B, C, H, W) → (B, C, H, W)"
    assert texts["Shape of g(x)"] == "(B, C, 1, 1)"
    assert all(card[name].math for name in ("Parameters", "Multiply-adds", "Complexity"))
    assert "N=HW" in texts["Complexity"]
    assert texts["Also called"] == "SE, squeeze-and-excitation, 挤压与激励"
    assert texts["Run"] == "python -m snippets run senet"
    assert [badge["data-evidence"] for badge in card["Evidence"].select(".atlas-badge")] == ["paper", "code"]
    assert texts["Evidence"] == "¶ paper </> released code"
    assert card["Evidence"].a["href"] == "../../how-it-is-proved/#evidence"


def test_card_begins_with_two_ways_to_the_file(site: SmallAtlas) -> None:
    copy = part(site, "card").find()
    assert isinstance(copy, Tag)
    assert [child.get_text() for child in copy.find_all(True)] == ["Copy senet.py", "Download", ""]
    assert copy["data-copied"] == "Copied"
    assert links(copy) == [("Download", "../../snippets/attention_domain/channel/senet.py")]


def test_card_in_chinese(site: SmallAtlas) -> None:
    card = entries(part(site, "card", "zh/deep/all"))
    texts = {name: value.get_text() for name, value in card.items()}
    assert texts["权重"] == "软注意力"
    assert links(card["作用域"]) == [("通道", "../../attention-domain/channel/")]
    assert texts["论文"] == "Hu 等，2018"
    assert texts["别名"] == "SE、squeeze-and-excitation、挤压与激励"
    assert texts["依据"] == "¶ 论文 </> 发布的代码"
    assert not {"Weights", "Domain", "Paper", "Parameters"} & set(texts)


@pytest.mark.parametrize("prefix", ["", "zh/"])
def test_every_link_of_every_part_leads_somewhere(site: SmallAtlas, prefix: str) -> None:
    """From a page two folders deep; the downloads are the files themselves."""
    base = site.root / "site" / prefix / "deep/all"
    targets = [
        href for _, href in links(page(site, f"{prefix}deep/all")) if not href.startswith(("https:", "#"))
    ]
    assert len(targets) > 8
    for target in targets:
        file = base / urlsplit(target).path
        assert (file / "index.html" if file.is_dir() else file).is_file(), target
    download = base / next(target for target in targets if target.endswith(".py"))
    assert download.read_text() == (ROOT / "snippets/attention_domain/channel/senet.py").read_text()


def test_cost(site: SmallAtlas) -> None:
    cost = part(site, "cost")
    assert links(cost)[-1][1] == "../../comparison/?B=1&C=512&H+%3D+W=28#senet"
    head, *rows = table(cost)
    assert head == ["Sizes", "Parameters", "Multiply-adds", "Attention weights"]
    assert rows[0] == ["B = 2, C = 64, H = 14, W = 10 (example)", "580", "1,024", "128"]
    assert rows[-1] == ["B = 1, C = 512, H = W = 28", "33,312", "32,768", "512"]
    formulas = part(site, "cost").select("div.arithmatex math")
    assert [formula.get_text().partition("=")[0] for formula in formulas] == ["Parameters", "Multiply-adds"]
    note = part(site, "cost").get_text()
    assert "In every row: r = 16." in note
    assert "softmax, normalisation and element-wise operations are not counted" in note
    assert "不计池化" in part(site, "cost", "zh/deep/all").get_text()


def test_proofs(site: SmallAtlas) -> None:
    proofs = part(site, "proofs")
    head, first, more, second = table(proofs)
    assert head == ["Statement", "Measured", "Limit"]
    assert first[0].endswith("test_ halves")
    assert first[1:] == ["max |Δ| = 2e-16", "≤ 1e-10"]
    assert more == ["change = 8.2", "> 0.1"]  # what must be there, beside the same statement
    assert [name.get("rowspan") for name in proofs.select("tbody th")] == ["2", None]
    assert second == ["ResNet-50 test_ counts", "28,071,976", "= 28,071,976"]
    assert proofs.em is not None
    assert proofs.em.text == "halve"
    assert proofs.math is not None
    assert "torch 2.13.0 on 2026-11-21: 20 tests in 4.2 s." in proofs.get_text()
    assert proofs.pre is not None
    assert proofs.pre.get_text().strip() == "pytest tests/attention_domain/channel/test_senet.py"
    assert links(proofs) == [("How it is proved", "../../how-it-is-proved/")]


def test_figure_and_diagram(site: SmallAtlas) -> None:
    svg = part(site, "figure").svg
    assert svg is not None
    assert svg["role"] == "img"
    assert str(svg["aria-label"]).startswith("SENet: figure")
    zh = part(site, "figure", "zh/deep/all").svg
    assert zh is not None
    assert str(zh["aria-label"]).startswith("SENet：")
    assert "learned weights" in part(site, "diagram").svg.text
    assert "可学习的权重" in part(site, "diagram", "zh/deep/all").svg.text


def test_figure_without_a_mechanism(site: SmallAtlas) -> None:
    for prefix, label in (("", "Figure drawn"), ("zh/", "运行代码绘制的图")):
        (svg,) = page(site, f"{prefix}deep/overview").select(".atlas-figure > svg")
        assert str(svg["aria-label"]).startswith(label)
        assert [text.get_text() for text in svg.select("text")][:2] == ["senet", "toy"]


def test_growth(site: SmallAtlas) -> None:
    growth = part(site, "growth")
    head, senet, toy = table(growth)
    assert head[2:] == ["Time · at N = 1,024", "Memory · at N = 1,024"]
    assert [senet[0], *senet[2:]] == ["SENet", "N 0.50 · 1.2 ms", "N 1.00 · 2.0 MB"]
    assert toy == ["Toy △ reconstruction", "O ( C )", "N 2.00 · 16.0 ms", "N 2.00 · 16.0 MB"]
    assert "float32, torch 2.13.0, threads: 1, on a machine with 2 cores, 2026-11-21" in growth.get_text()
    assert "from N = 256 on. To measure again: python -m benchmarks.growth." in growth.get_text()
    assert "时间取 9 轮中最快一轮的处理器时间" in part(site, "growth", "zh/deep/all").get_text()


def test_blocks(site: SmallAtlas) -> None:
    head, senet, toy = table(part(site, "blocks"))
    assert head == [
        "Block",
        "Parameters",
        "14 × 14",
        "32 × 32",
        "Weights",
        "Sees layout",
        "One sample",
        "Other sizes",
    ]
    assert senet == ["SENet", "8,464", "0.00819", "0.00819", "256", "no", "yes", "yes"]
    assert toy[:2] == ["Toy △ reconstruction", "0"]
    assert part(site, "blocks").p.get_text() == (
        "Counted with the defaults of the class; where more is needed, as Toy()."
    )
    assert table(part(site, "blocks", "zh/deep/all"))[1][5:] == ["否", "是", "是"]


def test_start(site: SmallAtlas) -> None:
    assert table(part(site, "start")) == [
        ["Block", "Factor", "Biases that open it"],
        ["SENet", "0.50", "excitation.2.bias"],
    ]


def test_bibtex(site: SmallAtlas) -> None:
    entry = part(site, "bibtex").select_one("pre > code")
    assert entry is not None
    assert entry.text.startswith("@article{b2020,\n")
    assert "title   = {A < B}," in entry.text


def test_members(site: SmallAtlas) -> None:
    head, senet, toy = table(part(site, "members"))
    assert head[:5] == ["Mechanism", "Weights", "Chapter", "Year", "Shape of g(x)"]
    assert senet[:4] == ["SENet Scales each map.", "soft", "gates", "2018"]
    assert toy == [
        "Toy △ reconstruction Keeps or drops a channel.",
        "hard",
        "sparse selection",
        "2020",
        "(B, C, 1, 1)",
        "O ( C )",
    ]
    zh = part(site, "members", "zh/deep/all")
    assert table(zh)[2][0] == "玩具 △ 重构 保留或丢弃一个通道。"
    assert zh.select_one("th .math, th math") is not None  # the formula of the summary


def test_neighbours(site: SmallAtlas) -> None:
    nav = part(site, "neighbours")
    assert [name.text for name in nav.select("p")] == ["Related", "Overviews: soft, channel"]
    toy, channel = links(nav)
    assert toy == ("Toy", "../../weight-assignment/hard/toy/")
    assert channel == ("channel", "../../attention-domain/channel/")
    (item,) = nav.select("li")
    assert item.get_text() == "Toy\u00a0△ reconstruction hard\u00a0× channel"


def test_neighbours_at_the_same_place_of_the_taxonomy() -> None:
    subject = CATALOGUE["criss_cross"]
    nav = BeautifulSoup(neighbours(subject.slug, ENGLISH), "html.parser")
    assert [name.get_text() for name in nav.select("p")][:2] == ["Related", "Also self\u00a0× spatial"]
    related, alike = ([item.get_text() for item in group.select("a")] for group in nav.select("ul"))
    assert len(related) == len(subject.related)
    assert "Non-local block" in related + alike
    assert len(set(related + alike)) == len(related + alike)
    assert not any("CCNet" in name for name in related + alike)


def test_matrix(site: SmallAtlas) -> None:
    matrix = part(site, "matrix", "")
    head, *rows = table(matrix)
    assert head == ["", "soft", "hard", "self"]
    cells = {row[0]: row[1:] for row in rows}
    assert cells == {"channel": ["SENet ¶ </>", "Toy ≈ △ reconstruction", "–"]}  # no row without mechanisms
    marks = matrix.select_one("li .atlas-marks").select("[role=img]")
    assert [mark["aria-label"] for mark in marks] == ["paper", "released code"]
    legend = "Marks of evidence: ¶ paper </> released code ≈ secondary accounts △ reconstruction"
    assert matrix.select("p")[-1].get_text() == legend
    assert {cell["aria-label"] for cell in matrix.select("td.atlas-empty")} == {"no mechanism"}
    assert links(matrix)[-2] == ("Plain", "foundations/plain/")
    assert links(matrix)[-1][1] == "how-it-is-proved/#evidence"
    assert links(part(site, "matrix", "zh"))[-2] == ("平均", "foundations/plain/")


def test_comparison_is_a_plain_table(site: SmallAtlas) -> None:
    comparison = part(site, "comparison")
    channel, senet, toy, foundations, plain = table(comparison)[1:]
    assert channel == ["channel"]
    assert senet[:4] == ["SENet", "soft", "channel gates", "2018"]
    assert toy[:4] == ["Toy △ reconstruction", "hard", "channel sparse selection", "2020"]
    assert foundations == ["Foundations"]
    assert plain[:8] == [
        "Plain",
        "–",
        "the formula",
        "2020",
        "512",
        "131 k",
        "B = 1, T = 256, E = 512",
        "¶ paper",
    ]
    assert not comparison.select("table :is(button, input, select)")
    assert [cell["data-sort"] for cell in comparison.select("td[data-sort]")][-1] == "131072"


def test_evidence(site: SmallAtlas) -> None:
    head, *rows = table(part(site, "evidence", "how-it-is-proved"))
    assert head == ["Evidence", "What was done", "Modules"]
    assert [(row[0], row[2]) for row in rows] == [
        ("¶ paper", "2"),
        ("</> released code", "1"),
        ("≈ secondary accounts", "1: Toy"),
        ("△ reconstruction", "1: Toy"),
    ]
    zh = table(part(site, "evidence", "zh/how-it-is-proved"))
    assert zh[-1] == ["△ 重构", "能读到的资料留有空缺，由本模块自行补上，页面上说明了在哪里。", "1： 玩具"]


def test_a_link_to_a_reconstruction_says_so(site: SmallAtlas) -> None:
    """In running text and in tables, with a link to what it means; in the plain copies too."""
    text = page(site, "foundations").select_one("h1 + p, h1 ~ * p")
    assert text.get_text() == "The start, and a toy\u00a0△\u00a0reconstruction."
    assert links(text)[1][1] == "../how-it-is-proved/#evidence"
    (cell,) = page(site, "zh/foundations").select("td")
    assert cell.get_text() == "玩具\u00a0△\u00a0重构"
    plain = {
        prefix: (site.root / "site" / prefix / "foundations/index.md").read_text() for prefix in ("", "zh")
    }
    assert "[a toy](../weight-assignment/hard/toy.md) (reconstruction)." in plain[""]
    assert "| [玩具](../weight-assignment/hard/toy.md)（重构） |" in plain["zh"]


def test_plain_copies_name_the_evidence(site: SmallAtlas) -> None:
    text = (site.root / "site/deep/all.md").read_text(encoding="utf-8")
    assert "- **Evidence:** [paper, released code](../how-it-is-proved.md)\n" in text
    assert "| [SENet](../attention-domain/channel/senet.md) | soft | channel gates | 2018 |" in text
    assert "| paper, released code | $" in text
    assert "Filter by name" not in text
    zh = (site.root / "site/zh/deep/all.md").read_text(encoding="utf-8")
    assert "- **依据：** [论文、发布的代码](../how-it-is-proved.md)\n" in zh
    assert "| 论文、发布的代码 | $" in zh
    home = (site.root / "site/index.md").read_text(encoding="utf-8")
    assert "[Toy](weight-assignment/hard/toy.md) (secondary accounts, reconstruction) |" in home


def test_bibliography(site: SmallAtlas) -> None:
    assert page(site, "bibliography").select_one("#ref-hu2018senet") is not None


UNKNOWN = "unknown fence '{}', neither a part nor a language; did you mean '{}'?"

REFUSED = [
    ("card", "senett", "unknown mechanism 'senett'; did you mean 'senet'?"),
    ("figure", "toy", "figure of toy: figures/weight_assignment/hard/toy.py is missing"),
    (
        "figure",
        "attention_domain/channel/indx",
        "unknown figure 'attention_domain/channel/indx'; did you mean 'attention_domain/channel/index'?",
    ),
    ("growth", "attention_domain/channel/senet", "figures/attention_domain/channel/senet.json is missing"),
    ("start", "gates", "unknown start 'gates'; did you mean 'gate'?"),
    ("members", "chanel", "unknown value of an axis 'chanel'; did you mean 'channel'?"),
    ("bibtex", "b2021", "unknown citation key 'b2021'; did you mean 'b2020'?"),
    ("proofs", "senet\ntest_halve: x", "unknown proof of senet 'test_halve'; did you mean 'test_halves'?"),
    ("proofs", "senet\ntest_halves", "expected 'test_name: statement', not 'test_halves'"),
    ("proofs", "toy", "docs/proofs.json holds no proofs of toy"),
]


@pytest.mark.parametrize(("name", "body", "message"), REFUSED)
def test_a_mistake_stops_the_build_in_words(
    site: SmallAtlas, tmp_path: Path, name: str, body: str, message: str
) -> None:
    atlas = SmallAtlas(tmp_path / "atlas")
    shutil.copytree(site.root, atlas.root)
    atlas.write("docs/en/mistake.md", "# Mistake\n\n" + fence(name, body))
    built = atlas.build()
    assert built.returncode != 0
    assert message in built.stderr
    assert "Traceback" not in built.stderr
    assert re.search(r"docs/en/mistake\.md:\d+", built.stderr)


def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    """Return the HTML of a page `docs/en/page.md`."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "DOCS", tmp_path / "docs")
    (tmp_path / "docs/en").mkdir(parents=True)
    (tmp_path / "docs/en/page.md").write_text(text, encoding="utf-8")
    extensions = ["admonition", "attr_list", "sitekit.markdown.extension"]
    return str(Markdown(extensions=extensions).convert(text))


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("```costs\nsenet\n```", 1, UNKNOWN.format("costs", "cost")),
        ("A cost\n\n~~~ pyhton\n1\n~~~", 3, UNKNOWN.format("pyhton", "python")),
        ("- costs\n\n    ```costs\n    senet\n    ```", 3, UNKNOWN.format("costs", "cost")),
        ('!!! note\n\n    ```pyhton title="x"\n    1\n    ```', 3, UNKNOWN.format("pyhton", "python")),
        ("> ```costs\n> senet\n> ```", 1, UNKNOWN.format("costs", "cost")),
        ("``` { .costs .no-copy }\n1\n```", 1, UNKNOWN.format("costs", "cost")),
        (
            "```mermaid\n1\n```",
            1,
            "unknown fence 'mermaid', neither a part nor a language; parts: bibliography, ",
        ),
        ("```cost senet\n```", 1, "the fence 'cost' takes no options"),
        ("A cost\n\n```cost: senet\n```", 3, "the fence '```cost: senet' is not closed, or not understood"),
        ("A cost\n\n- item\n\n    ```cost\n    senet\n", 5, "the fence '```cost' is not closed"),
    ],
)
def test_an_unknown_fence_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: int, message: str
) -> None:
    with pytest.raises(BuildError) as error:
        converted(tmp_path, monkeypatch, text)
    assert str(error.value).startswith(f"docs/en/page.md:{line}: {message}")


def test_an_unknown_fence_of_a_notebook_is_found_in_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = tmp_path / "docs/en/notebooks/first.py"
    notebook.parent.mkdir(parents=True)
    notebook.write_text("# %% [markdown]\n# Costs:\n#\n# ```costs\n# senet\n# ```\n", encoding="utf-8")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "DOCS", tmp_path / "docs")
    with pytest.raises(BuildError, match=r"^docs/en/notebooks/first.py:4: unknown fence 'costs'"):
        Markdown(extensions=["sitekit.markdown.extension"]).convert("Costs:\n\n```costs\nsenet\n```")


@pytest.mark.parametrize(
    ("opening", "language"),
    [
        ("```", "text"),
        ("```Python", "Python"),
        ('```py title="a.py" hl_lines="1"', "py"),
        ("``` { .text .atlas-output .no-copy }", "text"),
    ],
)
def test_code_in_a_known_language_is_highlighted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opening: str, language: str
) -> None:
    html = BeautifulSoup(converted(tmp_path, monkeypatch, f"{opening}\n```costs\n```"), "html.parser")
    assert html.select_one("pre > code").text.strip() == "```costs"


def test_every_file_of_parts_is_one_part() -> None:
    assert set(PARTS) == {file.stem for file in (ROOT / "sitekit/parts").glob("[!_]*.py")}


@pytest.fixture(scope="module")
def address(site: SmallAtlas) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(site.root / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found")
def test_comparison_sorts_and_filters(address: str) -> None:
    script = ROOT / "overrides/assets/javascripts/comparison.js"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        errors: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(f"{address}/deep/all/")
        tab.add_script_tag(path=script)
        table = tab.locator(".atlas-comparison table")

        def shown() -> list[str]:
            return table.locator("tr[data-slug]:visible th > a").all_inner_texts()

        wait_for(["SENet", "Toy", "Plain"], shown)
        parameters = table.get_by_role("columnheader", name="Parameters", exact=True)
        parameters.get_by_role("button").click()
        wait_for(["Toy", "SENet", "Plain"], shown)  # foundations stay apart
        wait_for("ascending", lambda: parameters.get_attribute("aria-sort"))
        parameters.get_by_role("button").press("Enter")
        wait_for(["SENet", "Toy", "Plain"], shown)
        wait_for("descending", lambda: parameters.get_attribute("aria-sort"))
        table.get_by_role("columnheader", name="Mechanism").get_by_role("button").click()
        wait_for(None, lambda: parameters.get_attribute("aria-sort"))
        wait_for(["SENet", "Toy", "Plain"], shown)

        tab.locator("select[name=weights]").select_option("soft")
        wait_for(["SENet"], shown)
        wait_for("1 of 3 shown", tab.locator(".atlas-filter output").inner_text)
        tab.locator("select[name=weights]").select_option("")
        tab.locator("select[name=chapter]").select_option("sparse selection")
        wait_for(["Toy"], shown)
        tab.locator("select[name=chapter]").select_option("")
        wait_for(["SENet", "Toy", "Plain"], shown)
        tab.locator("select[name=evidence]").select_option("paper")
        wait_for(["SENet", "Plain"], shown)
        tab.locator("select[name=evidence]").select_option("reconstruction")
        wait_for(["Toy"], shown)
        tab.locator("select[name=evidence]").select_option("")
        tab.get_by_label("Filter by name").fill("激励")
        wait_for(["SENet"], shown)
        tab.get_by_label("Filter by name").fill("nothing")
        wait_for([], shown)
        assert errors == []
        browser.close()


def test_an_error_of_any_kind_stops_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Superfences swallows all but its own, and the page would show the source of the block."""

    def broken(body: str, language: Language) -> str:
        raise KeyError(body)

    monkeypatch.setitem(PARTS, "matrix", broken)
    with pytest.raises(BuildError, match=r"^docs/en/page.md:3: matrix failed: KeyError: ''$"):
        converted(tmp_path, monkeypatch, "A matrix\n\n```matrix\n```")


def test_where_the_addresses_of_site_and_repository_are_known_links_lead_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = small_atlas.create(tmp_path)
    for language in ("en", "zh"):
        atlas.write(f"docs/{language}/deep/all.md", "# All\n\n" + fence("proofs", FENCES["proofs"]))
    monkeypatch.setenv("SITE_URL", "https://atlas.example/")
    monkeypatch.setenv("REPO_URL", "https://code.example/atlas")
    built = atlas.build("en")
    assert built.returncode == 0, built.stderr
    assert links(part(atlas, "proofs"))[0] == (
        "The test file",
        "https://code.example/atlas/blob/main/tests/attention_domain/channel/test_senet.py",
    )
    text = (atlas.root / "site/deep/all.md").read_text(encoding="utf-8")
    assert text.startswith("# All\n\n<https://atlas.example/deep/all/>\n\n|")
    assert "[How it is proved](https://atlas.example/how-it-is-proved.md)" in text
    assert "](https://atlas.example/deep/all.md)" in (atlas.root / "site/llms.txt").read_text("utf-8")
