"""Names of files: one name, one meaning."""

from collections import defaultdict
from itertools import chain
from pathlib import Path

from tests.conftest import ROOT

FOLDERS = ("benchmarks", "deploy", "figures", "sitekit", "snippets", "tests")
SHARED = {
    "__init__.py": "Python asks for it",
    "__main__.py": "Python asks for it",
    "conftest.py": "pytest asks for it",
    "cost.py": "one result: counted, shown as a part",
    "figure.py": "one result: drawn, shown as a part",
    "growth.py": "one result: measured, drawn, shown as a part",
    "onnx.py": "one result: measured, shown as a part",
    "memory.py": "the proofs count memory as the benchmarks do",
}


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
