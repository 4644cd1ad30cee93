"""Translations are built beside the language that lists them, each in a process of its own."""

import logging
import sys
from multiprocessing.process import BaseProcess
from typing import Any

from click import ClickException
from mkdocs.commands.build import build
from mkdocs.config import load_config

from sitekit.paths import ROOT
from sitekit.processes import CONTEXT

_running: dict[str, BaseProcess] = {}  # by configuration


def start(file: str, options: dict[str, Any]) -> None:
    """Start the build of one translation."""
    _running[file] = CONTEXT.Process(target=_build, args=(file, options))
    _running[file].start()


def _build(file: str, options: dict[str, Any]) -> None:
    """Build one translation; the process ends with status 1 and in words if that fails."""
    _running.clear()
    logging.basicConfig(format="%(levelname)s - %(message)s")  # what a fork has from its parent
    try:
        build(load_config(str(ROOT / file), **options))
    except ClickException as error:
        sys.exit(f"{file}: {error.format_message()}")


def wait() -> list[str]:
    """Wait for all; return those that failed, which have said why."""
    for process in _running.values():
        process.join()
    failed = [file for file, process in _running.items() if process.exitcode]
    _running.clear()
    return failed


def stop() -> None:
    """End all."""
    for process in _running.values():
        process.terminate()
        process.join()
    _running.clear()
