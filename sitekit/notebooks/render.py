"""Executed notebook to Markdown: code and outputs become what a page would write by hand."""

import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from sitekit.errors import BuildError
from sitekit.notebooks.cells import Cell, cells, original, place
from sitekit.store import ask
from sitekit.svg import size

ANSI = re.compile(r"\x1b\[[\d;]*m")
Output = dict[str, Any]


def executed(file: Path) -> list[tuple[Cell, list[Output]]]:
    """Return the cells of a notebook below docs/, each with its outputs.

    Raises:
        BuildError: a cell raised or took too long; names the file, the line and the exception.
    """
    outputs = iter(ask("notebook", original(file)))
    return [(cell, next(outputs) if cell.code else []) for cell in cells(file)]


def markdown(notebook: Iterable[tuple[Cell, list[Output]]], file: Path) -> str:
    """Return the text of an executed notebook.

    Raises:
        BuildError: a figure has no description; its cell must start with `# %% alt="..."`.
    """
    return "\n\n".join(part for cell, outputs in notebook for part in _cell(cell, outputs, file))


def _cell(cell: Cell, outputs: list[Output], file: Path) -> list[str]:
    if not cell.code:
        return [cell.source]
    shown = [_output(output, cell, file) for output in _joined(outputs)]
    return [_fence("python", cell.source), *shown] if cell.source else []


def _joined(outputs: list[Output]) -> list[Output]:
    """Join the pieces in which a kernel happens to send what a cell prints."""
    joined: list[Output] = []
    for output in outputs:
        if joined and output["output_type"] == joined[-1]["output_type"] == "stream":
            joined[-1] = joined[-1] | {"text": joined[-1]["text"] + output["text"]}
        else:
            joined.append(output)
    return joined


def _output(output: Output, cell: Cell, file: Path) -> str:
    if output["output_type"] == "stream":
        return _fence("{ .text .atlas-output .no-copy }", ANSI.sub("", output["text"]))
    data = output["data"]
    if "image/svg+xml" in data or "image/png" in data:
        if not cell.alt:
            where = place(file, cell.line)
            raise BuildError(f'{where}: the figure has no description; write # %% alt="..." above')
        return _figure(data, escape(cell.alt))
    if "text/html" in data:
        return f'<div class="atlas-table" tabindex="0">{data["text/html"]}</div>'
    if "text/markdown" in data:
        return str(data["text/markdown"])
    return _fence("{ .text .atlas-output .no-copy }", data["text/plain"])


def _figure(data: dict[str, str], alt: str) -> str:
    if "image/svg+xml" not in data:
        source = f"data:image/png;base64,{data['image/png'].strip()}"
        return f'<div class="atlas-figure"><img alt="{alt}" src="{source}"></div>'
    svg = data["image/svg+xml"].replace("<svg", f'<svg aria-label="{alt}"', 1)
    width, _ = size(svg)
    style = f"max-width: {width * 4 / 3:.0f}px"  # a point is 4/3 pixels
    return f'<div class="atlas-figure" style="{style}">{svg}</div>'


def _fence(language: str, text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
