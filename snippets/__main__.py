"""Command line of the atlas: `python -m snippets [list | show NAME | run NAME]`."""

import argparse
import runpy
import sys
from pathlib import Path

from snippets.catalogue import CATALOGUE, Mechanism, UnknownMechanismError, find


def list_mechanisms() -> None:
    """Print every mechanism below its place in the taxonomy."""
    width = max(len(slug) for slug in CATALOGUE)
    heading = ""
    for row in CATALOGUE.values():
        place = f"{row.weights} x {row.domain}" if row.weights and row.domain else "foundations"
        if place != heading:
            print(f"\n{place}" if heading else place)
            heading = place
        print(f"  {row.slug:{width}}  {row.title}")


def source(row: Mechanism) -> Path:
    """File of a mechanism."""
    return Path(__file__).parent / f"{row.path}.py"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 for an unknown name."""
    parser = argparse.ArgumentParser(
        prog="python -m snippets", description="Attention mechanisms, one module each."
    )
    commands = parser.add_subparsers(dest="command", metavar="list | show NAME | run NAME")
    commands.add_parser("list", help="list the mechanisms by taxonomy (the default)")
    for command, text in (("show", "print the source"), ("run", "run the example")):
        commands.add_parser(command, help=text).add_argument("name", help="slug, title or alias")
    options = parser.parse_args(arguments)
    try:
        row = find(options.name) if options.command in ("show", "run") else None
    except UnknownMechanismError as error:
        print(error, file=sys.stderr)
        return 2
    if row is None:
        list_mechanisms()
    elif options.command == "show":
        print(source(row).read_text(encoding="utf-8"), end="")
    else:
        runpy.run_path(str(source(row)), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
