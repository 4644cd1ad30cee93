"""The table of proofs: each statement with the test that proves it, what it measured, what it had to keep."""

import os
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from sitekit.errors import fail
from sitekit.language import Language
from sitekit.pages import PROVED
from sitekit.parts import part
from sitekit.pieces.elements import code, code_block, element, grouped_table, link
from sitekit.pieces.named import chosen, mechanism_named
from sitekit.pieces.prose import inline
from sitekit.pieces.recorded import recorded
from sitekit.steps import proof
from snippets.catalogue import Mechanism


@part("proofs")
def proofs(body: str, language: Language) -> str:
    """The body: first line the slug, then lines `test_name: statement`.

    Raises:
        BuildError: slug or test is unknown, or docs/proofs.json does not hold the test.
    """
    slug, *lines = body.strip().splitlines()
    subject = mechanism_named(slug)
    found = _recorded(subject)
    columns = [language.word(key) for key in ("statement", "measured", "limit")]
    groups = []
    for name, statement in _statements(subject, lines):
        figures = found["proofs"][chosen(f"proof of {subject.slug}", name, found["proofs"])]
        test = element("span", code(name).replace("_", "_<wbr/>"), class_="atlas-summary")
        groups.append((f"{inline(statement, language)} {test}", [_row(figure) for figure in figures]))
    file = proof(subject)
    facts = {key: found[key] for key in ("torch", "date", "tests", "seconds")}
    note = element("p", escape(language.word("proved with", **facts)), class_="atlas-note")
    command = code_block(f"pytest {file}", "bash")
    links = [link(f"/{PROVED}", language.word("how"))]
    if repository := os.environ.get("REPO_URL"):
        links.insert(0, link(f"{repository}/blob/main/{file}", language.word("test file")))
    content = (
        grouped_table(columns, groups)
        + note
        + element("div", command, class_="highlight")
        + element("p", language.separator.join(links), class_="atlas-note")
    )
    return element("div", content, class_="atlas-proofs", data_tree="")


def _row(figure: Mapping[str, str]) -> list[str]:
    """Return what was measured and the limit it kept; signs stay with what follows them."""
    name = f"{figure['name']} = " if figure["name"] else ""
    measured = escape(name + figure["measured"]).replace(" |", "\u00a0|").replace("= ", "=\u00a0")
    return [measured, re.sub(r"([=≤≥±]|&[lg]t;) ", "\\1\u00a0", escape(figure["limit"]))]


def _statements(subject: Mechanism, lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in filter(str.strip, lines):
        name, colon, statement = line.partition(":")
        if not colon or not statement.strip():
            fail(f"proofs of {subject.slug}: expected 'test_name: statement', not '{line.strip()}'", line)
        yield name.strip(), statement.strip()


def _recorded(subject: Mechanism) -> dict[str, Any]:
    known = recorded("proofs.json")
    if subject.slug not in known:
        fail(
            f"docs/proofs.json holds no proofs of {subject.slug}; record them: pytest --record", subject.slug
        )
    found: dict[str, Any] = known[subject.slug]
    return found
