"""Two languages from one command: builds the translations beside the language that lists them.

`extra.translations` names their configurations, each below the folder it is written to; that folder is the
`extra.prefix` of the translation.
"""

import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import jieba  # type: ignore[import-untyped]
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import Abort, MkDocsException
from mkdocs.livereload import LiveReloadServer
from mkdocs.structure.files import Files

from sitekit import run
from sitekit.notebooks.execute import execute
from sitekit.paths import DOCS, ROOT

WATCHED = [
    "snippets",
    "figures",
    "overrides",
    "styles",
    "mkdocs.base.yml",
    "docs/references.bib",
    "docs/proofs.json",
]

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
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            notebooks = [pool.submit(execute, file) for file in Path(config.docs_dir).glob("notebooks/*.py")]
            run.refresh()
        for notebook in notebooks:
            notebook.result()
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
    except MkDocsException as error:
        sys.exit(str(error))


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


def on_build_error(error: Exception) -> None:
    """Stop the translations."""
    for process in _running.values():
        process.terminate()
        process.join()
    _running.clear()


def on_serve(server: LiveReloadServer, config: MkDocsConfig, builder: object) -> LiveReloadServer:
    """Rebuild on changes of everything a page is made from, in any language."""
    folders = [folder for folder in DOCS.iterdir() if folder.is_dir()]
    for path in [*(ROOT / name for name in [*WATCHED, *_translations(config).values()]), *folders]:
        if path.exists():
            server.watch(str(path))
    return server


def _translations(config: MkDocsConfig) -> dict[str, str]:
    return config.extra.get("translations") or {}
