"""Checks one mechanism in seconds: `python -m sitekit.check senet`, or `make check NAME=senet`.

First it says which of its files are missing. Then it runs contract, proof, doctests and the code of the page,
and makes cost, diagram, figure and both pages.
"""

import argparse
import subprocess
import sys
import time

import markdown  # type: ignore[import-untyped]
from mkdocs.config import load_config
from mkdocs.utils.meta import get_data

from sitekit import paths, steps, store
from sitekit.errors import BuildError
from sitekit.kinds import explores
from sitekit.pages import page
from snippets.catalogue import Mechanism, UnknownMechanismError, find

CONFIGURATIONS = ("mkdocs.yml", "mkdocs.zh.yml")


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0, 1 if something is missing or wrong, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m sitekit.check", description=__doc__)
    parser.add_argument("name", help="slug, title or alias")
    start = time.perf_counter()
    try:
        mechanism = find(parser.parse_args(arguments).name)
        steps.check([mechanism])
        make_pages(mechanism)
    except UnknownMechanismError as error:
        print(error, file=sys.stderr)
        return 2
    except BuildError as error:
        print(error.format_message(), file=sys.stderr)
        return 1
    failed = run_tests(mechanism)
    print(f"{mechanism.slug}: {'failed' if failed else 'passed'} in {time.perf_counter() - start:.0f} s")
    return int(failed)


def make_pages(mechanism: Mechanism) -> None:
    """Make what running the mechanism yields, if it is stale, and convert its pages.

    Raises:
        BuildError: something is wrong; says file and line.
    """
    wanted = [("cost", mechanism.slug), ("diagram", mechanism.slug), ("figure", mechanism.path)]
    if explores(mechanism.path):
        wanted.append(("exploration", mechanism.path))
    store.refresh(wanted)
    for file in CONFIGURATIONS:
        config = load_config(str(paths.ROOT / file))
        converter = markdown.Markdown(
            extensions=config.markdown_extensions, extension_configs=config.mdx_configs
        )
        text, _ = get_data((paths.ROOT / config.docs_dir / page(mechanism)).read_text(encoding="utf-8"))
        converter.convert(text)


def run_tests(mechanism: Mechanism) -> bool:
    """Run contract, proof, doctests and the code of the page; return whether any failed."""
    module, proof, _, english, _ = steps.files(mechanism)
    tests = ["tests/contract", proof, module, english]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", f"--mechanism={mechanism.slug}", *tests]
    return subprocess.run(command, cwd=paths.ROOT).returncode != 0


if __name__ == "__main__":
    sys.exit(main())
