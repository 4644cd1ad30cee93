"""What a reader can move: it runs, is small, and shows what the module computes."""

import gzip
import inspect
import itertools
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, expect
from torch import Tensor

from figures.attention_domain.channel import senet
from figures.attention_domain.channel_spatial import cbam
from figures.attention_domain.spatial import index as spatial
from figures.attention_domain.spatial import non_local
from figures.foundations import masks, position_bias, rotary, structured_masks
from figures.style import Say, english, picture
from figures.weight_assignment.hard import gumbel, luong_local
from figures.weight_assignment.self_attention import (
    delta_rule,
    forgetting,
    grouped_query,
    hopfield,
    kv_cache,
    kv_sharing,
    latent,
    linear,
    multi_head,
    online_softmax,
    ring,
    sink,
    sliding_window,
)
from sitekit import exploration
from sitekit.errors import BuildError
from sitekit.hooks.explorations import PANEL
from sitekit.kinds import explorations
from snippets.foundations.masks import causal
from snippets.weight_assignment.self_attention.kv_sharing import last_of_kind
from snippets.weight_assignment.self_attention.ring import MODES, RingAttention
from tests.site.conftest import PHONE
from tests.site.test_browser import SCHEMES, serious, use
from tests.site.wait import wait_for

SPATIAL = "attention-domain/spatial/"
NON_LOCAL = "attention-domain/spatial/non-local/"
MULTI_HEAD = "weight-assignment/self-attention/multi-head/"
MASKS = "foundations/masks/"
STRUCTURED_MASKS = "foundations/structured-masks/"
POSITION_BIAS = "foundations/position-bias/"
ROTARY = "foundations/rotary/"
SENET = "attention-domain/channel/senet/"
CBAM = "attention-domain/channel-spatial/cbam/"
GUMBEL = "weight-assignment/hard/gumbel/"
GROUPED_QUERY = "weight-assignment/self-attention/grouped-query/"
KV_SHARING = "weight-assignment/self-attention/kv-sharing/"
LATENT = "weight-assignment/self-attention/latent/"
DELTA_RULE = "weight-assignment/self-attention/delta-rule/"
LINEAR = "weight-assignment/self-attention/linear/"
LUONG_LOCAL = "weight-assignment/hard/luong-local/"
SLIDING_WINDOW = "weight-assignment/self-attention/sliding-window/"
KV_CACHE = "weight-assignment/self-attention/kv-cache/"
ONLINE_SOFTMAX = "weight-assignment/self-attention/online-softmax/"
RING = "weight-assignment/self-attention/ring/"
SINK = "weight-assignment/self-attention/sink/"
FORGETTING = "weight-assignment/self-attention/forgetting/"
HOPFIELD = "weight-assignment/self-attention/hopfield/"

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]

each_panel = pytest.mark.parametrize("path", list(explorations()))


@each_panel
def test_it_speaks_the_language_of_the_page(path: str) -> None:
    explore = import_module(f"figures.{path.replace('/', '.')}").explore
    (parameter,) = inspect.signature(explore).parameters.values()
    assert (parameter.name, parameter.annotation, parameter.default) == ("say", Say, english)


@pytest.mark.parametrize("folder", ["", "zh"])
def test_what_a_page_fetches_is_small(site: Path, folder: str) -> None:
    found: list[str] = []
    for page in (site / folder).rglob("*.html"):
        names = PANEL.findall(page.read_text(encoding="utf-8"))
        packed = [(site / folder / "assets" / "panels" / f"{name}.bin").read_bytes() for name in names]
        assert all(map(gzip.decompress, packed))
        assert sum(map(len, packed)) <= exploration.LIMIT, page
        found += names
    assert set(found) == set(explorations())


def test_one_that_is_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exploration, "LIMIT", 1000)
    with pytest.raises(
        BuildError, match=r"^panel \S+/non_local has [\d,]+ bytes, at most 1,000 are allowed$"
    ):
        exploration.make("attention_domain/spatial/non_local", english)


def opened(page: Page, address: str, name: str) -> Locator:
    """Open the panel of a page."""
    page.goto(address + name)
    panel = page.locator(".atlas-panel")
    panel.get_by_role("button").first.click()
    expect(panel.locator("figure").first).to_be_visible()
    return panel


def test_nothing_is_fetched_before_the_first_touch(page: Page, address: str) -> None:
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url.removeprefix(address)))
    page.goto(address + NON_LOCAL, wait_until="networkidle")
    before = len(fetched)
    assert not [name for name in fetched if "/panels/" in name]
    button = page.locator(".atlas-panel button")
    for _ in range(3):
        button.press("Enter")
    expect(page.locator(".atlas-panel canvas").first).to_be_visible()
    scripts = [f"assets/javascripts/panels/{name}.js" for name in ("parts", "query", "read")]
    assert sorted(fetched[before:]) == [*scripts, "assets/panels/attention_domain/spatial/non_local.bin"]


def test_the_figure_stands_where_nothing_can_be_moved(browser: Browser, address: str, site: Path) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(address + NON_LOCAL)
        expect(page.locator(".atlas-figure > svg")).to_be_visible()
        expect(page.locator(".atlas-panel")).to_be_hidden()
    assert "Move the point" not in (site / f"{NON_LOCAL.rstrip('/')}.md").read_text(encoding="utf-8")


def test_the_figure_is_printed(page: Page, address: str) -> None:
    panel, figure = opened(page, address, NON_LOCAL), page.locator(".atlas-figure > svg")
    expect(figure).to_be_hidden()
    page.emulate_media(media="print")
    expect(figure).to_be_visible()
    expect(panel).to_be_hidden()
    page.emulate_media(media="screen")
    panel.get_by_role("button").first.click()
    expect(figure).to_be_visible()


@pytest.mark.parametrize("language", ["", "zh/"])
@pytest.mark.parametrize("name", [SPATIAL, NON_LOCAL, MULTI_HEAD, MASKS, SENET, LUONG_LOCAL])
def test_an_open_panel_is_sound(page: Page, address: str, name: str, language: str) -> None:
    page.set_viewport_size(PHONE)
    opened(page, address, language + name)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for scheme in SCHEMES:
        use(page, scheme)
        assert serious(page, {"runOnly": RULES}) == [], scheme


SHARES = "all => all.map(bar => Number(bar.style.getPropertyValue('--share')))"
COLOURS = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
  return [...data]
}"""


def shown(field: Locator, colours: str = "magma", steps: int = 255) -> Tensor:
    """Return what a canvas shows, in steps of its scale: (H, W); NaN where nothing is."""
    canvas = field.locator("canvas").first
    height, width = (int(canvas.get_attribute(side) or 0) for side in ("height", "width"))
    pixels = np.array(canvas.evaluate(COLOURS), dtype=int).reshape(height, width, 4)
    known = (255 * matplotlib.colormaps[colours](np.arange(256))[:, :3]).round().astype(int)
    distance = np.abs(pixels[..., None, :3] - known).sum(-1)  # (H, W, 256)
    assert (distance.min(-1)[pixels[..., 3] > 0] == 0).all()
    found = torch.from_numpy(distance.argmin(-1)).double() - (255 - steps)
    return found.masked_fill(torch.from_numpy(pixels[..., 3] == 0), torch.nan) / steps


def number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


def top(field: Locator) -> float:
    """Return the number with the last colour, as it is written: two digits."""
    return number(field.locator(".atlas-scale span").last.inner_text())


def same(seen: Tensor, computed: Tensor, written: float, steps: int = 255) -> None:
    """Hold what a canvas shows against what torch computes, and the number with the last colour too.

    A number is rounded to half a step when it is stored and when it is shown.
    """
    most = computed.abs().max().item()
    assert written == pytest.approx(most, rel=0.05)
    torch.testing.assert_close(seen, computed.double() / most, atol=1.01 / steps, rtol=0)


def point(stage: Locator, row: int, column: int, grid: tuple[int, int], touch: bool = False) -> None:
    """Point at the middle of a cell."""
    box = stage.bounding_box()
    assert box
    x, y = (column + 0.5) / grid[1] * box["width"], (row + 0.5) / grid[0] * box["height"]
    stage.tap(position={"x": x, "y": y}) if touch else stage.hover(position={"x": x, "y": y})


def rows_of_non_local() -> list[Tensor]:
    x = non_local.features(picture("astronaut", (non_local.GRID, non_local.GRID)))
    return [non_local.block(mode).attention(x)[0].detach() for mode in non_local.titles(english)]


def rows_of_all() -> list[Tensor]:
    return [rows for rows, _ in spatial.maps(picture("coffee", spatial.GRID), english).values()]


@pytest.mark.parametrize("touch", [False, True])
@pytest.mark.parametrize(
    ("name", "rows", "grid", "root"),
    [
        (NON_LOCAL, rows_of_non_local, (non_local.GRID, non_local.GRID), False),
        (SPATIAL, rows_of_all, spatial.GRID, True),
    ],
)
def test_a_row_is_that_of_the_point(
    browser: Browser,
    address: str,
    name: str,
    rows: Callable[[], list[Tensor]],
    grid: tuple[int, int],
    root: bool,
    touch: bool,
) -> None:
    with browser.new_context(viewport=PHONE, has_touch=touch) as context:
        panel = opened(context.new_page(), address, name)
        stage, said = panel.get_by_role("application"), panel.locator("output")
        stage.scroll_into_view_if_needed()
        for row, column in ((0, 0), (5, 9), (grid[0] - 1, 3)):
            point(stage, row, column, grid, touch)
            expect(said).to_contain_text(f"Row {row + 1}, column {column + 1}.")
            fields = panel.locator("figure").all()[1:]
            for field, computed in zip(fields, rows(), strict=False):  # the glimpses of RAM are no weights
                signed = bool((computed < 0).any())
                seen = shown(field, "berlin", 127) if signed else shown(field)
                expected = computed[min(row * grid[1] + column, len(computed) - 1)].view_as(seen)
                # A square moves twice as far as its root
                same(seen.square() if root else seen, expected, top(field), 127 if signed or root else 255)
                assert field.locator(".atlas-scale span").last.inner_text() in said.inner_text()


MOVE = """async (stage) => {
  const frame = (act) => new Promise((done) => requestAnimationFrame(() => done(act())))
  const { left, top, width, height } = stage.getBoundingClientRect()
  const spent = []
  for (let place = 0.5; place < 21; place++) {
    const before = frame(() => performance.now())
    const to = { clientX: left + (place / 21) * width, clientY: top + (place / 21) * height }
    stage.dispatchEvent(new PointerEvent("pointermove", to))
    const after = frame(() => performance.now())
    spent.push((await after) - (await before))
  }
  return spent.sort((a, b) => a - b)[10]
}"""
FRAME = 1000 / 60


def test_an_answer_takes_less_than_a_frame_on_a_slow_machine(page: Page, address: str) -> None:
    """The point under all spatial mechanisms, four times slower: the median of its moves."""
    panel = opened(page, address, SPATIAL)
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": 4})
    assert 0 < panel.get_by_role("application").evaluate(MOVE) < FRAME


def test_arrow_keys_move_the_point_and_stop_at_the_edge(page: Page, address: str) -> None:
    panel = opened(page, address, NON_LOCAL)
    stage, said = panel.get_by_role("application"), panel.locator("output")
    page.keyboard.press("Tab")
    expect(stage).to_be_focused()
    assert stage.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    for key, place in (("ArrowUp", "Row 9, column 5."), ("ArrowRight", "Row 9, column 6.")):
        page.keyboard.press(key)
        expect(said).to_contain_text(place)
    for _ in range(non_local.GRID):
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(20)
    expect(said).to_contain_text("Row 9, column 1.")


def test_rows_and_columns_answer(page: Page, address: str) -> None:
    panel = opened(page, address, MULTI_HEAD)
    stage, said = panel.get_by_role("application"), panel.locator("output")
    for head, computed in zip(panel.get_by_role("radio").all(), multi_head.maps(), strict=True):
        head.check()
        same(shown(panel), computed, top(panel))
        for row, column in ((0, 0), (4, 3), (5, 1)):
            point(stage, row, column, (6, 6))
            words = multi_head.WORDS[row], multi_head.WORDS[column]
            expect(said).to_contain_text("{} reads {}: ".format(*words))
            value = number(said.inner_text().rpartition(" ")[2])
            assert value == pytest.approx(computed[row, column].item(), abs=0.006)
            for bars, line in ((".atlas-above", computed[row]), (".atlas-right", computed[:, column])):
                shares = panel.locator(f"{bars} > i").evaluate_all(SHARES)
                assert shares == pytest.approx((line / computed.max()).tolist(), abs=0.003)


def test_a_table_of_a_bias_is_what_equal_tokens_read(page: Page, address: str) -> None:
    panel = opened(page, address, POSITION_BIAS)
    for form, (_, make) in zip(panel.get_by_role("radio").all(), position_bias.FORMS, strict=True):
        form.check()
        same(shown(panel), position_bias.weights(make()), top(panel))


def test_switches_are_masks(page: Page, address: str) -> None:
    panel = opened(page, address, MASKS)
    T = masks.EMPTY + len(masks.WANTED)
    place = torch.arange(T)
    near = (place[:, None] - place).abs() <= masks.WINDOW
    for name, on, allowed in (
        ("padding", False, causal(T, T)),
        ("window ±2", True, causal(T, T) & near),
        ("padding", True, masks.mask() & near),
    ):
        panel.get_by_label(name).set_checked(on)
        wait_for(True, lambda: torch.equal(shown(panel).isnan(), ~allowed[0, 0]))  # noqa: B023
        same(shown(panel).nan_to_num(), masks.weights(allowed), top(panel))


def test_switches_show_more_or_hide_more(page: Page, address: str) -> None:
    panel = opened(page, address, STRUCTURED_MASKS)
    for name, on, choice in (
        ("prefix", True, (True, True, False, True, False)),
        ("documents", False, (True, False, False, True, False)),
        ("picture", True, (True, False, False, True, True)),
        ("chunks", True, (True, False, True, True, True)),
        ("causal", False, (False, False, True, True, True)),
    ):
        panel.get_by_label(name).set_checked(on)
        allowed = structured_masks.allowed(*choice)
        wait_for(True, lambda: torch.equal(shown(panel).isnan(), ~allowed[0, 0]))  # noqa: B023
        same(shown(panel).nan_to_num(), structured_masks.weights(allowed), top(panel))


def test_gates_pass_what_the_module_passes(page: Page, address: str) -> None:
    panel = opened(page, address, SENET)
    x, block = senet.edges(senet.pictures()), senet.block()
    gates, top = block.attention(x).detach(), x.quantile(0.98)
    for picture_of, name in enumerate(("wall", "turned", "grass")):
        panel.get_by_label(name, exact=True).check()
        for c, switch in enumerate(panel.get_by_role("switch").all()):
            for on, gate in ((False, torch.tensor(1.0)), (True, gates[picture_of, c, 0, 0])):
                switch.set_checked(on)
                seen = shown(panel.locator(".atlas-fields figure").nth(c + 1), "gray")
                passed = (gate * x[picture_of, c] / top).clamp(max=1).double()
                torch.testing.assert_close(
                    seen, passed, atol=1.01 / 255, rtol=0
                )  # rounded to store and to show
                written = number(panel.locator("label output").nth(c).inner_text())
                assert written == pytest.approx(gate.item(), rel=0.05)


def test_both_gates_pass_what_the_block_passes(page: Page, address: str) -> None:
    panel = opened(page, address, CBAM)
    network, pictures = cbam.trained()
    with torch.no_grad():
        x = network.stem(pictures[: cbam.COLUMNS])
        passed, most = network.cbam(x).mean(dim=1), x.mean(dim=1).max()
    for number_of, choice in enumerate(panel.get_by_role("radio").all()):
        choice.check()
        seen = shown(panel.locator("figure").last).square()
        torch.testing.assert_close(seen, (passed[number_of] / most).double(), atol=2 / 255, rtol=0)


def test_a_draw_reads_what_its_weights_say(page: Page, address: str) -> None:
    panel = opened(page, address, GUMBEL)
    value = gumbel.Task().value[0]  # (10, 64)
    temperature, draw = panel.get_by_role("slider").all()
    for stop, seed in ((0, 0), (10, 3), (17, 7)):
        temperature.fill(str(stop))
        draw.fill(str(seed))
        expect(panel.locator("label output").first).to_have_text(f"{gumbel.STOPS[stop]:.2g}")
        for chart, read in zip(
            panel.locator(".atlas-chart").all(), panel.locator("figure").all()[2:], strict=True
        ):
            weights = torch.tensor(chart.locator("> span").evaluate_all(SHARES))
            assert weights.sum().item() == pytest.approx(1, abs=0.02)
            torch.testing.assert_close(
                shown(read, "gray").float(), (weights @ value).view(8, 8), atol=0.02, rtol=0
            )


@pytest.mark.parametrize(("centre", "half_width"), [(5, 4), (30, 4), (30, 1)])
def test_a_dial_turns_a_setting_of_the_module(page: Page, address: str, centre: int, half_width: int) -> None:
    panel = opened(page, address, LUONG_LOCAL)
    first, second = panel.get_by_role("slider").all()
    first.fill(str(centre))
    second.fill(str(luong_local.HALF_WIDTHS.index(half_width)))
    key = luong_local.columns()
    query = luong_local.mirrored(key)
    asking = query[:, luong_local.ASKING, :].clone()[:, None]
    asking[..., -1] = query[0, luong_local.LENGTH - 1 - centre, -1]
    computed = luong_local.attention(False, half_width).attention(asking, key)[0, 0].detach()
    shares = panel.locator(".atlas-chart > span").evaluate_all(SHARES)
    assert shares == pytest.approx(computed.tolist(), abs=0.003)
    expect(panel.locator("label output").first).to_have_text(f"{centre}.3")


@pytest.mark.parametrize(("layout", "number"), [(0, 0), (0, 3), (1, 2), (2, 1)])
def test_a_dial_shows_the_work_of_each_rank(page: Page, address: str, layout: int, number: int) -> None:
    panel = opened(page, address, RING)
    mode, turn = panel.get_by_role("slider").all()
    mode.fill(str(layout))
    turn.fill(str(number))
    work = RingAttention(ring.RANKS, True, MODES[layout]).work(ring.TOKENS)[number]
    shares = panel.locator(".atlas-chart > span").evaluate_all(SHARES)
    assert shares == pytest.approx((work / ring.TOKENS).tolist(), abs=0.003)
    bright = shown(panel.locator("figure").first) > 0.9
    assert bright.sum() == work.sum()


@pytest.mark.parametrize(("come", "block"), [(0, 4), (7, 2), (7, 4), (16, 1)])
def test_a_dial_reads_whole_blocks_of_keys(page: Page, address: str, come: int, block: int) -> None:
    panel = opened(page, address, ONLINE_SOFTMAX)
    keys, per_block = panel.get_by_role("slider").all()
    keys.fill(str(come))
    per_block.fill(str(online_softmax.BLOCKS.index(block)))
    read = come // block * block
    scores, value = online_softmax.keys()
    weights = torch.zeros(len(online_softmax.READ))
    weights[:read] = scores[0, 0, 0, :read].softmax(dim=0)
    shares = panel.locator(".atlas-chart").first.locator("> span").evaluate_all(SHARES)
    assert shares == pytest.approx(weights.tolist(), abs=0.003)
    seen = shown(panel.locator("figure").last, "gray").float()
    torch.testing.assert_close(seen, (weights @ value[0, 0]).view(8, 8), atol=0.01, rtol=0)


@pytest.mark.parametrize(("stop", "kv_heads"), [(0, 4), (1, 2), (2, 1)])
def test_a_dial_pools_the_heads_of_the_module(page: Page, address: str, stop: int, kv_heads: int) -> None:
    panel = opened(page, address, GROUPED_QUERY)
    count, differ = panel.get_by_role("slider").all()
    count.fill(str(stop))
    expect(panel.locator("label output").first).to_have_text(str(kv_heads))
    for place, share in enumerate(grouped_query.SHARES):
        differ.fill(str(place))
        fields = panel.locator("figure").all()
        for field, computed in zip(fields, grouped_query.maps(share, kv_heads), strict=True):
            torch.testing.assert_close(shown(field), computed.double(), atol=1.01 / 255, rtol=0)


@pytest.mark.parametrize(("pair", "query", "key"), [(0, 7, 3), (1, 0, 11), (3, 11, 10)])
def test_a_dial_turns_a_pair_of_the_module(page: Page, address: str, pair: int, query: int, key: int) -> None:
    panel = opened(page, address, ROTARY)
    for slider, stop in zip(panel.get_by_role("slider").all(), (pair, query, key), strict=True):
        slider.fill(str(stop))
    vectors = rotary.turned_pair(pair)
    arrows, table = panel.locator("figure").all()
    for place, share in ((query, 1.0), (key, 0.5)):
        drawn = rotary.arrow(vectors[place]) > 0
        assert (shown(arrows)[drawn] >= share - 0.01).all()
    scores = (vectors @ vectors.T).double()
    distance = torch.arange(rotary.PLACES)[:, None] - torch.arange(rotary.PLACES)
    found = shown(table, "berlin", 127)
    as_far = distance == query - key
    torch.testing.assert_close(found[as_far], scores[as_far], atol=1.01 / 127, rtol=0)
    assert (found[~as_far].abs() <= rotary.FAINT + 0.01).all()


@pytest.mark.parametrize(("letters", "window"), [(1, 4), (9, 4), (11, 1), (11, 8)])
def test_a_ring_holds_what_the_cache_holds(page: Page, address: str, letters: int, window: int) -> None:
    panel = opened(page, address, KV_CACHE)
    first, second = panel.get_by_role("slider").all()
    first.fill(str(letters - 1))
    second.fill(str(kv_cache.WINDOWS.index(window)))
    reader, read = kv_cache.layer(window), kv_cache.tokens()[:, :letters]
    with torch.no_grad():
        _, state = reader.step(read)
        weights = reader.attention(read)[0, 0, -1]
    shares = panel.locator(".atlas-chart > span").evaluate_all(SHARES)
    assert shares == pytest.approx([*weights.tolist(), *[0.0] * (len(kv_cache.WORD) - letters)], abs=0.003)
    kept = (shown(panel.locator("figure").last) > 0.5).nonzero().tolist()
    assert kept == [[slot, place] for slot, place in enumerate(state.position.tolist()) if place >= 0]


@pytest.mark.parametrize(("kept", "new"), [(0, 0), (4, 0), (4, 7), (9, 5)])
def test_a_dial_counts_what_the_module_takes(page: Page, address: str, kept: int, new: int) -> None:
    panel = opened(page, address, LATENT)
    for slider, stop in zip(panel.get_by_role("slider").all(), (kept, new), strict=True):
        slider.fill(str(stop))
    T = latent.NEW[new]
    counts = torch.tensor(latent.multiply_adds(T, latent.LENGTHS[kept] + T))
    chart = panel.locator(".atlas-chart").first
    shares = chart.locator("> span").evaluate_all(SHARES)
    assert shares == pytest.approx((counts / counts.max()).tolist(), abs=0.003)
    assert number(chart.locator("small").inner_text()) == pytest.approx(counts.max().item() / 1e9, rel=0.05)


@pytest.mark.parametrize("window", sliding_window.WINDOWS)
def test_causal_and_one_window_are_the_module(page: Page, address: str, window: int) -> None:
    panel = opened(page, address, SLIDING_WINDOW)
    for size in sliding_window.WINDOWS:
        panel.get_by_label(f"window {size}").set_checked(size == window)
    computed = sliding_window.layer(window).attention(sliding_window.letters()[None])[0, 0].detach()
    wait_for(True, lambda: torch.equal(shown(panel).isnan(), computed == 0))
    same(shown(panel).nan_to_num(), computed, top(panel))


@pytest.mark.parametrize(("match", "logit"), [(0, -4), (4, 0), (8, 8)])
def test_a_dial_turns_score_and_sink_of_the_module(page: Page, address: str, match: int, logit: int) -> None:
    panel = opened(page, address, SINK)
    score, level = panel.get_by_role("slider").all()
    score.fill(str(sink.MATCHES.index(match)))
    level.fill(str(sink.LOGITS.index(logit)))
    weights = sink.weights(match, logit)
    shares = panel.locator(".atlas-chart > span").evaluate_all(SHARES)
    assert shares == pytest.approx([*weights.tolist(), 1 - weights.sum().item()], abs=0.003)


@pytest.mark.parametrize("read", [2, 7, len(linear.TEXT)])
def test_a_dial_counts_which_letter_followed_which(page: Page, address: str, read: int) -> None:
    panel = opened(page, address, LINEAR)
    panel.get_by_role("slider").fill(str(read - 2))
    text, letters = linear.TEXT[:read], linear.LETTERS
    pairs, top = list(itertools.pairwise(text)), linear.TEXT.count("is")
    counts = torch.tensor([[pairs.count((a, b)) for b in letters] for a in letters])
    share = counts.double() / top
    torch.testing.assert_close(shown(panel.locator("figure").first), share, atol=0.005, rtol=0)
    shares = panel.locator(".atlas-chart > span").evaluate_all(SHARES)
    assert shares == pytest.approx(share[letters.index(text[-1])].tolist(), abs=0.003)


@pytest.mark.parametrize(("read", "rate"), [(2, 1.0), (7, 0.0), (7, 0.5), (len(linear.TEXT), 0.25)])
def test_a_dial_overwrites_what_followed_a_letter(page: Page, address: str, read: int, rate: float) -> None:
    """Each row of the memory is a mean that prefers new ones."""
    panel = opened(page, address, DELTA_RULE)
    so_far, beta = panel.get_by_role("slider").all()
    so_far.fill(str(read - 2))
    beta.fill(str(delta_rule.RATES.index(rate)))
    text, letters = linear.TEXT[:read], linear.LETTERS
    memory = torch.zeros(len(letters), len(letters), dtype=torch.float64)
    for before, now in itertools.pairwise(map(letters.index, text)):
        memory[before] *= 1 - rate
        memory[before, now] += rate
    torch.testing.assert_close(shown(panel.locator("figure").first), memory, atol=0.005, rtol=0)
    shares = panel.locator(".atlas-chart > span").evaluate_all(SHARES)
    assert shares == pytest.approx(memory[letters.index(text[-1])].tolist(), abs=0.003)


@pytest.mark.parametrize(("gate", "one", "place"), [(0.9, 0.1, 6), (1.0, 0.0, 12), (0.5, 1.0, 2)])
def test_a_dial_closes_gates_of_the_module(
    page: Page, address: str, gate: float, one: float, place: int
) -> None:
    panel = opened(page, address, FORGETTING)
    stops = (
        forgetting.GATES.index(gate),
        forgetting.ONE.index(one),
        forgetting.PLACES.index(place),
    )
    for slider, stop in zip(panel.get_by_role("slider").all(), stops, strict=True):
        slider.fill(str(stop))
    shares = panel.locator(".atlas-chart > span").evaluate_all(SHARES)
    assert shares == pytest.approx(forgetting.weights(gate, one, place).tolist(), abs=0.003)


@pytest.mark.parametrize(("beta", "steps", "digit"), [(10.0, 1, 3), (0.1, 5, 0), (100.0, 2, 9)])
def test_a_dial_completes_digits_with_the_module(
    page: Page, address: str, beta: float, steps: int, digit: int
) -> None:
    panel = opened(page, address, HOPFIELD)
    stops = hopfield.DIALLED.index(beta), hopfield.STEPS.index(steps), digit
    for slider, stop in zip(panel.get_by_role("slider").all(), stops, strict=True):
        slider.fill(str(stop))
    expected = hopfield.completed(beta, steps)[digit]
    torch.testing.assert_close(
        shown(panel.locator("figure").first, "gray"), expected.double(), atol=0.01, rtol=0
    )


@pytest.mark.parametrize(("own", "tied"), [(1, 0), (4, 0), (4, 1), (8, 1)])
def test_a_dial_shares_the_keys_of_the_module(page: Page, address: str, own: int, tied: int) -> None:
    panel = opened(page, address, KV_SHARING)
    for slider, stop in zip(panel.get_by_role("slider").all(), (own - 1, tied), strict=True):
        slider.fill(str(stop))
    sources = last_of_kind(["full"] * kv_sharing.LAYERS, own)
    torch.testing.assert_close(shown(panel.locator("figure").first), kv_sharing.readers(sources).double())
    found = zip(kv_sharing.costs(sources, bool(tied)), (kv_sharing.PROMPT, 2 * kv_sharing.WIDTH), strict=True)
    for chart, (numbers, top) in zip(panel.locator(".atlas-chart").all(), found, strict=True):
        shares = chart.locator("> span").evaluate_all(SHARES)
        assert shares == pytest.approx([count / top for count in numbers], abs=0.003)
