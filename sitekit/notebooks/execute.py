"""Runs a notebook in a kernel of its own."""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from traitlets.config import Config

from sitekit import paths
from sitekit.errors import BuildError
from sitekit.notebooks.cells import Cell, cells, place
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
    code = [cell for cell in cells(file) if cell.code]
    notebook: NotebookNode = new_notebook(cells=[new_code_cell(cell.source) for cell in code])  # type: ignore[no-untyped-call]
    try:
        _run(notebook)
    except (CellExecutionError, CellTimeoutError) as error:
        raise BuildError(_explain(error, notebook, code, file)) from error
    for number, cell in enumerate(notebook.cells):
        for data in (output.data for output in cell.outputs if "data" in output):
            if SVG in data:
                data[SVG] = clean(data[SVG], f"cell-{number}")
    return [cell.outputs for cell in notebook.cells]


def _run(notebook: NotebookNode) -> None:
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
        client.execute(cwd=str(paths.ROOT), env=os.environ | settings)


def _explain(
    error: CellExecutionError | CellTimeoutError, notebook: NotebookNode, code: list[Cell], file: Path
) -> str:
    begun = [cell for cell, run in zip(code, notebook.cells, strict=True) if run.get("execution_count")]
    line = (begun or code)[-1 if begun else 0].line
    if isinstance(error, CellExecutionError):
        inside = re.search(r"Cell In ?\[\d+\], line (\d+)", re.sub(r"\x1b\[[\d;]*m", "", error.traceback))
        line += int(inside[1]) - 1 if inside else 0
        reason = f"{error.ename}: {error.evalue}"
    else:
        reason = f"the cell took more than {TIMEOUT} s"
    return f"{place(file, line)}: {reason}"
