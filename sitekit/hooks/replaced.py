"""Lets templates change the HTML of the theme: `super() | replaced(old, new)`."""

from jinja2 import Environment
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files

from sitekit.errors import BuildError


def replaced(html: str, old: str, new: str, count: int = -1) -> str:
    """Return `html` with `new` for `old`.

    Raises:
        BuildError: `old` is not there; an update of the theme would undo the change without a word.
    """
    if old not in html:
        raise BuildError(f"overrides/ replaces {old!r}, which the theme no longer writes")
    return html.replace(old, new, count)


def on_env(env: Environment, config: MkDocsConfig, files: Files) -> Environment:
    """Add the filter."""
    env.filters["replaced"] = replaced
    return env
