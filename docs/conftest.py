"""Runs every Python block of the pages; lines that start with `#>` state what the block prints.

The English pages alone: tests/contract/test_pages.py holds the blocks of the Chinese ones against theirs.
"""

import contextlib
import io
import sys
from pathlib import Path

from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

import tests.without_torchvision  # noqa: F401

DOCS = Path(__file__).parent
SNIPPETS = DOCS.parent / "snippets"
collect_ignore_glob = ["*/notebooks/*"]


class PrintedOutput:
    """Runs a block and compares what it prints with its `#>` lines."""

    def __init__(self) -> None:
        self.run = PythonEvaluator()

    def __call__(self, example: Example) -> str | None:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.run(example)
        expected = [line[2:].strip() for line in example.parsed.splitlines() if line.startswith("#>")]
        actual = [line.strip() for line in printed.getvalue().splitlines()]
        return None if actual == expected else f"printed {actual}, the page says {expected}"


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser(language="python", evaluator=PrintedOutput())],
    pattern="*.md",
    path=str(DOCS / "en"),
).pytest()

# A reader saves a module and imports it by its bare name; so do the pages.
for folder in {file.parent for file in SNIPPETS.rglob("*.py") if file.name != "__init__.py"} - {SNIPPETS}:
    sys.path.append(str(folder))
