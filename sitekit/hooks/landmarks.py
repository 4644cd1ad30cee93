"""Names for the parts of the navigation: the theme lets them refer to a label that holds only an icon."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

from sitekit.errors import BuildError

PART = re.compile(r'aria-labelledby="(__nav_\w+)_label"([^>]*>\s*<label class="md-nav__title") for="\1"')
ANY = re.compile(r'<nav\b[^>]* data-md-level="[1-9]')


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Let each part refer to its title.

    Raises:
        BuildError: a part does not look as expected; an update of the theme would take its name.
    """
    output, named = PART.subn(r'aria-labelledby="\1_title"\2 id="\1_title" for="\1"', output)
    if named != len(ANY.findall(output)):
        raise BuildError(f"{page.file.src_uri}: hooks/landmarks.py does not know the theme's navigation")
    return output
