"""What the fences of a page say, read without building it."""

import re

from sitekit import paths


def body(name: str, path: str, language: str) -> str:
    """Return the body of the first fence of this name on the page of the mechanism at `path`, "" if none."""
    page = paths.DOCS / language / (path.replace("_", "-") + ".md")
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    found = re.search(rf"^```{name}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""
