"""Includes: a `--8<-- "path"` line whose file is missing stops the build with the nearest path."""

import re
from difflib import get_close_matches
from pathlib import Path

from markdown.preprocessors import Preprocessor  # type: ignore[import-untyped]
from pymdownx.snippets import SnippetPreprocessor  # type: ignore[import-untyped]

from sitekit.errors import fail

INCLUDE = re.compile(r"""^[ \t]*-+8<-+[ \t]+(["'])(?P<path>[^:"'\n]+)[^"'\n]*\1[ \t]*$""", re.MULTILINE)


class Includes(Preprocessor):  # type: ignore[misc]
    """Uses the search path of pymdownx.snippets, so both always agree on what exists."""

    def run(self, lines: list[str]) -> list[str]:
        if "snippet" not in self.md.preprocessors:
            return lines
        snippets: SnippetPreprocessor = self.md.preprocessors["snippet"]
        for include in INCLUDE.finditer("\n".join(lines)):
            path = include["path"].strip()
            if snippets.get_snippet_path(path) is None:
                near = _nearest(path, [Path(base) for base in snippets.base_path])
                fail(f"included file '{path}' does not exist{near}", include[0].strip())
        return lines


def _nearest(path: str, bases: list[Path]) -> str:
    """Return a hint with the existing file whose path is nearest, or nothing."""
    folders = [
        folder
        for base in bases
        for folder in base.iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
    ]
    suffix = Path(path).suffix
    files = [
        file.relative_to(folder.parent).as_posix()
        for folder in folders
        for file in folder.rglob(f"*{suffix}")
        if file.is_file()
    ]
    near = get_close_matches(path, files, n=1, cutoff=0.4)
    return f"; did you mean '{near[0]}'?" if near else ""
