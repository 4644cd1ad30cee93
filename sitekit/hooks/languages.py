"""Two languages from one command: builds the translations after the language that lists them.

`extra.translations` names the configurations to build next, `extra.prefix` the folder a language
stands in below the root of the site.
"""

import logging
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import jieba  # type: ignore[import-untyped]
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.livereload import LiveReloadServer

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

jieba.setLogLevel(logging.WARNING)  # splits Chinese into words for the search; chatty on its first use


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Move a language below its prefix and let all share one colour scheme, stored per root of the site."""
    root = config.site_url or "/"
    config.extra["scope"] = urlsplit(root).path or "/"
    config.site_url = urljoin(root, config.extra["prefix"])
    return config


def on_post_build(config: MkDocsConfig) -> None:
    """Build the translations into folders of the site just written."""
    for file in config.extra.get("translations", []):
        translation = load_config(str(ROOT / file), strict=config.strict, site_url=config.site_url)
        translation.site_dir = str(Path(config.site_dir) / translation.extra["prefix"])
        build(translation)


def on_serve(server: LiveReloadServer, config: MkDocsConfig, builder: object) -> LiveReloadServer:
    """Rebuild on changes of everything a page is made from, in any language."""
    translations = config.extra.get("translations", [])
    folders = [folder for folder in DOCS.iterdir() if folder.is_dir()]
    for path in [*(ROOT / name for name in [*WATCHED, *translations]), *folders]:
        if path.exists():
            server.watch(str(path))
    return server
