"""What the site changes in the HTML of the theme: an update of the theme cannot undo it without a word."""

import pytest
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File
from mkdocs.structure.pages import Page

from sitekit.errors import BuildError
from sitekit.hooks import landmarks
from sitekit.hooks.replaced import replaced

PART = """<nav class="md-nav" data-md-level="1" aria-labelledby="__nav_2_label" aria-expanded="true">
<label class="md-nav__title" for="__nav_2">Domains</label></nav>"""


@pytest.fixture
def page() -> Page:
    config = MkDocsConfig()
    config.load_dict({"docs_dir": "docs", "site_dir": "site"})
    return Page("Home", File("index.md", "docs", "site", use_directory_urls=True), config)


def test_what_is_replaced_must_be_there() -> None:
    assert replaced("<p><p>", "<p>", "<b>", 1) == "<b><p>"
    with pytest.raises(BuildError, match=r'replaces \'role="dialog"\', which the theme no longer writes'):
        replaced("<dialog>", 'role="dialog"', "")


def test_parts_of_the_navigation_are_named_by_their_titles(page: Page) -> None:
    named = landmarks.on_post_page(PART, page, MkDocsConfig())
    assert 'aria-labelledby="__nav_2_title"' in named
    assert '<label class="md-nav__title" id="__nav_2_title" for="__nav_2">' in named


def test_unknown_navigation_is_refused(page: Page) -> None:
    with pytest.raises(BuildError, match=r"index\.md: hooks/landmarks\.py does not know"):
        landmarks.on_post_page(PART + PART.replace("__title", "-title"), page, MkDocsConfig())
