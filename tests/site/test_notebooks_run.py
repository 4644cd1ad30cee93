"""The notebooks: plain scripts that find `snippets` on the path, the same code in both languages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sitekit.notebooks.cells import cells

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOKS = sorted(file.name for file in (DOCS / "en" / "notebooks").glob("*.py"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs_as_a_script(name: str, tmp_path: Path) -> None:
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(DOCS.parent)}
    command = [sys.executable, "-W", "ignore:FigureCanvasAgg", str(DOCS / "en" / "notebooks" / name)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_both_languages_have_the_same_cells(name: str) -> None:
    english, chinese = (cells(DOCS / language / "notebooks" / name) for language in ("en", "zh"))
    for one, other in zip(english, chinese, strict=True):
        assert (one.code, bool(one.alt)) == (other.code, bool(other.alt)), one.source
        assert (one.source == other.source) == one.code


def test_no_notebook_exists_in_one_language_alone() -> None:
    assert [file.name for file in sorted((DOCS / "zh" / "notebooks").glob("*.py"))] == NOTEBOOKS
