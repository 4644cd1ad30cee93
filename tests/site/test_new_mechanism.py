"""A mechanism is added in five steps: module, proof, figure, two pages and a row, with a citation."""

import re
import shutil
from pathlib import Path

import pytest
from bs4 import BeautifulSoup, Tag

from tests.site import small_atlas
from tests.site.small_atlas import CATALOGUE, RECALL_FILES, SmallAtlas

OTHERS = (
    "tests/attention_domain/channel/test_senet.py",
    "tests/weight_assignment/hard/test_toy.py",
    "tests/foundations/test_plain.py",
    "figures/weight_assignment/hard/toy.py",
    "figures/foundations/plain.py",
)
FENCES = {"card": "recall", "comparison": "", "matrix": "", "members": "set"}


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> SmallAtlas:
    """A small atlas, complete, with one more mechanism, built in both languages."""
    atlas = small_atlas.create(tmp_path_factory.mktemp("atlas"))
    for path in OTHERS:
        atlas.write(path, "")
    for language in ("en", "zh"):
        atlas.replace(f"mkdocs.{language}.yml", "hooks: [", "hooks: [sitekit/hooks/complete.py, ")
    atlas.add_recall()
    page = "".join(f"```{name}\n{body}\n```\n\n" for name, body in FENCES.items())
    for language in ("en", "zh"):
        atlas.write(f"docs/{language}/all.md", f"# All\n\n{page}")
        built = atlas.build(language)
        assert built.returncode == 0, built.stderr
    return atlas


def part(atlas: SmallAtlas, name: str, path: str = "all") -> Tag:
    text = (Path(atlas.root) / "site" / path / "index.html").read_text(encoding="utf-8")
    found = BeautifulSoup(text, "html.parser").select_one(f".atlas-{name}")
    assert found is not None
    return found


def test_a_domain_appears_with_its_first_mechanism(atlas: SmallAtlas) -> None:
    rows = [row.get_text(" ", strip=True) for row in part(atlas, "matrix").select("tbody tr")]
    assert [row.split()[0] for row in rows] == ["channel", "set"]
    assert "集合" in part(atlas, "matrix", "zh/all").get_text()
    assert "集合" in [option.get_text() for option in part(atlas, "comparison", "zh/all").select("option")]
    assert [name.get_text() for name in part(atlas, "members").select("tbody th a")] == ["Recall"]


def test_what_a_decoder_keeps_stands_in_card_and_comparison(atlas: SmallAtlas) -> None:
    card, comparison = part(atlas, "card"), part(atlas, "comparison")
    assert "E per token, 2E per sequence" in card.get_text().replace("\u2062", "").replace("\u2009", "")
    heads = [head.get_text() for head in comparison.select("thead th")]
    column = heads.index("Kept by a decoder")
    kept = [row.find_all(["th", "td"])[column] for row in comparison.select("tbody tr:not(.atlas-group)")]
    assert [cell["data-value"] for cell in kept] == ["", "", "grows", ""]
    choices = comparison.select("select[name=state] option")
    assert [choice.get_text() for choice in choices] == ["all", "grows with each token", "of fixed size"]


@pytest.fixture
def copy(atlas: SmallAtlas, tmp_path: Path) -> SmallAtlas:
    """A copy, to take something from."""
    shutil.copytree(atlas.root, tmp_path / "atlas")
    return SmallAtlas(tmp_path / "atlas")


@pytest.mark.parametrize("command", ["build", "check"])
def test_all_that_is_missing_is_said_at_once_and_first(copy: SmallAtlas, command: str) -> None:
    for path in RECALL_FILES:
        (copy.root / path).unlink()
    copy.replace(CATALOGUE, 'citation="c2021"', 'citation="c2022"')
    done = copy.build() if command == "build" else copy.python("-m", "sitekit.check", "Recall")
    assert done.returncode == 1
    lacking = f"recall lacks {', '.join(RECALL_FILES)}, c2022 in docs/references.bib"
    assert done.stderr.removeprefix("Error: ").strip() == lacking


@pytest.mark.parametrize("path", RECALL_FILES)
def test_one_missing_file_is_named(copy: SmallAtlas, path: str) -> None:
    (copy.root / path).unlink()
    done = copy.python("-m", "sitekit.check", "recall")
    assert (done.returncode, done.stderr) == (1, f"recall lacks {path}\n")


def test_a_module_without_a_row_is_named(copy: SmallAtlas) -> None:
    module = next(iter(RECALL_FILES))
    copy.write(module.replace("recall", "other"), RECALL_FILES[module])
    done = copy.build()
    lacking = "Error: snippets/catalogue.py lacks a row for snippets/attention_domain/set/other.py\n"
    assert (done.returncode, done.stderr) == (1, lacking)


def test_an_unknown_name_is_one_sentence(copy: SmallAtlas) -> None:
    done = copy.python("-m", "sitekit.check", "recal")
    assert (done.returncode, done.stderr) == (2, "unknown mechanism 'recal'; did you mean 'recall'?\n")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("chapter=Chapter.GATS", "unknown: chapter=Chapter.GATS,"),
        ("chapter='gats'", "senet: unknown chapter 'gats'; did you mean 'gates'?"),
        ("chapter=", "invalid syntax"),
    ],
)
def test_a_catalogue_that_cannot_be_read_is_one_sentence(
    copy: SmallAtlas, written: str, message: str
) -> None:
    copy.replace(CATALOGUE, "chapter=Chapter.GATES", written)
    done = copy.build()
    assert done.returncode == 1
    place, text = done.stderr.strip().split(": ", 1)
    assert place.startswith("snippets/catalogue.py:")
    assert text == message


COPIED = ("benchmarks", "deploy", "docs", "figures", "sitekit", "snippets", "tests", "pyproject.toml")
ORIGINAL = "attention_domain/channel/senet"
STEPS = (
    f"snippets/{ORIGINAL}.py",
    "tests/attention_domain/channel/test_senet.py",
    f"figures/{ORIGINAL}.py",
    "docs/en/attention-domain/channel/senet.md",
    "docs/zh/attention-domain/channel/senet.md",
)
ROW = """
        Mechanism(
            path="attention_domain/channel/twin",
            title="Twin",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL,
            chapter=Chapter.GATES,
            citation="hu2018senet",
            parameters="2*C**2/r + C/r + C",
            macs="2*B*C**2/r",
            complexity="O(N C + C^2 / r)",
            evidence=(Evidence.PAPER,),
        ),
"""


@pytest.fixture
def grown(tmp_path: Path) -> SmallAtlas:
    """A copy of the whole atlas with one more mechanism: SENet under another name, added in five steps."""
    for name in COPIED:
        source = small_atlas.ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path)
    atlas = SmallAtlas(tmp_path)
    for path in STEPS:
        text = (tmp_path / path).read_text(encoding="utf-8")
        atlas.write(path.replace("senet", "twin"), re.sub(r"(?<!\d)senet", "twin", text))  # not the citation
    catalogue = (tmp_path / CATALOGUE).read_text(encoding="utf-8")
    place = catalogue.index("        Mechanism(\n", catalogue.index(f'"{ORIGINAL}"'))
    atlas.write(CATALOGUE, catalogue[:place] + ROW.lstrip("\n") + catalogue[place:])
    return atlas


def test_five_steps_suffice_for_the_contract(grown: SmallAtlas) -> None:
    """What commands record is made first, the export aside, which needs packages of its own."""
    proof = STEPS[1].replace("senet", "twin")
    recorded = grown.python("-m", "pytest", "-q", "-n", "0", "--record", proof)
    assert recorded.returncode == 0, recorded.stdout
    wanted = "(twin or missing or reading_order or lead_to_one or related or benchmark) and not onnx"
    files = ("tests/contract", "tests/test_benchmarks.py", "tests/test_coverage.py")
    done = grown.python("-m", "pytest", "-q", "-n", "0", "-k", wanted, *files)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 80
