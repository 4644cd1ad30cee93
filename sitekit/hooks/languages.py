"""Two languages from one command: builds the translations beside the language that lists them.

`extra.translations` names their configurations, each below the folder it is written to; that folder is the
`extra.prefix` of the translation.
"""

import logging
import sys
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import jieba  # type: ignore[import-untyped]
from click import ClickException
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import Abort
from mkdocs.structure.files import Files

from sitekit import entries, store
from sitekit.paths import ROOT

_running: dict[str, ForkProcess] = {}  # by configuration

jieba.setLogLevel(logging.WARNING)  # splits Chinese into words for the search; chatty on its first use


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Move a language below its prefix and let all share one colour scheme, stored per root of the site."""
    root = config.site_url or "/"
    config.extra["scope"] = urlsplit(root).path or "/"
    config.site_url = urljoin(root, config.extra["prefix"])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Start the translations, each in a process of its own, once the results that all show are there."""
    translations = _translations(config)
    if translations:
        store.refresh()
    for folder, file in translations.items():
        options: dict[str, Any] = {"site_url": config.site_url, "strict": config.strict}
        options["site_dir"] = str(Path(config.site_dir, folder))
        _running[file] = get_context("fork").Process(target=_build, args=(file, options))
        _running[file].start()
    return files


def _build(file: str, options: dict[str, Any]) -> None:
    """Build one translation; the process ends with status 1 and in words if that fails."""
    _running.clear()
    try:
        build(load_config(str(ROOT / file), **options))
    except ClickException as error:
        sys.exit(f"{file}: {error.format_message()}")


def on_post_build(config: MkDocsConfig) -> None:
    """Wait for the translations.

    Raises:
        Abort: one of them has failed; it has said why.
    """
    for process in _running.values():
        process.join()
    failed = [file for file, process in _running.items() if process.exitcode]
    _running.clear()
    if failed:
        raise Abort(f"{', '.join(failed)}: the build failed, see above")
    if _translations(config):
        entries.keep_only(store.current())


def on_build_error(error: Exception) -> None:
    """Stop the translations."""
    for process in _running.values():
        process.terminate()
        process.join()
    _running.clear()


def _translations(config: MkDocsConfig) -> dict[str, str]:
    return config.extra.get("translations") or {}
