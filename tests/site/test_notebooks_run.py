"""The notebooks: plain scripts that find `snippets` on the path, the same code in both languages."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

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
    english, chinese = (
        jupytext.read(DOCS / language / "notebooks" / name).cells for language in ("en", "zh")
    )
    assert [cell.cell_type for cell in english] == [cell.cell_type for cell in chinese]
    for one, other in zip(english, chinese, strict=True):
        assert set(one.metadata) == set(other.metadata), one.source
        if one.cell_type == "code":
            assert one.source == other.source
        elif one.cell_type == "markdown":
            assert one.source != other.source


def test_no_notebook_exists_in_one_language_alone() -> None:
    assert [file.name for file in sorted((DOCS / "zh" / "notebooks").glob("*.py"))] == NOTEBOOKS
