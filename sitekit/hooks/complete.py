"""First of all: says in one message whatever is missing of all mechanisms."""

from mkdocs.config.defaults import MkDocsConfig

from sitekit import steps
from snippets.catalogue import CATALOGUE


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Refuse an atlas of which something is missing.

    Raises:
        BuildError: names all of it.
    """
    steps.check(CATALOGUE.values())
    return config
