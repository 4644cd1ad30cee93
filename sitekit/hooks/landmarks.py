"""Names for the parts of the navigation: the theme lets them refer to a label that holds only an icon."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

PART = re.compile(r'aria-labelledby="(__nav_\w+)_label"([^>]*>\s*<label class="md-nav__title") for="\1"')


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    return PART.sub(r'aria-labelledby="\1_title"\2 id="\1_title" for="\1"', output)
