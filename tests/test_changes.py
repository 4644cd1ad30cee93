"""Code without docstrings, and what changes from one module to another."""

import ast
import io
import tokenize

import pytest
from bs4 import BeautifulSoup

from sitekit.language import ENGLISH
from sitekit.parts import PARTS
from snippets.__main__ import main
from snippets.catalogue import CATALOGUE
from snippets.changes import LEAST, MOST, changes, kinship, short_changes
from snippets.docstrings import docstrings, without_docstrings
from snippets.lookup import code


def without(tree: ast.Module) -> str:
    """The tree without any docstring, as text."""
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or node.body
    return ast.dump(tree)


def comments(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


@pytest.mark.parametrize("slug", CATALOGUE)
def test_docstrings_alone_are_taken_away(slug: str) -> None:
    source = code(CATALOGUE[slug])
    bare = without_docstrings(source)
    assert ast.dump(ast.parse(bare)) == without(ast.parse(source))
    assert comments(bare) == comments(source)
    assert docstrings(bare) == []
    assert not bare.startswith("\n")


def test_a_class_keeps_the_docstring_that_is_all_it_has() -> None:
    source = 'class Refused(Exception):\n    """Why."""\n\n\nclass Gate:\n    """A gate."""\n\n    bias = 1\n'
    assert without_docstrings(source) == source.replace('    """A gate."""\n\n', "")


def test_the_command_prints_the_changes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "se block", "ECA-Net"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["--- senet.py", "+++ eca.py"]
    assert "-class SEBlock(nn.Module):" in lines
    assert "+class ECALayer(nn.Module):" in lines
    assert not any('"""' in line or "def example" in line for line in lines)


def test_only_what_is_short_and_alike_teaches() -> None:
    senet, eca, transformer = (CATALOGUE[slug] for slug in ("senet", "eca", "transformer"))
    assert short_changes(senet, eca) == list(changes(senet, eca))
    assert sum(line[0] in "+-" for line in short_changes(senet, eca)[2:]) <= MOST
    assert kinship(senet, eca) >= LEAST > kinship(senet, transformer)
    assert short_changes(senet, transformer) == []
    condconv, dynamic = CATALOGUE["condconv"], CATALOGUE["dynamic_convolution"]
    assert kinship(condconv, dynamic) >= LEAST
    assert short_changes(condconv, dynamic) == []  # alike, but much changed


def test_the_page_shows_what_changed_since_the_nearest_relative_that_is_no_younger() -> None:
    found = BeautifulSoup(PARTS["changed"]("eca", ENGLISH), "html.parser")
    assert found.summary.get_text() == "What changed since SENet"
    senet, eca = CATALOGUE["senet"], CATALOGUE["eca"]
    assert found.code.get_text().splitlines() == list(changes(senet, eca))
    assert PARTS["changed"]("senet", ENGLISH) == ""  # ECA came later
    assert PARTS["changed"]("transformer", ENGLISH) == ""  # too much
