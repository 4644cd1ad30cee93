"""Runs a notebook in a kernel of its own."""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext  # type: ignore[import-untyped]
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from traitlets.config import Config

from sitekit import paths
from sitekit.errors import BuildError
from sitekit.svg import clean

SVG = "image/svg+xml"
TIMEOUT = 300  # seconds for one cell
DRAWING = (
    "--InlineBackend.figure_formats={'svg'}",
    "--InlineBackend.rc={'figure.facecolor': 'none', 'axes.facecolor': 'none', 'svg.fonttype': 'none',"
    " 'svg.hashsalt': 'notebook'}",
    "--InlineBackend.print_figure_kwargs={'bbox_inches': 'tight', 'metadata': {'Date': None}}",
)


def make(name: str) -> list[list[NotebookNode]]:
    """Return the outputs of each cell of code of docs/<name>.py.

    Raises:
        BuildError: a cell raised or took too long; names the file, the line and the exception.
    """
    file = paths.DOCS / f"{name}.py"
    notebook: NotebookNode = jupytext.read(file)
    _run(notebook, file)
    for place, cell in enumerate(notebook.cells):
        for data in (output.data for output in cell.get("outputs", ()) if "data" in output):
            if SVG in data:
                data[SVG] = clean(data[SVG], f"cell-{place}")
    return [cell.outputs for cell in code(notebook)]


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def line_of(cell: int, notebook: NotebookNode, file: Path) -> int:
    """Return the number of the line in `file` at which code cell `cell` of `notebook` starts."""
    text = file.read_text(encoding="utf-8")
    end = 0
    for before in notebook.cells[: cell + 1]:
        if before.cell_type == "code":
            start = text.find(before.source, end)
            end = start + len(before.source)
    return text.count("\n", 0, start) + 1


def _run(notebook: NotebookNode, file: Path) -> None:
    settings = {
        "IPYTHONDIR": str(paths.CACHE / "ipython"),  # not the profile of whoever builds
        "PYTHONPATH": str(paths.ROOT),
    }
    (paths.CACHE / "ipython").mkdir(parents=True, exist_ok=True)
    config = Config()
    with TemporaryDirectory() as sockets:
        if os.name == "posix":  # over TCP, the kernel warns that its traffic is not encrypted
            config.KernelManager = Config(transport="ipc", ip=f"{sockets}/kernel")
        client = NotebookClient(
            notebook, kernel_name="python3", timeout=TIMEOUT, extra_arguments=list(DRAWING), config=config
        )
        try:
            client.execute(cwd=str(paths.ROOT), env=os.environ | settings)
        except (CellExecutionError, CellTimeoutError) as error:
            raise BuildError(_explain(error, notebook, file)) from error


def _explain(error: CellExecutionError | CellTimeoutError, notebook: NotebookNode, file: Path) -> str:
    cells = [place for place, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    place = max((place for place in cells if notebook.cells[place].get("execution_count")), default=cells[0])
    line = line_of(place, notebook, file)
    if isinstance(error, CellExecutionError):
        inside = re.search(r"Cell In ?\[\d+\], line (\d+)", re.sub(r"\x1b\[[\d;]*m", "", error.traceback))
        line += int(inside[1]) - 1 if inside else 0
        reason = f"{error.ename}: {error.evalue}"
    else:
        reason = f"the cell took more than {TIMEOUT} s"
    name = file.relative_to(paths.ROOT) if file.is_relative_to(paths.ROOT) else file
    return f"{name}:{line}: {reason}"
