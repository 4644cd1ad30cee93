"""Checks that a snippet cannot pass: `EXCEPTIONS` in the proof file of a mechanism, each with its reason.

An entry is run all the same and must fail: when it passes, it is no longer needed and the run goes red.
"""

import ast
from pathlib import Path

from sitekit import steps
from snippets.catalogue import CATALOGUE
from tests.conftest import ROOT

Reasons = dict[str, dict[str, str]]  # by test, then by case: `hamburger`, `hamburger:vq`


def stated(file: Path) -> Reasons:
    """Return the exceptions that a proof file states; read, for to import it may need large packages."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else ():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXCEPTIONS":
            found: Reasons = ast.literal_eval(node.value)
            return found
    return {}


STATED = {slug: stated(ROOT / steps.proof(row)) for slug, row in CATALOGUE.items()}
"""By mechanism."""


def reasons(check: str) -> dict[str, str]:
    """Return why cases cannot pass a test, by case."""
    return {case: why for found in STATED.values() for case, why in found.get(check, {}).items()}
