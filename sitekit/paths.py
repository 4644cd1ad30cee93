"""The places the site machinery reads from and writes to."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CACHE = ROOT / ".sitecache"
LANGUAGES = ("en", "zh")
"""Folders of DOCS, English first."""
