"""Runs a notebook in a kernel of its own; keeps the outputs until its code or what it imports changes.

Translations of a notebook have the same code, so they share the outputs.
"""

import hashlib
import os
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext  # type: ignore[import-untyped]
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from traitlets.config import Config

from sitekit import paths, store
from sitekit.errors import BuildError
from sitekit.sources import closure

TIMEOUT = 300  # seconds for one cell
PACKAGES = ("torch", "matplotlib", "numpy", "scikit-image", "scikit-learn", "ipykernel")
DRAWING = (
    "--InlineBackend.figure_formats={'svg'}",
    "--InlineBackend.rc={'figure.facecolor': 'none', 'axes.facecolor': 'none', 'svg.fonttype': 'none',"
    " 'svg.hashsalt': 'notebook'}",
    "--InlineBackend.print_figure_kwargs={'bbox_inches': 'tight', 'metadata': {'Date': None}}",
)


def execute(file: Path) -> NotebookNode:
    """Return the notebook of `file` with outputs, from the cache if nothing it depends on has changed.

    Raises:
        BuildError: a cell raised or took too long; names the file, the line and the exception.
    """
    notebook: NotebookNode = jupytext.read(file)
    code = _code(notebook.cells)
    stored = paths.CACHE / "notebooks" / f"{_cache_key(file, code)}.ipynb"
    outputs = store.read(stored, lambda content: _outputs(content, len(code)))
    if outputs is not None:
        for cell, output in zip(code, outputs, strict=True):
            cell.outputs = output
        return notebook
    start = time.monotonic()
    _run(notebook, file)
    print(f"notebook {file.stem}  {time.monotonic() - start:.1f} s", file=sys.stderr)
    store.write(stored, jupytext.writes(notebook, "ipynb").encode())
    return notebook


def line_of(cell: int, notebook: NotebookNode, file: Path) -> int:
    """Return the number of the line in `file` at which code cell `cell` of `notebook` starts."""
    text = file.read_text(encoding="utf-8")
    end = 0
    for code in _code(notebook.cells[: cell + 1]):
        start = text.find(code.source, end)
        end = start + len(code.source)
    return text.count("\n", 0, start) + 1


def _code(cells: list[NotebookNode]) -> list[NotebookNode]:
    return [cell for cell in cells if cell.cell_type == "code"]


def _outputs(content: bytes, cells: int) -> list[list[NotebookNode]]:
    """Return the outputs of each code cell of a stored notebook, which has so many."""
    found = [cell.outputs for cell in _code(jupytext.reads(content.decode(), "ipynb").cells)]
    if len(found) != cells:
        raise ValueError(f"{len(found)} code cells instead of {cells}")
    return found


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


def _cache_key(file: Path, code: list[NotebookNode]) -> str:
    digest = hashlib.sha256(f"{sys.version} {DRAWING}".encode())
    digest.update("\0".join(cell.source for cell in code).encode())
    for source in sorted(closure([file]) - {file}):
        digest.update(source.read_bytes())
    for package in PACKAGES:
        digest.update(f"{package} {version(package)}".encode())
    return digest.hexdigest()[:32]
