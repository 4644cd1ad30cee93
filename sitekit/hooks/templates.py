"""Keeps compiled templates, by their content, from build to build."""

from jinja2 import Environment, FileSystemBytecodeCache
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files

from sitekit.paths import CACHE

FOLDER = CACHE / "templates"


def on_env(env: Environment, config: MkDocsConfig, files: Files) -> Environment:
    """Let jinja keep what it compiles."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    env.bytecode_cache = FileSystemBytecodeCache(str(FOLDER))
    return env
