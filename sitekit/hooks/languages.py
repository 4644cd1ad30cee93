"""Two languages from one command: builds the translations beside the language that lists them.

`extra.translations` names their configurations, each below the folder it is written to; that folder is the
`extra.prefix` of the translation.
"""

from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import Abort
from mkdocs.structure.files import Files

from sitekit import entries, remembered, store, translations


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Move a language below its prefix and let all share one colour scheme, stored per root of the site."""
    root = config.site_url or "/"
    config.extra["scope"] = urlsplit(root).path or "/"
    config.site_url = urljoin(root, config.extra["prefix"])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Start the translations, each in a process of its own, once the results that all show are there."""
    listed = _listed(config)
    if listed:
        store.refresh()
    for folder, file in listed.items():
        options: dict[str, Any] = {"site_url": config.site_url, "strict": config.strict}
        options["site_dir"] = str(Path(config.site_dir, folder))
        translations.start(file, options)
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Wait for the translations.

    Raises:
        Abort: one of them has failed.
    """
    if failed := translations.wait():
        raise Abort(f"{', '.join(failed)}: the build failed, see above")
    remembered.keep()
    if _listed(config):
        entries.keep_only(store.current())


def on_build_error(error: Exception) -> None:
    """Stop the translations."""
    translations.stop()


def _listed(config: MkDocsConfig) -> dict[str, str]:
    return config.extra.get("translations") or {}
