"""The page of models: families in a table, two of them side by side, and the calculator of caches."""

import json

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.conftest import ROOT
from tests.site.conftest import DESK, PHONE
from tests.site.wait import wait_for

FOUND = json.loads((ROOT / "docs" / "census.json").read_text(encoding="utf-8"))
PUBLISHED = {"GPT-2 XL": "300 KiB", "Llama 3 8B": "128 KiB", "DeepSeek-V3": "68.6 KiB"}
COUNTED = {  # per token, constant part
    "gpt-oss-120b": ("36.0 KiB", "4.50 MiB"),
    "DeepSeek-V3.2": ("83.9 KiB", "–"),
    "DeepSeek-V4-Flash": ("6.43 KiB", "5.38 MiB"),
    "Qwen3-Next 80B-A3B": ("24.0 KiB", "72.0 MiB"),
}


@pytest.fixture(params=["", "zh/"], ids=["en", "zh"])
def models(page: Page, address: str, request: pytest.FixtureRequest) -> Page:
    """The page in each language, on a phone."""
    page.set_viewport_size(PHONE)
    page.goto(f"{address}{request.param}models/")
    return page


def total(page: Page, name: str) -> Locator:
    return page.locator(f"[data-total='{name}']")


def field(page: Page, kind: str, name: str) -> Locator:
    return page.locator(f"fieldset[data-kind='{kind}'] input[name='{name}']")


@pytest.mark.parametrize(("model", "size"), PUBLISHED.items())
def test_published_sizes_per_token_come_out(models: Page, model: str, size: str) -> None:
    models.locator("select[name=model]").select_option(model)
    expect(total(models, "cache")).to_have_text(size)


def test_the_form_gives_what_the_table_of_models_says(models: Page) -> None:
    """All ten, with the sum at the number of tokens that the table has."""
    rows = models.locator(".atlas-calculator tbody tr")
    expect(rows).to_have_count(10)
    for row in rows.all():
        texts = row.locator("th, td").all_inner_texts()
        model, _, *figures = (text.replace("\u00a0", " ") for text in texts)
        models.locator("select[name=model]").select_option(model)
        for name, figure in zip(("cache", "fixed part", "sum"), figures, strict=True):
            expect(total(models, name)).to_have_text(figure)
        if model in COUNTED:
            assert tuple(figures[:2]) == COUNTED[model]


def test_every_kind_of_layer_adds_its_part(page: Page, address: str) -> None:
    page.goto(address + "models/")
    page.locator("select[name=model]").select_option("GPT-2 XL")
    page.locator("input[name=context]").fill("1024")
    expect(total(page, "sum")).to_have_text("300 MiB")
    sizes = {
        "window": {
            "layers": 1,
            "heads": 8,
            "key": 64,
            "value": 64,
            "window": 512,
        },  # 1 MiB, whatever the length
        "latent": {"layers": 2, "rank": 448, "rotated": 64},  # 2 MiB
        "index": {"layers": 4, "width": 128},  # 1 MiB
        "compressed": {"layers": 4, "width": 512, "every": 4},  # 1 MiB
        "compressed more": {"layers": 64, "width": 512, "every": 64},  # 1 MiB
        "state": {"layers": 4, "heads": 4, "key": 128, "value": 256},  # 2 MiB
    }
    for kind, values in sizes.items():
        for name, value in values.items():
            field(page, kind, name).fill(str(value))
    expect(total(page, "sum")).to_have_text("308 MiB")
    expect(total(page, "fixed part")).to_have_text("3.00 MiB")
    page.locator("input[name=context]").fill("256")  # less than the window
    expect(page.locator("fieldset[data-kind=window] output")).to_have_text("512 KiB")
    page.locator("input[name=batch]").fill("2")
    expect(page.locator("fieldset[data-kind=window] output")).to_have_text("1.00 MiB")
    page.locator("select[name=bytes]").select_option("1")
    expect(page.locator("fieldset[data-kind=window] output")).to_have_text("512 KiB")
    expect(page.locator("fieldset[data-kind=state] output")).to_have_text("4.00 MiB")  # stays in 32 bits
    field(page, "full", "layers").fill("-1")  # no size: what was shown stays
    expect(page.locator("fieldset[data-kind=state] output")).to_have_text("4.00 MiB")


def test_the_calculator_works_by_keyboard_and_fits(models: Page) -> None:
    field(models, "full", "layers").focus()
    models.keyboard.press("ArrowUp")
    expect(total(models, "cache")).to_have_text("132 KiB")
    models.keyboard.press("Tab")
    expect(field(models, "full", "heads")).to_be_focused()
    assert models.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    box = models.locator(".atlas-calculator form")
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth")


def shown(page: Page) -> list[str]:
    return page.locator("tr[data-slug]:visible").evaluate_all("rows => rows.map(row => row.dataset.slug)")


def test_families_sort_by_any_column(page: Page, address: str) -> None:
    page.set_viewport_size(DESK)
    page.goto(address + "models/")
    latent = {name for name, row in FOUND["families"].items() if "latent" in row["uses"]}
    page.get_by_role("button", name="MLA").click()
    wait_for(latent, lambda: set(shown(page)[: len(latent)]))
    page.get_by_role("button", name="Per token").click()
    sizes = page.locator(".atlas-families tbody td[data-sort]:nth-child(3)")
    orders = sizes.evaluate_all("cells => cells.map(cell => Number(cell.dataset.sort))")
    assert orders == sorted(orders, reverse=True)
    assert orders[0] > 0


def test_families_are_found_by_name_and_mechanism(models: Page) -> None:
    models.locator("select[name=uses]").select_option("kimi_delta")
    wait_for(["bailing_hybrid", "glm5_next", "kimi_linear"], lambda: shown(models))
    models.locator("input[type=search]").fill("kimi")
    wait_for(["kimi_linear"], lambda: shown(models))


@pytest.mark.parametrize("language", ["", "zh/"])
def test_a_card_leads_to_the_families_that_use_its_mechanism(page: Page, address: str, language: str) -> None:
    page.goto(address + language + "attention-domain/channel/senet/")
    page.locator(".atlas-card a[href*='uses=senet']").click()
    users = [name for name, row in FOUND["families"].items() if "senet" in row["uses"]]
    wait_for(users, lambda: shown(page))
    expect(page.locator("select[name=uses]")).to_have_value("senet")


def test_two_families_stand_side_by_side(page: Page, address: str) -> None:
    page.goto(address + "models/")
    beside = page.locator(".atlas-beside tr")
    expect(beside.nth(0)).to_have_text("deepseek_v3qwen3_next")
    page.get_by_label("A", exact=True).fill("llama")
    expect(beside.nth(0)).to_have_text("llamaqwen3_next")
    texts = [" ".join(row.split()) for row in beside.all_inner_texts()]
    assert "Per token 512 KiB 24.0 KiB" in texts
    assert "Layers 32 full 36 state, 12 full" in texts
    assert any(text.startswith("Only qwen3_next") and "gated delta" in text for text in texts)
    page.get_by_label("A", exact=True).fill("lama")  # no family: what was shown stays, the field says so
    expect(page.get_by_label("A", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(beside.nth(0)).to_have_text("llamaqwen3_next")


def test_without_a_script_the_tables_stand(browser: Browser, address: str) -> None:
    with browser.new_context(java_script_enabled=False, viewport=PHONE) as context:
        page = context.new_page()
        page.goto(address + "models/")
        expect(page.locator("form:visible")).to_have_count(0)
        row = page.locator("tr[data-slug=deepseek_v3]")
        row.scroll_into_view_if_needed()
        expect(row).to_contain_text("68.6 KiB")
        expect(page.locator(".atlas-calculator tbody tr:visible")).to_have_count(10)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
