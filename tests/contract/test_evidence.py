"""Evidence: each mechanism says what it was held against, and its page whether it is a reconstruction."""

from snippets.catalogue import CATALOGUE, Evidence
from tests.conftest import ROOT
from tests.contract.walker import slug

WORDS = {"en": "reconstruct", "zh": "重构"}


def test_the_catalogue_says_what_a_module_was_held_against(name: str) -> None:
    evidence = CATALOGUE[slug(name)].evidence
    assert evidence, "the row of the catalogue has no evidence"
    assert len(set(evidence)) == len(evidence)


def test_a_reconstruction_says_so_on_its_page(name: str) -> None:
    row = CATALOGUE[slug(name)]
    if Evidence.RECONSTRUCTION not in row.evidence:
        return
    for language, word in WORDS.items():
        page = ROOT / "docs" / language / (row.path.replace("_", "-") + ".md")
        assert word in page.read_text(encoding="utf-8").casefold(), f"{page} does not say '{word}'"
