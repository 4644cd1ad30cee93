"""What several hooks do: ask for the language of a site, write a file beside its pages."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

from sitekit.language import LANGUAGES, Language


def language_of(config: MkDocsConfig) -> Language:
    """Return the language of the site that is built."""
    return LANGUAGES[config.mdx_configs["sitekit.markdown.extension"]["language"]]


def write(name: str, content: bytes, config: MkDocsConfig) -> None:
    """Write a file of the site."""
    file = Path(config.site_dir, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
