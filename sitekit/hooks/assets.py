"""Files that are made, not written: the style sheet, the fonts, and each snippet as a download."""

from base64 import b64decode

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from sitekit.kinds import KINDS
from sitekit.paths import ROOT
from sitekit.store import ask
from snippets.catalogue import CATALOGUE

STYLE = "assets/stylesheets/atlas.css"
STYLES = [
    *("palette", "type", "frame", "search", "axes", "parts"),
    *("opening", "panels", "comparison", "models", "diagram", "print"),
]
"""One request."""


def style_sheet() -> str:
    """Return all style sheets as one."""
    return "\n".join((ROOT / "styles" / f"{name}.css").read_text(encoding="utf-8") for name in STYLES)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the style sheet, the fonts, and each snippet as `snippets/<path>.py`."""
    files.append(File.generated(config, STYLE, content=style_sheet()))
    for kind in ("font", "face"):
        for name in KINDS[kind].names():
            content = b64decode(ask(kind, name))
            files.append(File.generated(config, f"assets/{name}.woff2", content=content))
    for name in (f"snippets/{row.path}.py" for row in CATALOGUE.values()):
        if (ROOT / name).exists():  # the tests name a mechanism without its file
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files
