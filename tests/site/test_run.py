"""Running snippets at build: what is computed when, and how errors read."""

import json
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from figures.style import COLORS, new_figure, picture, show_weights
from sitekit import figure
from sitekit.errors import BuildError
from tests.site import small_atlas
from tests.site.small_atlas import (
    CATALOGUE,
    FIGURE,
    HELPER,
    OVERVIEW,
    OVERVIEW_DATA,
    OVERVIEW_FIGURE,
    PLAIN,
    STYLE,
    TOY,
    SmallAtlas,
)

SENET = "snippets/attention_domain/channel/senet.py"
SENET_FIGURE = "figure of attention_domain/channel/senet"
OVERVIEWS = f"figure of {OVERVIEW}"
COSTS = {"cost of senet", "cost of toy", "cost of plain"}
DIAGRAMS = {"diagram of senet", "diagram of toy", "diagram of plain"}
BLOCKS = {"block of senet", "block of toy", "block of plain"}
FIGURES = {SENET_FIGURE, OVERVIEWS}
FACES = {"face of text", "face of bold", "face of italic", "face of heading"}
FONTS = {"font of math"} | FACES
EVERYTHING = COSTS | BLOCKS | DIAGRAMS | FIGURES | FONTS


def progress(printed: list[str]) -> set[str]:
    """What printed lines name; they are numbered as they end, in whatever order."""
    found = [re.fullmatch(r"\[(\d+)/(\d+)\] (\w+ of \S+)  \d+\.\d s", line) for line in printed]
    assert all(found), printed
    assert [match[1] for match in found if match] == [str(number + 1) for number in range(len(printed))]
    assert {match[2] for match in found if match} <= {str(len(printed))}
    return {match[3] for match in found if match}


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> SmallAtlas:
    """An atlas that has been asked for results once; not to be changed."""
    atlas = small_atlas.create(tmp_path_factory.mktemp("computed"))
    answer = atlas.results()
    assert not answer.errors
    assert progress(answer.printed) == EVERYTHING
    return atlas


@pytest.fixture
def atlas(computed: SmallAtlas, tmp_path: Path) -> SmallAtlas:
    """A copy of the computed atlas, cache included."""
    root = tmp_path / "atlas"
    shutil.copytree(computed.root, root)
    return SmallAtlas(root)


def test_nothing_runs_when_nothing_changed(computed: SmallAtlas) -> None:
    answer = computed.results("r.parameters_tex", "r.inputs", "r.attention", "r.rows[0].parameters")
    assert answer.printed == []
    assert answer.heavy == []
    assert answer.values["senet"] == [
        r"\frac{2 C^{2}}{r} + C + \frac{C}{r}",
        ["(B, C, H, W)"],
        ["(B, C, 1, 1)"],
        580,
    ]
    assert answer.values["plain"][1:3] == [["(B, T, E)"], ["(B, T, 1)"]]


def test_counts_are_those_of_the_sizes(computed: SmallAtlas) -> None:
    (rows,) = computed.results("[(row.sizes, row.macs, row.weights) for row in r.rows]").values["plain"]
    assert rows[0] == [{"B": 2, "T": 3, "E": 5}, 2 * 3 * 5, 2 * 3]
    assert rows[1:] == [[{"B": 1, "T": T, "E": 512}, T * 512, T] for T in (16, 64, 256)]


@pytest.mark.parametrize(
    ("path", "old", "new", "stale"),
    [
        (SENET, "def attention", "# a comment\n    def attention", set()),
        (
            SENET,
            "nn.ReLU(",
            "nn.SiLU(",
            {"cost of senet", "block of senet", "diagram of senet", SENET_FIGURE},
        ),
        (FIGURE, '"channel"', '"unit"', {SENET_FIGURE}),
        (STYLE, "FIGURE_WIDTH = 4.1", "FIGURE_WIDTH = 7.0", FIGURES),
        (OVERVIEW_FIGURE, "axes.bar", "axes.barh", {OVERVIEWS}),
        (OVERVIEW_DATA, "1.25", "1.5", {OVERVIEWS}),
        (HELPER, "0", "1", {"cost of toy", "block of toy", "diagram of toy", OVERVIEWS}),
        (CATALOGUE, "Toy()", "Toy( )", {"block of toy"}),
        (CATALOGUE, '"B*T*E"', '"E*B*T"', {"cost of plain"}),
        (CATALOGUE, "O(T E)", "O(E T)", set()),
        ("sitekit/cost.py", "WIDTH, HEADS = 512", "WIDTH, HEADS = 256", COSTS | BLOCKS),
        ("sitekit/diagram/shapes.py", "ROUND, ARROW = 6.0", "ROUND, ARROW = 5.0", DIAGRAMS),
        ("sitekit/svg.py", "quality=85", "quality=80", FIGURES),
        ("sitekit/mathfont.py", '"√": 1.0', '"√": 1.1', {"font of math"}),
        ("sitekit/textfont.py", '"opsz": 32', '"opsz": 24', FACES),
        ("sitekit/webfont.py", "hinting = False", "hinting = True", FONTS),
        ("sitekit/labels.py", '"复杂度"', '"复杂性"', set()),
        ("sitekit/errors.py", "class BuildError", "NUMBER = 1\n\n\nclass BuildError", set()),
        ("sitekit/entries.py", "UNFINISHED = 3600.0", "UNFINISHED = 360.0", set()),
        ("sitekit/__init__.py", '"""', '"""Now ', set()),
    ],
)
def test_what_makes_results_stale(atlas: SmallAtlas, path: str, old: str, new: str, stale: set[str]) -> None:
    """A colour of the diagrams trains nothing, a comment makes nothing stale."""
    before = atlas.keys()
    text = (atlas.root / path).read_text(encoding="utf-8")
    assert old in text
    atlas.write(path, text.replace(old, new, 1))
    after = atlas.keys()
    assert {name for name in before if before[name] != after[name]} == stale


def test_only_stale_mechanisms_run(atlas: SmallAtlas) -> None:
    atlas.replace(PLAIN, "width, 1, bias=False", "width, 1, bias=True")
    atlas.replace(CATALOGUE, '"E", "B*T*E"', '"E + 1", "B*T*E"')
    answer = atlas.results("r.rows[0].parameters")
    assert answer.values == {"senet": [580], "toy": [0], "plain": [6]}
    assert progress(answer.printed) == {"cost of plain", "block of plain", "diagram of plain"}


def test_errors_name_mechanism_file_and_line(atlas: SmallAtlas) -> None:
    """Two figures, a snippet and a formula are wrong at once: one line each, and no traceback."""
    atlas.replace(FIGURE, "    return figure\n", "    return figure.gone\n")
    atlas.replace(TOY, "return self.attention(x) * x", "return x / (1 // 0)")
    atlas.replace(CATALOGUE, '"B*T*E"', '"B*T*E + 1"')
    atlas.replace(OVERVIEW_FIGURE, '["blocks"]', '["block"]')
    answer = atlas.results()
    line = {path: (atlas.root / path).read_text().split(old)[0].count("\n") + 1 for path, old in {
        FIGURE: "return figure.gone", OVERVIEW_FIGURE: '["block"]',
        TOY: "1 // 0", CATALOGUE: '"B*T*E + 1"'}.items()}  # fmt: skip
    broken = f"{TOY}:{line[TOY]}: ZeroDivisionError: integer division or modulo by zero"
    expected = {
        SENET_FIGURE: f"{FIGURE}:{line[FIGURE]}: AttributeError: 'Figure' object has no attribute 'gone'",
        "cost of toy": broken,
        "block of toy": broken,
        "diagram of toy": f"no diagram of Toy: {broken}",
        "cost of plain": f"{CATALOGUE}:{line[CATALOGUE]}: the macs formula 'B*T*E + 1' gives 31"
        " at B=2, T=3, E=5, counted 30",
        OVERVIEWS: f"{OVERVIEW_FIGURE}:{line[OVERVIEW_FIGURE]}: KeyError: 'block'",
    }
    assert answer.errors == {name: f"{name}: {message}" for name, message in expected.items()}
    assert progress(answer.printed) == set(expected)


def test_formulas_that_hold_by_accident_are_refused(atlas: SmallAtlas) -> None:
    """At all sizes of the table r is 16, so only doubling r by itself tells r from 16."""
    atlas.replace(CATALOGUE, '"2*C**2/r + C/r + C"', '"2*C**2/16 + C/r + C"')
    atlas.replace(CATALOGUE, '"B*T*E"', '"B*T*e"')
    answer = atlas.results()
    assert "the parameters formula '2*C**2/16 + C/r + C' gives 578 at" in answer.errors["cost of senet"]
    assert "r=32, counted 322" in answer.errors["cost of senet"]
    assert "cannot read the macs formula 'B*T*e' with the symbols B, T, E" in answer.errors["cost of plain"]


def test_a_worker_that_dies_is_reported(atlas: SmallAtlas) -> None:
    atlas.replace(TOY, "return self.attention(x) * x", "import os; os._exit(7)")
    errors = atlas.results().errors
    assert "cost of toy" in errors
    assert errors == {name: f"{name}: a process ended before this was done" for name in errors}


def test_a_worker_whose_asker_has_ended_says_nothing(atlas: SmallAtlas) -> None:
    command = [sys.executable, "-m", "sitekit.worker", json.dumps([["cost", "plain"]])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    worker = subprocess.Popen(command, cwd=atlas.root, env=atlas.environment(), **pipes)
    assert worker.stdout
    assert worker.stderr
    worker.stdout.close()
    assert b"Traceback" not in worker.stderr.read()
    assert worker.wait() == 1


def test_a_dead_command_is_reported(atlas: SmallAtlas) -> None:
    shutil.rmtree(atlas.root / ".sitecache")
    atlas.replace("sitekit/worker.py", "    main(json.loads(sys.argv[1]))", "    sys.exit(7)")
    assert atlas.results().errors == {
        name: f"{name}: sitekit.worker ended with exit status 7" for name in EVERYTHING
    }


def drawing() -> Figure:
    drawn, (left, right) = new_figure(1, 2)
    left.plot([0, 1, 0], color=COLORS[0])
    left.plot([1, 0, 1], color="black")
    left.set_xlabel("$x_t$")
    show_weights(right, picture(size=(6, 8))[0, 0], over=picture(size=(96, 128)))
    return drawn


def test_svg_is_the_same_each_time_and_has_ids_of_its_own() -> None:
    first, again, other = (figure.to_svg(drawing(), name) for name in ("a", "a", "b"))
    assert first == again
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', first)) <= {(name, "") for name in ids[0]} | {
        ("", name) for name in ids[0]
    }


def test_svg_suits_the_page() -> None:
    svg = figure.to_svg(drawing(), "a")
    assert svg.startswith("<svg ")
    assert 'role="img"' in svg
    assert "stroke: currentColor" in svg
    assert COLORS[0] in svg
    assert "image/jpeg" in svg  # the photograph
    assert "image/png" in svg  # the weights stay exact
    assert "image-rendering" in svg
    for unwanted in ("#000000", "<style", "<metadata", "DejaVu", "xlink", "<?xml"):
        assert unwanted not in svg


def test_a_large_figure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure, "LIMIT", 1000)
    with pytest.raises(BuildError, match=r"has [\d,]+ bytes, at most 1,000"):
        figure.to_svg(drawing(), "a")


def test_colors_are_readable_on_light_and_dark_pages() -> None:
    palette = (small_atlas.ROOT / "styles/palette.css").read_text()
    backgrounds = re.findall(r"--atlas-(?:paper|surface): (#[0-9a-f]{6})", palette)
    assert len(backgrounds) >= 4
    for color, background in product(COLORS, backgrounds):
        lighter, darker = sorted((luminance(color), luminance(background)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 3, (color, background)


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2."""
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
