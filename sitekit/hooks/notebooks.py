"""Notebooks are pages: a file `notebooks/NAME.py` becomes Markdown with what its cells have put out."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from sitekit.notebooks.render import executed, markdown

FOLDER = "notebooks/"


class Notebook(File):
    """A Python file that is a page."""

    def is_documentation_page(self) -> bool:
        return True


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Let the generator see pages where it saw files to copy."""
    for file in list(files):
        if file.src_uri.startswith(FOLDER) and file.src_uri.endswith(".py"):
            files.remove(file)
            files.append(Notebook(file.src_uri, config.docs_dir, config.site_dir, config.use_directory_urls))
    return files


def on_page_read_source(page: Page, config: MkDocsConfig) -> str | None:
    """Return the executed notebook as Markdown; None leaves other pages alone."""
    if not isinstance(page.file, Notebook):
        return None
    file = Path(page.file.abs_src_path or "")
    return markdown(executed(file), file)
