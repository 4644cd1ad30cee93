"""What differs between the languages stands in one place, for all of them."""

import ast
import re

import pytest

from sitekit.labels import WORDS
from sitekit.language import LANGUAGES, Language
from snippets.catalogue import Domain, Evidence, Weights
from tests.conftest import ROOT


@pytest.mark.parametrize("key", WORDS)
def test_words_are_in_both_languages(key: str) -> None:
    english, chinese = WORDS[key]
    assert english.isascii() or not re.search("[\u3000-\u9fff]", english)
    assert re.search("[\u3000-\u9fff\uff00-\uffef]", chinese) or "{" in chinese
    assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", chinese))


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_every_value_of_the_catalogue_has_a_word(language: Language) -> None:
    axes = [language.word(value) for value in (*Weights, *Domain)]
    evidence = [language.word(f"{kind} {value}") for kind in ("evidence", "meaning") for value in Evidence]
    assert len(set(axes)) == len(axes)
    assert len(set(evidence)) == len(evidence)


def test_no_other_module_asks_which_language_it_is() -> None:
    """A module asks its `Language` for what it needs; "zh" or "en" in it is a question for the language."""
    asked = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {node.value!r}"
        for file in sorted((ROOT / "sitekit").rglob("*.py"))
        if file.name != "paths.py"  # which names their folders
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in LANGUAGES
    ]
    assert asked == []
