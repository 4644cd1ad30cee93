"""A folder in `nav` stands for its pages: index.md, then the catalogue's order, then by name.

So a new mechanism needs no line in `nav`. A folder without pages is left out.
"""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig

from snippets.catalogue import CATALOGUE

ORDER = [row.path.replace("_", "-") for row in CATALOGUE.values()]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.nav = expand(config.nav or [], Path(config.docs_dir))
    return config


def expand(nav: list[Any], docs: Path) -> list[Any]:
    """Replace each folder (`foundations/`) in `nav` by the list of its pages below `docs`."""
    expanded: list[Any] = []
    for entry in nav:
        title, target = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(target, list):
            target = expand(target, docs)
        elif target.endswith("/"):
            target = pages(target, docs)
        if title is None:
            expanded += target if isinstance(target, list) else [target]
        elif target:
            expanded.append({title: target})
    return expanded


def pages(folder: str, docs: Path) -> list[str]:
    """Pages of `folder` in reading order, as paths below `docs`."""
    files = [file for file in (docs / folder).glob("*") if file.suffix in {".md", ".py"}]
    return sorted((file.relative_to(docs).as_posix() for file in files), key=_place)


def _place(page: str) -> tuple[int, str]:
    name = page.rpartition(".")[0]
    if name.endswith("/index"):
        return -1, name
    return ORDER.index(name) if name in ORDER else len(ORDER), name
