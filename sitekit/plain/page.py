"""The Markdown of a page as its author wrote it, made plain: what the site adds stands in it as text."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from posixpath import relpath
from urllib.parse import urlsplit

from sitekit import paths, references
from sitekit.closure import digest
from sitekit.language import Language
from sitekit.markdown.citations import cited, in_words
from sitekit.markdown.includes import INCLUDE
from sitekit.markdown.linebreaks import joined
from sitekit.markdown.reconstructions import leads_to_one
from sitekit.parts import PARTS, again
from sitekit.plain.html import to_markdown
from sitekit.remembered import Remembered
from snippets.catalogue import Evidence

FENCE = re.compile(r"(?P<mark>`{3,}|~{3,}) *(?P<info>.*)")
REMARK = re.compile(r'(?:!!!|\?\?\?\+?) +(?P<kind>\S+)(?: +"(?P<title>.*)")?')
HEADING_ID = re.compile(r"^(#+ .*?) *\{#[^}]*\}$")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]*)\]\((?P<target>[^\s()]+)\)")
LITERAL = re.compile(r"(`+[^`]+`+|\$\$[^$]+\$\$|\$[^$\n]+\$)")
COPIED = re.compile(r"^```bibtex\n(\S+)\n```$", re.MULTILINE)
DRAWING = re.compile(r'<svg aria-label="([^"]*)"')


def plain(markdown: str, name: str, language: Language) -> str:
    """Return a page as plain Markdown, with a list of the papers it cites at the end.

    Args:
        markdown: the page without its front matter.
        name: its file, from the root of the language; links lead from there.
        language: of the page.
    """
    text = "\n".join(_lines(markdown.splitlines(), name, language)).strip()
    if keys := _keys(markdown):
        entries = "\n".join(f"- {references.entry_markdown(key)}" for key in references.ordered(keys))
        text += f"\n\n## {language.word('cited')}\n\n{entries}"
    return text + "\n"


def plain_name(source: str) -> str:
    """Return where the plain page stands: beside its source, so that links between pages stay as they are.

    >>> plain_name("notebooks/plug-in.py")
    'notebooks/plug-in.md'
    """
    return PurePosixPath(source).with_suffix(".md").as_posix()


def _lines(lines: list[str], name: str, language: Language) -> Iterator[str]:
    rest = iter(lines)
    prose: list[str] = []
    for line in rest:
        fence, remark = FENCE.fullmatch(line), REMARK.fullmatch(line)
        if not fence and not remark and not line.startswith("<"):
            prose.append(HEADING_ID.sub(r"\1", line))
            continue
        yield _prose("\n".join(prose), language)
        prose = []
        if fence:
            yield from _fence(fence, _until(fence["mark"], rest), name, language)
        elif remark:
            body, following = _indented(rest)
            quoted = "\n".join(_lines(body, name, language)).splitlines()
            yield f"> **{remark['title'] or remark['kind'].capitalize()}**\n>"
            yield from (f"> {inner}".rstrip() for inner in quoted)
            yield "\n".join(["", *_lines(following, name, language)])
        else:
            yield from (f"*{label}*" for label in DRAWING.findall(line)) if "<svg" in line else [line]
    yield _prose("\n".join(prose), language)


def _fence(fence: re.Match[str], body: list[str], name: str, language: Language) -> Iterator[str]:
    part = fence["info"].strip()
    if part not in PARTS:
        info = re.sub(r"\{ *\.(\w+).*\}", r"\1", fence["info"])
        yield from [fence["mark"] + info, *_included(body), fence["mark"]]
    else:
        html = again(part, "\n".join(body), language)

        def text(*_: object) -> str:
            return joined(to_markdown(html, lambda target: _from_page(target, name), language))

        yield known_parts(language).get(text, html, name)


@cache
def known_parts(language: Language) -> Remembered:
    """Return the parts as Markdown that the pages of a language had last."""
    return Remembered(f"plain-{language.code}", digest([Path(__file__)]))


def _included(body: list[str]) -> Iterator[str]:
    for line in body:
        include = INCLUDE.fullmatch(line)
        yield (paths.ROOT / include["path"].strip()).read_text(encoding="utf-8").rstrip() if include else line


def _until(mark: str, lines: Iterator[str]) -> list[str]:
    body = []
    for line in lines:
        if line.strip() == mark:
            break
        body.append(line)
    return body


def _indented(lines: Iterator[str]) -> tuple[list[str], list[str]]:
    """Return the indented lines that follow, dedented, and all lines after them."""
    found = list(lines)
    size = next((place for place, line in enumerate(found) if line[:4].strip()), len(found))
    return "\n".join(line[4:] for line in found[:size]).strip().splitlines(), found[size:]


def _prose(text: str, language: Language) -> str:
    pieces = LITERAL.split(text)
    pieces[::2] = (_linked(in_words(piece, language), language) for piece in pieces[::2])
    return joined("".join(pieces))


def _linked(text: str, language: Language) -> str:
    """Return text with links that lead somewhere, in which a link to a reconstruction says so."""
    mark = language.word(f"evidence {Evidence.RECONSTRUCTION}")

    def shown(link: re.Match[str]) -> str:
        return _reachable(link) + (language.aside(mark) if leads_to_one(link["target"]) else "")

    return LINK.sub(shown, text)


def _reachable(link: re.Match[str]) -> str:
    """Return a link without its section, which plain text lacks; a link within the page is its text."""
    if re.match(r"\w+:", link["target"]):
        return link[0]
    target, _, _ = link["target"].partition("#")
    return f"[{link['text']}]({re.sub('[.]py$', '.md', target)})" if target else link["text"]


def _from_page(target: str, name: str) -> str:
    if not target.startswith("/"):
        return target
    path = urlsplit(target).path.removeprefix("/")
    return relpath(path, PurePosixPath(name).parent)


def _keys(markdown: str) -> set[str]:
    """Return the keys that a page cites, and those whose BibTeX it offers."""
    return cited(LITERAL.sub("", markdown)) | set(COPIED.findall(markdown))
