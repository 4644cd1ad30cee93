"""Which model families use a mechanism: in its card, and as a column and a choice of the comparison."""

import json

import pytest
from playwright.sync_api import Page, expect

from snippets.catalogue import CATALOGUE
from tests.conftest import ROOT
from tests.site.conftest import PHONE
from tests.site.wait import wait_for

FAMILIES = json.loads((ROOT / "docs" / "census.json").read_text(encoding="utf-8"))["families"]
COUNTS = {slug: sum(slug in row["uses"] for row in FAMILIES.values()) for slug in CATALOGUE}
SENET = "attention-domain/channel/senet/"


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        ("", "9 of 523 model families in transformers 5.23.0, for example align, efficientnet, pp_lcnet"),
        ("zh/", "transformers 5.23.0 的 523 个模型家族中有 9 个，例如 align、efficientnet、pp_lcnet"),
    ],
)
def test_a_card_says_who_uses_the_mechanism(page: Page, address: str, prefix: str, sentence: str) -> None:
    page.goto(address + prefix + SENET)
    expect(page.locator(".atlas-card dd", has_text="523")).to_have_text(sentence)


def test_a_card_is_silent_about_what_was_not_found(page: Page, address: str) -> None:
    page.goto(address + "attention-domain/channel/eca/")
    expect(page.locator(".atlas-card dd", has_text="523")).to_have_count(0)


def test_the_comparison_sorts_and_filters_by_use(page: Page, address: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(address + "comparison/")
    page.get_by_label("Filter, sizes").check()
    page.get_by_label("Show").select_option("used by")
    page.locator('select[name="used by"]').select_option("used")
    expect(page.locator("tr[data-slug]:visible")).to_have_count(sum(map(bool, COUNTS.values())))
    for _ in ("ascending", "descending"):
        page.get_by_role("button", name="Used by").click()
    placed = [COUNTS[slug] for slug, row in CATALOGUE.items() if row.domain and COUNTS[slug]]
    shown = page.locator("thead + tbody tr:visible td[data-key='used by']")
    wait_for([str(count) for count in sorted(placed, reverse=True)], shown.all_inner_texts)
