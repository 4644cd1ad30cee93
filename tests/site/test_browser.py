"""The site in a real Chromium: every page in both languages and colour schemes, and what readers do on it."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, Page, Response, ViewportSize, expect

from sitekit.store import results
from snippets.catalogue import CATALOGUE
from snippets.docstrings import docstrings
from snippets.lookup import code
from tests.conftest import ROOT
from tests.site.conftest import CLIPBOARD, DESK, PHONE
from tests.site.wait import wait_for

PAGES = sorted(
    file.relative_to(ROOT / "docs" / "en").with_suffix("").as_posix()
    for suffix in ("*.md", "*.py")
    for file in (ROOT / "docs" / "en").rglob(suffix)
)
LANGUAGES = {"en": "", "zh": "zh/"}
SCHEMES = {"light": "default", "dark": "slate"}
AXE_OPTIONS: dict[str, object] = {"resultTypes": ["violations"], "preload": False}
CONTRAST: dict[str, object] = {"runOnly": ["color-contrast"]}
ALL_BUT_CONTRAST: dict[str, object] = {"rules": {"color-contrast": {"enabled": False}}}
MECHANISM = "attention-domain/channel/senet/"
FIRST_VISIT_LIMIT = 300_000


def url(page: str) -> str:
    """Address of a page below the root of its language."""
    return "" if page == "index" else page.removesuffix("/index").removesuffix("index") + "/"


@pytest.fixture(scope="module")
def phone(browser: Browser) -> Iterator[Page]:
    """One for all pages of the site, which store nothing: a new one takes longer than to show the next."""
    with browser.new_context(viewport=PHONE) as context:
        yield context.new_page()


@pytest.fixture(scope="module")
def desk(browser: Browser, address: str) -> Iterator[Page]:
    """One for the modules of all pages."""
    with browser.new_context(viewport=DESK) as context:
        context.grant_permissions(CLIPBOARD, origin=address)
        yield context.new_page()


@pytest.fixture(scope="module")
def measured_looks() -> set[str]:
    """Those whose contrast has been found sufficient."""
    return set()


# A site holds thousands of parts that look alike; axe measures the contrast of one of each look.
NOTE_LOOKS = """() => {
  const grounds = new Map()
  const ground = (box) => {
    if (!box) return ""
    if (!grounds.has(box)) {
      const own = getComputedStyle(box).backgroundColor
      grounds.set(box, own === "rgba(0, 0, 0, 0)" ? ground(box.parentElement) : own)
    }
    return grounds.get(box)
  }
  for (const part of document.body.querySelectorAll("*")) {
    if (part.firstElementChild) continue
    if (!part.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue
    const { color, fontSize, fontWeight } = getComputedStyle(part)
    const region = part.closest("header, nav, article, footer, form")?.tagName
    part.dataset.look = [part.dataset.look, color, fontSize, fontWeight, ground(part), region].join()
  }
  return [...new Set([...document.querySelectorAll("[data-look]")].map((part) => part.dataset.look))]
}"""
KEEP_NEW_LOOKS = """(measured) => {
  const seen = new Set(measured)
  for (const part of document.querySelectorAll("[data-look]"))
    if (seen.has(part.dataset.look)) part.remove()
    else seen.add(part.dataset.look)
}"""
# To all other rules code is its text, a drawing or a formula one thing, an empty cell nothing: half of all
# elements.
JOIN = """() => {
  for (const code of document.querySelectorAll("pre code")) code.textContent = code.textContent
  for (const part of document.querySelectorAll("svg > :not(title, desc), math > *, td:empty")) part.remove()
}"""


def serious(page: Page, rules: dict[str, object]) -> list[str]:
    """What axe finds serious or critical by these rules."""
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(AXE_SCRIPT)
    violations = page.evaluate("async (options) => (await axe.run(options)).violations", AXE_OPTIONS | rules)
    return [
        f"{found['id']}: {node['target']} {node['failureSummary']}"
        for found in violations
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]


def use(page: Page, scheme: str) -> None:
    """Switch the colours, at once."""
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.wait_for_function("name => document.body.dataset.mdColorScheme === name", arg=SCHEMES[scheme])


@contextmanager
def faults(page: Page, address: str) -> Iterator[list[str]]:
    """Errors, and requests to another origin, that come up meanwhile."""
    found: list[str] = []
    handlers: dict[str, Callable[[Any], None]] = {
        "console": lambda message: found.append(message.text) if message.type == "error" else None,
        "pageerror": lambda error: found.append(str(error)),
        "request": lambda r: None if r.url.startswith((address, "data:")) else found.append(r.url),
    }
    for event, handler in handlers.items():
        page.on(event, handler)
    try:
        yield found
    finally:
        for event, handler in handlers.items():
            page.remove_listener(event, handler)


def looks(page: Page) -> set[str]:
    """Note at each visible part how it looks in all schemes; return what there is."""
    for scheme in SCHEMES:
        use(page, scheme)
        found = page.evaluate(NOTE_LOOKS)
    return set(found)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_sound(phone: Page, address: str, measured_looks: set[str], name: str, language: str) -> None:
    with faults(phone, address) as found:
        response = phone.goto(address + LANGUAGES[language] + url(name))
        assert response
        assert response.ok
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        shown = looks(phone)
        phone.evaluate(JOIN)
        assert serious(phone, ALL_BUT_CONTRAST) == []
        if not shown <= measured_looks:
            phone.reload()
            looks(phone)
            phone.evaluate(KEEP_NEW_LOOKS, list(measured_looks))
            for scheme in SCHEMES:
                use(phone, scheme)
                assert serious(phone, CONTRAST) == [], scheme
            measured_looks |= shown
    assert not found


@pytest.mark.parametrize("slug", CATALOGUE)
def test_copied_module_is_the_file(desk: Page, address: str, slug: str) -> None:
    """And the file runs alone, as tests/contract/test_source.py shows."""
    path = CATALOGUE[slug].path
    desk.goto(address + path.replace("_", "-") + "/#code")  # the theme adds the button to what is in sight
    block = desk.locator("div.highlight", has=desk.get_by_text(f"{slug}.py", exact=True)).first
    block.locator("button[data-clipboard-target], button.md-clipboard, .md-code__button").first.click()
    module = (ROOT / "snippets" / f"{path}.py").read_text(encoding="utf-8")
    wait_for(module.strip(), lambda: desk.evaluate("navigator.clipboard.readText()").strip())


# What is said goes away after two seconds, which a busy machine may spend elsewhere
NOTE_SAID = """(place) => {
  const status = document.querySelector(place)
  window.said = []
  new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true })
}"""


@pytest.mark.parametrize(("language", "name", "said"), [("en", "Copy", "Copied"), ("zh", "复制", "已复制")])
def test_card_copies_the_file(page: Page, address: str, language: str, name: str, said: str) -> None:
    page.goto(address + LANGUAGES[language] + MECHANISM)
    button = page.get_by_role("button", name=f"{name} senet.py", exact=True)
    expect(button).to_be_in_viewport()
    page.evaluate(NOTE_SAID, ".atlas-card [role=status]")
    button.focus()
    page.keyboard.press("Enter")
    wait_for([said, ""], lambda: page.evaluate("said"))
    module = (ROOT / "snippets/attention_domain/channel/senet.py").read_text(encoding="utf-8")
    wait_for(module, lambda: page.evaluate("navigator.clipboard.readText()"))


def test_where_the_browser_cannot_copy_the_links_stand_alone(page: Page, address: str) -> None:
    page.add_init_script("delete Navigator.prototype.clipboard")
    page.goto(address + "zh/" + MECHANISM)
    expect(page.locator(".atlas-copy button:visible")).to_have_count(0)
    expect(page.get_by_role("link", name="下载", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="查看 Markdown")).to_be_visible()


@pytest.mark.parametrize("script", [True, False])
def test_docstrings_can_be_hidden(browser: Browser, address: str, script: bool) -> None:
    """And are then not copied; the switch needs no script."""
    source = code(CATALOGUE["senet"])
    _, *others = docstrings(source)
    gone = {line for place in others for line in place}
    left = [text for line, text in enumerate(source.splitlines()) if line not in gone]
    with browser.new_context(java_script_enabled=script, viewport=DESK) as context:
        context.grant_permissions(CLIPBOARD, origin=address)
        page = context.new_page()
        page.goto(address + MECHANISM)
        block = page.locator(".highlight", has=page.locator(".atlas-bare"))
        box = page.get_by_label("Hide docstrings")
        box.focus()
        page.keyboard.press("Space")
        expect(block.locator(".atlas-docstring").first).to_be_hidden()
        wait_for(left, lambda: block.locator("code").inner_text().strip().splitlines())
        if script:
            block.locator(".md-code__button").first.click()
            wait_for(left, lambda: page.evaluate("navigator.clipboard.readText()").splitlines())
        box.uncheck()
        expect(block.locator(".atlas-docstring").first).to_be_visible()


def test_download_is_the_file(page: Page, address: str) -> None:
    page.goto(address + "zh/" + MECHANISM)
    with page.expect_download() as download:
        page.locator("a[download]").first.click()
    assert (
        Path(download.value.path()).read_bytes()
        == (ROOT / "snippets/attention_domain/channel/senet.py").read_bytes()
    )


@pytest.mark.parametrize("name", ["index", MECHANISM.rstrip("/"), "notebooks/three-stages"])
def test_language_switch_stays_on_the_page(page: Page, address: str, name: str) -> None:
    page.goto(address + url(name))
    page.locator("a[hreflang=zh-Hans]:visible").first.click()
    page.wait_for_url(address + "zh/" + url(name))
    page.locator("a[hreflang=en]:visible").first.click()
    page.wait_for_url(address + url(name))


def test_colour_scheme_survives_the_language_switch(page: Page, address: str) -> None:
    page.emulate_media(color_scheme="light")
    page.goto(address + MECHANISM)
    for scheme in ("default", "slate"):
        page.locator(".atlas-colours").click()
        expect(page.locator("body")).to_have_attribute("data-md-color-scheme", scheme)
    page.locator("a[hreflang=zh-Hans]:visible").first.click()
    page.wait_for_url(address + "zh/" + MECHANISM)
    expect(page.locator("body")).to_have_attribute("data-md-color-scheme", "slate")


def test_colours_follow_the_system_until_the_reader_chooses(page: Page, address: str) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto(address + MECHANISM)
    body, button = page.locator("body"), page.locator(".atlas-colours")
    names: list[str | None] = []
    for media, scheme in [("dark", "slate"), ("light", "default"), ("dark", "slate")]:
        page.emulate_media(color_scheme=media)
        expect(body).to_have_attribute("data-md-color-scheme", scheme)
    for scheme in ("default", "slate", "slate"):
        names.append(button.get_attribute("aria-label"))
        button.click()
        expect(body).to_have_attribute("data-md-color-scheme", scheme)
        wait_for(False, lambda: button.get_attribute("aria-label") == names[-1])
    assert len(set(names)) == 3
    wait_for(names[0], lambda: button.get_attribute("aria-label"))
    page.emulate_media(color_scheme="light")
    expect(body).to_have_attribute("data-md-color-scheme", "default")


@pytest.mark.parametrize(("language", "name"), [("en", "Copy as Markdown"), ("zh", "复制为 Markdown")])
def test_page_can_be_copied_as_markdown(
    page: Page, address: str, site: Path, language: str, name: str
) -> None:
    page.goto(address + LANGUAGES[language] + MECHANISM)
    button = page.get_by_role("button", name=name, exact=True)
    page.evaluate(NOTE_SAID, ".atlas-plain [role=status]")
    button.focus()
    page.keyboard.press("Enter")
    wait_for([{"en": "Copied", "zh": "已复制"}[language], ""], lambda: page.evaluate("said"))
    file = site / LANGUAGES[language] / f"{MECHANISM.rstrip('/')}.md"
    wait_for(file.read_text(encoding="utf-8"), lambda: page.evaluate("navigator.clipboard.readText()"))


def years(page: Page) -> list[int]:
    """The column of years of the comparison, from top to bottom, without the foundations below."""
    found = [int(year) for year in page.locator("thead + tbody [data-key=year]").all_inner_texts()]
    assert len(found) == sum(bool(row.domain) for row in CATALOGUE.values())
    return found


def test_comparison_sorts_and_filters(page: Page, address: str) -> None:
    page.goto(address + "comparison/")
    rows = page.locator("tr[data-slug]:visible")
    expect(rows).to_have_count(len(CATALOGUE))
    groups = page.locator(".atlas-group:visible")
    expect(groups).to_have_count(len({row.domain for row in CATALOGUE.values()}))
    page.locator("select[name=domain]").select_option("channel")
    expect(groups).to_have_text(["channel"])
    page.locator("select[name=domain]").select_option("")
    heading = page.get_by_role("button", name="Year")
    for descending in (False, True):
        heading.click()
        wait_for(sorted(years(page), reverse=descending), lambda: years(page))
    page.locator(".atlas-filter [type=search]").fill("squeeze")
    expect(rows).to_have_count(1)


def test_formulas_in_the_browser_give_what_was_counted(page: Page, address: str) -> None:
    """At all sizes of the tables of cost, for every mechanism."""
    page.goto(address + "comparison/")
    counted = {
        slug: [[dict(row.sizes), row.parameters, row.macs] for row in results(mechanism).rows]
        for slug, mechanism in CATALOGUE.items()
    }
    computed = page.evaluate(
        """async (counted) => {
          const { formulas } = await import(new URL("../assets/javascripts/formulas.js", location))
          return Object.fromEntries(Object.entries(counted).map(([slug, rows]) => {
            const { parameters, macs } = formulas[slug]
            return [slug, rows.map(([sizes]) => [parameters(sizes), macs(sizes)])]
          }))
        }""",
        counted,
    )
    for slug, rows in counted.items():
        for (_, *numbers), row in zip(rows, computed[slug], strict=True):
            assert row == pytest.approx(numbers, rel=1e-12), slug


def cells(page: Page, slug: str) -> list[str]:
    """Parameters, multiply-adds and sizes of a row of the comparison."""
    row = page.locator(f'tr[data-slug="{slug}"]')
    columns = ("parameters", "macs", "at sizes")
    found = (row.locator(f'[data-key="{column}"]').text_content() or "" for column in columns)
    return [text.replace("\u00a0", " ") for text in found]


def test_comparison_computes_with_the_sizes_of_the_reader(page: Page, address: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(address + "comparison/")
    counted = {slug: cells(page, slug) for slug in CATALOGUE}
    page.get_by_label("Filter, sizes").check()
    form = page.get_by_role("form", name="Choose sizes:")
    batch = form.get_by_label("B", exact=True)
    batch.focus()
    page.keyboard.press("ArrowUp")
    chosen = ["33,312", "65,536", "B = 2, C = 512, H = W = 28"]
    wait_for(chosen, lambda: cells(page, "senet"))
    page.keyboard.press("ArrowDown")  # the same sizes again, now from the formulas
    wait_for(counted["senet"], lambda: cells(page, "senet"))
    same = {slug: row for slug, row in counted.items() if cells(page, slug)[2] == row[2]}
    assert len(same) > 0.9 * len(CATALOGUE)
    assert {slug: cells(page, slug) for slug in same} == same
    page.get_by_label("Show").select_option("parameters")
    page.get_by_role("button", name="Parameters").click()
    form.get_by_label("C", exact=True).fill("256")
    form.get_by_label("r", exact=True).fill("8")
    form.get_by_label("T = S", exact=True).fill("64")
    chosen = ["1.05 M", "71.3 M", "B = 1, T = 64, E = 512, heads = 8"]
    wait_for(chosen, lambda: cells(page, "multi_head"))
    chosen = ["16,672", "16,384", "B = 1, C = 256, H = W = 28, r = 8"]
    wait_for(chosen, lambda: cells(page, "senet"))
    order = [
        int(text)
        for text in page.locator("thead + tbody td[data-key=parameters]").evaluate_all(
            "all => all.map(cell => cell.dataset.sort)"
        )
    ]
    assert order == sorted(order)
    form.get_by_label("C", exact=True).fill("100")
    wait_for(["–", "–"], lambda: cells(page, "senet")[:2])
    form.get_by_label("C", exact=True).fill("0")  # no size: as if nothing were chosen
    wait_for(counted["srm"][0], lambda: cells(page, "srm")[0])
    form.get_by_role("button", name="Reset").click()
    wait_for(counted["senet"], lambda: cells(page, "senet"))
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_costs_lead_to_the_comparison_at_their_sizes(page: Page, address: str) -> None:
    """The address keeps what the reader changes there."""
    page.goto(address + MECHANISM + "#cost")
    page.get_by_role("link", name="B = 1, C = 256, H = W = 14").click()
    expect(page.locator("tr:target")).to_have_attribute("data-slug", "senet")
    expect(page.locator("tr:target")).to_be_in_viewport()
    wait_for(["8,464", "8,192", "B = 1, C = 256, H = W = 14"], lambda: cells(page, "senet"))
    page.get_by_role("form", name="Choose sizes:").get_by_label("r", exact=True).fill("8")
    wait_for("16,672", lambda: cells(page, "senet")[0])
    assert "&=" not in page.url
    page.reload()
    wait_for("16,672", lambda: cells(page, "senet")[0])


def test_comparison_starts_anew_when_the_reader_comes_back(page: Page, address: str) -> None:
    page.goto(address + "comparison/")
    text = page.locator(".atlas-filter [type=search]")
    text.fill("squeeze")
    page.goto(address)
    page.go_back()
    expect(page.locator("tr[data-slug]:visible")).to_have_count(len(CATALOGUE))
    expect(text).to_have_value("")


def test_comparison_is_a_plain_table_without_javascript(browser: Browser, address: str) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(address + "comparison/")
        expect(page.locator("tr[data-slug]:visible")).to_have_count(len(CATALOGUE))
        expect(page.locator(".atlas-comparison :is(.atlas-filter, button):visible")).to_have_count(0)
        formula = page.locator("td[data-key=complexity]").first
        expect(formula).to_be_hidden()
        page.get_by_label("Formulas").check()
        expect(formula).to_be_visible()


WIDER_THAN_ITS_BOX = """[...document.querySelectorAll(".atlas-table")]
  .filter((box) => box.scrollWidth > box.clientWidth).length"""


@pytest.mark.parametrize("language", LANGUAGES)
def test_comparison_fits_and_keeps_its_header_in_sight(page: Page, address: str, language: str) -> None:
    page.goto(address + LANGUAGES[language] + "comparison/")
    for size in (DESK, PHONE):
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.evaluate(WIDER_THAN_ITS_BOX) == 0
        page.locator("tr[data-slug=masks]").scroll_into_view_if_needed()
        expect(page.locator("th[data-key=macs]")).to_be_in_viewport()


TABLES = [
    page.relative_to(ROOT / "docs" / "en").with_suffix("").as_posix()
    for page in (ROOT / "docs" / "en").rglob("*.md")
    if re.search(r"^```(members|blocks)$", page.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("language", LANGUAGES)
def test_tables_of_the_overviews_fit_a_desk(page: Page, address: str, language: str) -> None:
    page.set_viewport_size(DESK)
    assert len(TABLES) > 9
    for name in TABLES:
        page.goto(address + LANGUAGES[language] + url(name))
        assert page.evaluate(WIDER_THAN_ITS_BOX) == 0, name


def test_a_phone_shows_names_and_the_figure_that_is_chosen(page: Page, address: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(address + "comparison/")
    shown = page.locator("tr[data-slug=senet] > :visible")
    expect(shown).to_have_text(["SENet", "32,768"])
    page.get_by_label("Show").select_option("year")
    expect(shown).to_have_text(["SENet", "2018"])
    expect(page.locator("tr[data-slug]").first).to_be_in_viewport()
    expect(page.get_by_label("Filter by name")).to_be_hidden()
    page.get_by_label("Filter, sizes").check()
    expect(page.get_by_label("Filter by name")).to_be_visible()


PRINTED_HIDDEN = (
    ".md-header, .md-tabs, .md-sidebar, .md-footer, .atlas-copy, .atlas-bare, .headerlink, .md-code__nav"
)
CUT_OFF = """[...document.querySelectorAll("html, pre > code, .atlas-table, dd")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1)
  .map((box) => box.className || box.tagName)"""
PAPER = {"width": 718, "height": 1047}  # A4 less the margins


def test_printed_page(page: Page, address: str) -> None:
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(PAPER)
    page.goto(address + MECHANISM)
    expect(page.locator("body")).to_have_attribute("data-md-color-scheme", "slate")
    page.emulate_media(media="print", color_scheme="dark")
    expect(page.locator(PRINTED_HIDDEN).filter(visible=True)).to_have_count(0)
    expect(page.locator("h1")).to_have_css("color", "rgb(29, 39, 49)")
    expect(page.locator("body")).to_have_css("background-color", "rgb(255, 255, 255)")
    assert page.evaluate(CUT_OFF) == []
    after = "getComputedStyle(document.querySelector('dd a[href^=http]'), '::after').content"
    assert page.evaluate(after).startswith('" <https://arxiv.org')


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", [PHONE, {"width": 1280, "height": 800}], ids=["phone", "desk"])
def test_home_opens_with_figure_doors_and_counts(
    page: Page, address: str, language: str, size: ViewportSize
) -> None:
    page.set_viewport_size(size)
    page.goto(address + LANGUAGES[language])
    for part in (".atlas-figure svg", ".atlas-doors", ".atlas-counts"):
        expect(page.locator(part)).to_be_in_viewport(ratio=1)
    expect(page.locator(".atlas-doors a")).to_have_count(3)
    proofs = json.loads((ROOT / "docs" / "proofs.json").read_text(encoding="utf-8"))
    counts = page.locator(".atlas-counts").inner_text()
    assert [int(number) for number in re.findall(r"\d+", counts)[:2]] == [
        len(CATALOGUE),
        sum(len(recorded["proofs"]) for recorded in proofs.values()),
    ]


LABELLED = """[...document.querySelectorAll(".atlas-matrix td li")].map((item) => {
  const cell = item.closest("td")
  const page = item.querySelector("a").getAttribute("href").split("/").at(-2)
  return [page, getComputedStyle(cell, "::before").content]
})"""


def test_a_phone_shows_each_mechanism_of_the_map_below_its_weights(page: Page, address: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(address)
    shown = dict(page.evaluate(LABELLED))
    rows = [row for row in CATALOGUE.values() if row.weights]
    assert shown == {row.slug.replace("_", "-"): f'"{row.weights}"' for row in rows}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_idea_begins_on_the_first_screen_of_a_phone(page: Page, address: str, language: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(address + LANGUAGES[language] + MECHANISM)
    expect(page.locator("#idea + p")).to_be_in_viewport()
    paper = page.locator(".atlas-card a[href^=http]")
    expect(paper).to_be_hidden()
    page.locator(".atlas-more summary").click()
    expect(paper).to_be_visible()


SMALL: ViewportSize = {"width": 360, "height": 740}
TOO_SMALL = """[...document.querySelectorAll("article :not(svg *, math, math *, sub, sup)")]
  .filter((part) => part.checkVisibility())
  .filter((part) => [...part.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
  .filter((part) => parseFloat(getComputedStyle(part).fontSize) < 11)
  .map((part) => part.outerHTML.slice(0, 80))"""
SIDEWAYS = """[...document.querySelectorAll(".atlas-card, .atlas-opening, .atlas-proofs .atlas-table")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.className)"""


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "name", ["", MECHANISM, "comparison/", "plug-in-recipes/", "attention-domain/spatial/"]
)
def test_small_phones_show_legible_text_and_nothing_sideways(
    page: Page, address: str, name: str, language: str
) -> None:
    page.set_viewport_size(SMALL)
    page.goto(address + LANGUAGES[language] + name)
    assert page.evaluate("document.documentElement.scrollWidth") <= SMALL["width"]
    assert page.evaluate(TOO_SMALL) == []
    assert page.evaluate(SIDEWAYS) == []


def test_a_phone_shows_paper_and_code_below_each_other(page: Page, address: str) -> None:
    page.set_viewport_size(SMALL)
    page.goto(address + MECHANISM)
    row = page.locator("h2#paper ~ .atlas-table tbody tr").first
    boxes = [cell.bounding_box() for cell in row.locator("> *").all()]
    assert len(boxes) > 2
    assert len({box["x"] for box in boxes if box}) == 1
    assert row.locator("> *").nth(1).get_attribute("data-label")


NOTE_SHIFTS = """window.moved = 0
new PerformanceObserver((list) => { for (const { value } of list.getEntries()) moved += value })
  .observe({ type: "layout-shift", buffered: true })"""


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("name", [MECHANISM, "comparison/", "notebooks/soft-hard-self/"])
def test_nothing_moves_while_a_page_loads(page: Page, address: str, name: str, size: ViewportSize) -> None:
    page.set_viewport_size(size)
    page.add_init_script(NOTE_SHIFTS)
    page.goto(address + name, wait_until="networkidle")
    assert page.evaluate("moved") < 0.001  # a font that comes late is as wide as what stood there, nearly


HEIGHTS = """(selector) => [...document.querySelectorAll(selector)].map((part) => {
  const expected = part.offsetHeight
  part.style.contentVisibility = "visible"
  return part.offsetHeight - expected
})"""


def test_heights_are_known_before_the_reader_comes_near(page: Page, address: str) -> None:
    """A figure may have a button above it."""
    page.set_viewport_size(PHONE)
    page.goto(address + MECHANISM)
    blocks, figures = (page.evaluate(HEIGHTS, part) for part in ("pre > code", ".atlas-figure"))
    assert len(blocks) > 2
    assert max(map(abs, blocks)) <= 1
    assert [found for found in figures if abs(found) > 64] == []


def test_a_link_into_a_page_leads_to_its_place(page: Page, address: str) -> None:
    page.goto(address + MECHANISM + "#cost", wait_until="networkidle")
    expect(page.locator("#cost")).to_be_in_viewport()


def test_drawer_shows_the_navigation_while_it_is_open(page: Page, address: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(address + MECHANISM)
    shown = """() => document.querySelector(".md-sidebar--primary .md-nav__link")
      .checkVisibility({ contentVisibilityAuto: true })"""
    for open in (True, False):
        page.evaluate("document.getElementById('__drawer').click()")
        wait_for(open, lambda: page.evaluate(shown))


@pytest.mark.parametrize("name", ["", MECHANISM])
@pytest.mark.parametrize("language", LANGUAGES)
def test_first_visit_is_light(context: BrowserContext, address: str, language: str, name: str) -> None:
    page = context.new_page()
    responses: list[Response] = []
    page.on("response", lambda response: responses.append(response))
    page.goto(address + LANGUAGES[language] + name, wait_until="networkidle")
    assert sum(len(gzip.compress(r.body())) for r in responses if r.ok) < FIRST_VISIT_LIMIT
    assert not [r.url for r in responses if r.url.endswith(".json")]
