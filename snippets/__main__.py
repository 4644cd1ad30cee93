"""Command line of the atlas: `python -m snippets`, or `attention-atlas` where it is installed."""

import argparse
import importlib.util
import os
import runpy
import sys
from io import TextIOWrapper
from itertools import product
from pathlib import Path

from . import copies
from .catalogue import CATALOGUE, Domain, Mechanism, UnknownMechanismError, Weights
from .changes import changes
from .lookup import named, source

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


def without_torch(row: Mechanism) -> str:
    """Say in one sentence that this Python has no torch, and which one has."""
    lacking = f"{sys.executable} has no torch"
    for python in (ROOT / ".venv/bin/python", ROOT / ".venv/Scripts/python.exe"):
        if python.exists() and any((ROOT / ".venv").glob("[Ll]ib/**/site-packages/torch")):
            return f"{lacking}, {python} has: run {os.path.relpath(python)} -m {__package__} run {row.slug}"
    return f"{lacking}: {sys.executable} -m pip install torch, or `make build`, which sets up .venv"


def status(folder: Path) -> None:
    """Print the state of each copy."""
    for copy in copies.copies(folder):
        print(f"{copy.file}: {copy.state} (atlas {copy.version})")


def update(folder: Path) -> None:
    """Print what changes in each copy that is behind, and what becomes of each copy."""
    for copy in copies.copies(folder):
        print("\n".join([*copies.update(copy), f"{copy.file}: {outcome(copy)}"]))


def outcome(copy: copies.Copy) -> str:
    """What `update` does with a copy."""
    if not copy.behind:
        return copy.state
    return "edited, so it stays as it is" if copy.edited else "replaced"


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(
        prog=f"python -m {__package__}", description="Attention mechanisms, one module each."
    )
    commands = found.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("list", help="list the mechanisms by taxonomy (the default)")
    for command, names, text in (
        ("show", ["name"], "print the source"),
        ("run", ["name"], "run the example"),
        ("diff", ["old", "new"], "print what changes from one module to another, without docstrings"),
    ):
        asked = commands.add_parser(command, help=text)
        for name in names:
            asked.add_argument(name, help="slug, title, alias or paper's title")
    asked = commands.add_parser("add", help="copy modules into a project")
    asked.add_argument("names", nargs="+", metavar="name", help="slug, title, alias or paper's title")
    asked.add_argument("--to", type=Path, default=Path(), metavar="FOLDER", help="made if it is not there")
    for command, text in (
        ("status", "say which copies were edited or are behind"),
        ("update", "show what changed in copies that are behind, replace those not edited"),
    ):
        asked = commands.add_parser(command, help=text)
        asked.add_argument("folder", type=Path, nargs="?", default=Path(), help="all copies in it and below")
    return found


def answer(options: argparse.Namespace) -> int:
    """Do what was asked and return the exit status."""
    match options.command:
        case "show":
            # the file as it is, whatever the encoding of the terminal
            sys.stdout.buffer.write(source(named(options.name)).read_bytes())
        case "run":
            row = named(options.name)
            if importlib.util.find_spec("torch") is None:
                print(without_torch(row), file=sys.stderr)
                return 1
            runpy.run_path(str(source(row)), run_name="__main__")
        case "diff":
            print("\n".join(changes(named(options.old), named(options.new))))
        case "add":
            print("\n".join(map(str, copies.add(map(named, options.names), options.to))))
        case "status":
            status(options.folder)
        case "update":
            update(options.folder)
        case _:
            list_mechanisms()
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 without torch, or 2 for what cannot be done."""
    try:
        return answer(parser().parse_args(arguments))
    except (UnknownMechanismError, copies.CopyError) as error:
        print(error, file=sys.stderr)
        return 2


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
