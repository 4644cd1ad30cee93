"""What every snippet owes as a text: imports, documentation, doctests, running alone."""

import ast
import doctest
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.walker import load, source


def test_imports_only_torch_and_the_standard_library(name: str) -> None:
    tree = ast.parse(source(name).read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            imported.add(str(node.module).split(".")[0])
    assert imported <= {"torch", *sys.stdlib_module_names}


@pytest.fixture(scope="session")
def program() -> Iterator[subprocess.Popen[str]]:
    """The interpreter of tests/contract/alone.py, isolated from ours; warnings are errors."""
    command = [sys.executable, "-I", "-W", "error", Path(__file__).with_name("alone.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def test_runs_alone_from_an_empty_folder(name: str, program: subprocess.Popen[str]) -> None:
    assert program.stdin
    assert program.stdout
    print(source(name), file=program.stdin, flush=True)
    status, printed, errors = json.loads(program.stdout.readline())
    assert status == 0, errors
    assert printed.strip()
    assert not errors


def test_has_doctests_that_check_more_than_shapes(name: str) -> None:
    tests = doctest.DocTestFinder(exclude_empty=True).find(load(name))
    examples = [example for test in tests for example in test.examples]
    assert not any(doctest.OPTIONFLAGS_BY_NAME["SKIP"] in example.options for example in examples)
    telling = [e for e in examples if e.want and "Size" not in e.want and "shape" not in e.source]
    assert telling


def test_header_names_the_paper_and_what_differs(name: str) -> None:
    header = str(load(name).__doc__)
    assert "\nPaper: " in header
    assert "\nDiffers: " in header


def test_header_ends_with_the_licence(name: str) -> None:
    assert str(load(name).__doc__).endswith("\nSPDX-License-Identifier: MIT\n")


def test_public_names_are_documented(name: str) -> None:
    module = load(name)
    for key, member in vars(module).items():
        if key.startswith("_") or getattr(member, "__module__", None) != name:
            continue
        assert inspect.getdoc(member), key
        if inspect.isclass(member):
            for method, function in vars(member).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    assert function.__doc__, f"{key}.{method}"
    for method in (module.example, type(module.example()[0]).attention, type(module.example()[0]).forward):
        assert method.__doc__


def test_shapes_are_documented(name: str) -> None:
    module = load(name)
    assert "Shape:" in str(type(module.example()[0]).__doc__)


def test_runs_on_any_device_and_dtype(name: str) -> None:
    text = source(name).read_text()
    for fixed in ("cuda", ".cpu()", ".float()", ".half()", 'device="', "device='"):
        assert fixed not in text, f"hard-coded {fixed}"
