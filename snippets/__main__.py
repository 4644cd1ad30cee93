"""Command line of the atlas: `python -m snippets [list | show NAME | run NAME]`."""

import argparse
import ast
import importlib.util
import os
import re
import runpy
import sys
from io import TextIOWrapper
from itertools import product
from pathlib import Path

from snippets.catalogue import CATALOGUE, Domain, Mechanism, UnknownMechanismError, Weights, find, fold

ROOT = Path(__file__).parents[1]


def list_mechanisms() -> None:
    """Print every mechanism below its place in the taxonomy and its chapter."""
    width = max(len(slug) for slug in CATALOGUE)
    blocks: dict[str, list[str]] = {}
    for weights, domain in ((None, None), *product(Weights, Domain)):
        place = f"{weights} x {domain}" if weights else "foundations"
        for row in CATALOGUE.values():
            if (row.weights, row.domain) == (weights, domain):
                lines = blocks.setdefault(f"{place}: {row.chapter}", [])
                lines.append(f"  {row.slug:{width}}  {row.title}")
    print("\n\n".join("\n".join([head, *lines]) for head, lines in blocks.items()))


def source(row: Mechanism) -> Path:
    """File of a mechanism."""
    return Path(__file__).parent / f"{row.path}.py"


def titles(row: Mechanism) -> list[str]:
    """Titles of the papers that the module names, the first of them being its own."""
    docstring = ast.get_docstring(ast.parse(source(row).read_text(encoding="utf-8"))) or ""
    papers = re.split(r"\n(?:Code|Differs):", docstring.partition("Paper:")[2])[0]
    return re.findall(r'"([^"]+)"', papers)


def named(name: str) -> Mechanism:
    """Return the mechanism with this slug, title or alias, or the one of the paper with this title.

    Raises:
        UnknownMechanismError: the name is unknown, or several modules come from the paper.

    >>> named("Squeeze-and-Excitation Networks").slug
    'senet'
    """
    try:
        return find(name)
    except UnknownMechanismError:
        papers = {row.slug: [fold(title) for title in titles(row)] for row in CATALOGUE.values()}
    found = [slug for slug, (first, *_) in papers.items() if first == fold(name)]
    found = found or [slug for slug, known in papers.items() if fold(name) in known]
    if not found:
        return find(name)
    if len(found) > 1:
        raise UnknownMechanismError(f"several modules name this paper: {', '.join(sorted(found))}")
    return CATALOGUE[found[0]]


def without_torch(row: Mechanism) -> str:
    """Say in one sentence that this Python has no torch, and which one has."""
    lacking = f"{sys.executable} has no torch"
    for python in (ROOT / ".venv/bin/python", ROOT / ".venv/Scripts/python.exe"):
        if python.exists() and any((ROOT / ".venv").glob("[Ll]ib/**/site-packages/torch")):
            return f"{lacking}, {python} has: run {os.path.relpath(python)} -m snippets run {row.slug}"
    return f"{lacking}: {sys.executable} -m pip install torch, or `make build`, which sets up .venv"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 without torch, or 2 for an unknown name."""
    parser = argparse.ArgumentParser(
        prog="python -m snippets", description="Attention mechanisms, one module each."
    )
    commands = parser.add_subparsers(dest="command", metavar="list | show NAME | run NAME")
    commands.add_parser("list", help="list the mechanisms by taxonomy (the default)")
    for command, text in (("show", "print the source"), ("run", "run the example")):
        commands.add_parser(command, help=text).add_argument(
            "name", help="slug, title, alias or paper's title"
        )
    options = parser.parse_args(arguments)
    try:
        row = named(options.name) if options.command in ("show", "run") else None
    except UnknownMechanismError as error:
        print(error, file=sys.stderr)
        return 2
    if row is None:
        list_mechanisms()
    elif options.command == "show":
        sys.stdout.buffer.write(
            source(row).read_bytes()
        )  # the file as it is, whatever the terminal's encoding
    elif importlib.util.find_spec("torch") is None:
        print(without_torch(row), file=sys.stderr)
        return 1
    else:
        runpy.run_path(str(source(row)), run_name="__main__")
    return 0


def run() -> int:
    """Run `main` on a terminal or a pipe, whatever characters it has and however early it is closed."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # `| head -1` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(run())
