"""Executed notebook to Markdown: code and outputs become what a page would write by hand."""

import re
from copy import copy
from html import escape
from pathlib import Path

import jupytext  # type: ignore[import-untyped]
from nbformat import NotebookNode, from_dict

from sitekit import paths
from sitekit.errors import BuildError
from sitekit.notebooks.cells import original
from sitekit.notebooks.execute import code, line_of
from sitekit.store import ask
from sitekit.svg import size

ANSI = re.compile(r"\x1b\[[\d;]*m")


def executed(file: Path) -> NotebookNode:
    """Return the notebook of a file below docs/ with its outputs.

    Raises:
        BuildError: a cell raised or took too long; names the file, the line and the exception.
    """
    notebook: NotebookNode = jupytext.read(file)
    for cell, outputs in zip(code(notebook), ask("notebook", original(file)), strict=True):
        cell.outputs = from_dict(outputs)  # type: ignore[no-untyped-call]
    return notebook


def markdown(notebook: NotebookNode, file: Path) -> str:
    """Return the text of an executed notebook.

    Raises:
        BuildError: a figure has no description; its cell must start with `# %% alt="..."`.
    """
    return "\n\n".join(part for place in range(len(notebook.cells)) for part in _cell(place, notebook, file))


def _cell(place: int, notebook: NotebookNode, file: Path) -> list[str]:
    cell = notebook.cells[place]
    if cell.cell_type != "code":
        return [cell.source]
    outputs = [_output(output, place, notebook, file) for output in _joined(cell.outputs)]
    return [_fence("python", cell.source), *outputs] if cell.source.strip() else []


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join the pieces in which a kernel happens to send what a cell prints."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1] = copy(joined[-1])
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _output(output: NotebookNode, place: int, notebook: NotebookNode, file: Path) -> str:
    if output.output_type == "stream":
        return _fence("{ .text .atlas-output .no-copy }", ANSI.sub("", output.text))
    data = output.data
    if "image/svg+xml" in data or "image/png" in data:
        alt = notebook.cells[place].metadata.get("alt", "")
        if not alt:
            name = file.relative_to(paths.ROOT) if file.is_relative_to(paths.ROOT) else file
            line = line_of(place, notebook, file)
            raise BuildError(f'{name}:{line}: the figure has no description; write # %% alt="..." above')
        return _figure(data, escape(alt))
    if "text/html" in data:
        return f'<div class="atlas-table" tabindex="0">{data["text/html"]}</div>'
    if "text/markdown" in data:
        return str(data["text/markdown"])
    return _fence("{ .text .atlas-output .no-copy }", data["text/plain"])


def _figure(data: NotebookNode, alt: str) -> str:
    if "image/svg+xml" not in data:
        source = f"data:image/png;base64,{data['image/png'].strip()}"
        return f'<div class="atlas-figure"><img alt="{alt}" src="{source}"></div>'
    svg = data["image/svg+xml"].replace("<svg", f'<svg aria-label="{alt}"', 1)
    width, height = size(svg)
    style = f"max-width: {width * 4 / 3:.0f}px; --ratio: {width / height:.3f}"  # a point is 4/3 pixels
    return f'<div class="atlas-figure" style="{style}">{svg}</div>'


def _fence(language: str, text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
