"""Runs mechanisms in a process of its own: `python -m sitekit.worker senet cbam`.

Writes one line of JSON per mechanism to standard output: `{"slug": ..., "results": ...}`, or "error"
instead of "results"; progress goes to standard error.
"""

import contextlib
import importlib
import json
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import matplotlib
import numpy as np
import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from sitekit import cost, diagram, figure, paths
from sitekit.diagram.names import Names
from sitekit.errors import BuildError
from sitekit.results import Results, to_json
from snippets.catalogue import CATALOGUE, Mechanism

Report = Callable[[str], contextlib.AbstractContextManager[None]]


def compute(mechanism: Mechanism, step: Report) -> Results:
    """Run one mechanism; `step(name)` is entered around each part of the work."""
    with step("cost"):
        module = importlib.import_module(mechanism.module)
        example = cost.example_sizes(module)
        rows = cost.rows(mechanism, module)
        received, attention, returned = _shapes(module, example)
    with step("diagram"):
        _seed()
        block, inputs = module.example()
        diagram_svg = diagram.draw(block, inputs, example)
    with step("figure"):
        _seed()
        figure_svg = _figure(mechanism)
    return Results(
        figure_svg=figure_svg,
        diagram_svg=diagram_svg,
        inputs=received,
        attention=attention,
        outputs=returned,
        parameters_tex=cost.formula_tex(mechanism.parameters, example),
        macs_tex=cost.formula_tex(mechanism.macs, example),
        rows=rows,
    )


def main(slugs: list[str]) -> None:
    """Compute the named mechanisms; one that fails does not stop the others."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a snippet prints is not an answer
    with tqdm(total=len(slugs), unit="mechanism", disable=not sys.stderr.isatty()) as bar:
        for number, slug in enumerate(slugs, 1):
            times: list[str] = []
            answer: dict[str, object] = {"slug": slug}
            try:
                answer["results"] = to_json(compute(CATALOGUE[slug], _reporter(slug, times, bar)))
            except Exception as error:
                answer["error"] = explain(slug, error)
            bar.update()
            if bar.disable:
                print(f"[{number}/{len(slugs)}] {slug}", *times, sep="  ", flush=True)
            print(json.dumps(answer), file=answers, flush=True)


def explain(slug: str, error: Exception) -> str:
    """Return one line: mechanism, file and line of the innermost frame that is ours, what went wrong."""
    if isinstance(error, BuildError):
        return f"{slug}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f"{path.relative_to(paths.ROOT)}:{frame.lineno}"
        for frame in frames
        if (path := Path(frame.filename)).is_relative_to(paths.ROOT) and "site-packages" not in path.parts
    ]
    message = str(error).strip() or "no message"
    return f"{slug}: {ours[-1]}: {type(error).__name__}: {message}"


def _reporter(slug: str, times: list[str], bar: tqdm) -> Report:
    @contextlib.contextmanager
    def step(name: str) -> Iterator[None]:
        bar.set_description(f"{slug}: {name}")
        start = time.perf_counter()
        yield
        times.append(f"{name} {time.perf_counter() - start:.1f} s")

    return step


def _shapes(module: ModuleType, example: dict[str, int]) -> tuple[tuple[str, ...], ...]:
    """Return the shapes of inputs, g(x) and f(g(x), x) in the symbols of the example."""
    names = Names(example)
    block, inputs = module.example()
    with torch.no_grad():
        groups = (inputs, block.attention(*inputs), block(*inputs))
    return tuple(tuple(names.shape(tensor.shape) for tensor in cost.tensors(group)) for group in groups)


def _figure(mechanism: Mechanism) -> str:
    if not (paths.ROOT / "figures" / f"{mechanism.path}.py").is_file():
        return ""
    module = importlib.import_module("figures." + mechanism.path.replace("/", "."))
    with matplotlib.rc_context():
        return figure.to_svg(module.figure(), mechanism.slug)


def _seed() -> None:
    """Make results independent of what ran before."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # sums in another order would draw another figure
    np.random.seed(0)
    random.seed(0)


if __name__ == "__main__":
    main(sys.argv[1:])
