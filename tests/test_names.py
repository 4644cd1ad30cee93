"""Names of files: one name, one meaning, and what the texts name is there."""

import re
from collections import defaultdict
from itertools import chain
from pathlib import Path

import pytest

from tests.conftest import ROOT

FOLDERS = ("benchmarks", "census", "deploy", "figures", "sitekit", "snippets", "tests")
SHARED = {
    "__init__.py": "Python asks for it",
    "__main__.py": "Python asks for it",
    "conftest.py": "pytest asks for it",
    "cost.py": "one result: counted, shown as a part",
    "index.py": "the figure of a folder's first page, named as the page",
    "figure.py": "one result: drawn, shown as a part",
    "growth.py": "one result: measured, drawn, shown as a part",
    "onnx.py": "one result: measured, shown as a part",
    "memory.py": "the proofs count memory as the benchmarks do",
}


TEXTS = ("README.md", "README.zh.md", "CONTRIBUTING.md", "ARCHITECTURE.md")


@pytest.mark.parametrize("text", TEXTS)
def test_every_file_that_a_text_names_is_there(text: str) -> None:
    known = [file.relative_to(ROOT).as_posix() for folder in FOLDERS for file in (ROOT / folder).rglob("*")]
    named = re.findall(rf"`((?:(?:{'|'.join(FOLDERS)})/[\w./]*|\w+\.py))`", (ROOT / text).read_text("utf-8"))
    assert [
        name
        for name in named
        if not any(f"/{file}".endswith(f"/{name.rstrip('/')}") for file in [*FOLDERS, *known])
    ] == []


def test_no_two_files_of_one_name_mean_different_things() -> None:
    """A module and its figure are one mechanism: they have the same path below their folders."""
    paths: dict[str, set[Path]] = defaultdict(set)
    for file in chain.from_iterable((ROOT / folder).rglob("*.py") for folder in FOLDERS):
        _, *below = file.relative_to(ROOT).parts
        mirrored = file.is_relative_to(ROOT / "figures") or file.is_relative_to(ROOT / "snippets")
        paths[file.name].add(Path(*below) if mirrored else file.relative_to(ROOT))
    twice = {name: sorted(found) for name, found in paths.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in SHARED} == {}
    assert SHARED.keys() - twice.keys() == set()
