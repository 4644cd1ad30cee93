"""Tells the foot of each page which release it belongs to: number, date and licence from CITATION.cff."""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.utils.yaml import yaml_load

from sitekit.paths import ROOT


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the release where templates find it."""
    config.extra["release"] = yaml_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return config
