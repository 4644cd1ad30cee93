"""Sets aside what the search leaves out of a page, while it reads it: drawings, formulas and code."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import CombinedEvent, event_priority
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from mkdocs.utils.templates import TemplateContext

from sitekit.markdown.unsearched import CODE, MARK

LEFT_OUT = re.compile(rf"<(svg|math)\b.*?</\1>|(?<={CODE}{MARK}>)<pre.*?</pre>", re.DOTALL)
PLACE = re.compile(r"<!--set aside (\d+)-->")

_aside: list[str] = []


@event_priority(50)
def _set_aside(
    context: TemplateContext, page: Page, config: MkDocsConfig, nav: Navigation
) -> TemplateContext:
    """Before the search reads the page."""
    _aside.clear()

    def comment(found: re.Match[str]) -> str:
        _aside.append(found[0])
        return f"<!--set aside {len(_aside) - 1}-->"

    page.content = LEFT_OUT.sub(comment, page.content or "")
    return context


@event_priority(-50)
def _put_back(context: TemplateContext, page: Page, config: MkDocsConfig, nav: Navigation) -> TemplateContext:
    """After it."""
    page.content = PLACE.sub(lambda found: _aside[int(found[1])], page.content or "")
    return context


on_page_context = CombinedEvent(_set_aside, _put_back)
