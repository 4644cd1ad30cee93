"""llms.txt: what the site is, and a link to the plain Markdown of every page, grouped as the navigation."""

import re
from collections.abc import Iterator

from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

from sitekit.language import Language
from sitekit.markdown.linebreaks import joined
from sitekit.pieces.prose import without_links
from sitekit.plain.page import plain_name

SENTENCE = re.compile(r".*?(?:[.!?](?=\s+[A-Z])|。|$)", re.DOTALL)
NOT_TEXT = ("#", "`", "<", "|", "!", "$")


def overview(navigation: Navigation, title: str, summary: str, language: Language) -> str:
    """Return the file: heading, summary, then a list for each section."""
    alone = [item for item in navigation.items if isinstance(item, Page)]
    parts = [f"# {title}", f"> {summary}", _list(alone, language)]
    for item in navigation.items:
        if isinstance(item, Section):
            parts += _section(item, item.title, language)
    return "\n\n".join(parts) + "\n"


def first_sentence(markdown: str) -> str:
    """Return the first sentence of a page below its heading, as text.

    >>> first_sentence("# A\\n\\nOne [gate](x.md) per channel\\n[@b2020]. Two.")
    'One gate per channel.'
    """
    paragraphs = (paragraph.strip() for paragraph in markdown.split("\n\n"))
    prose = next((text for text in paragraphs if text and not text.startswith(NOT_TEXT)), "")
    found = SENTENCE.match(" ".join(joined(without_links(prose)).split()))
    return found[0].strip() if found else ""


def _section(section: Section, heading: str, language: Language) -> Iterator[str]:
    """Yield heading and list of a section, then those of the sections in it, named with their parents."""
    yield f"## {heading}"
    yield _list([item for item in section.children if isinstance(item, Page)], language)
    for item in section.children:
        if isinstance(item, Section):
            yield from _section(item, f"{heading} › {item.title}", language)


def _list(pages: list[Page], language: Language) -> str:
    return "\n".join(
        f"- [{page.title}]({plain_name(page.file.src_uri)})"
        f"{language.colon}{first_sentence(page.markdown or '')}"
        for page in pages
    )
