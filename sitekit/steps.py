"""The five steps: what a mechanism consists of, and what of it is missing. Needs no torch."""

from collections.abc import Iterable

from sitekit import paths, references
from sitekit.errors import BuildError
from sitekit.language import LANGUAGES
from sitekit.pages import page
from snippets.catalogue import CATALOGUE, Mechanism


def proof(mechanism: Mechanism) -> str:
    """Return the test file of a mechanism, from the root of the repository."""
    folder, _, slug = mechanism.path.rpartition("/")
    return f"tests/{folder}/test_{slug}.py"


def files(mechanism: Mechanism) -> list[str]:
    """Return module, proof, figure and pages of a mechanism, from the root of the repository."""
    pages = [f"docs/{language}/{page(mechanism)}" for language in LANGUAGES]
    return [f"snippets/{mechanism.path}.py", proof(mechanism), f"figures/{mechanism.path}.py", *pages]


def check(mechanisms: Iterable[Mechanism]) -> None:
    """Refuse mechanisms of which something is missing, and modules without a row.

    Raises:
        BuildError: names all that is missing.
    """
    lacking = {mechanism.slug: _missing(mechanism) for mechanism in mechanisms}
    sentences = [f"{slug} lacks {', '.join(names)}" for slug, names in lacking.items() if names]
    sentences += [f"snippets/catalogue.py lacks a row for {path}" for path in _without_row()]
    if sentences:
        raise BuildError("; ".join(sentences))


def _missing(mechanism: Mechanism) -> list[str]:
    lacking = [file for file in files(mechanism) if not (paths.ROOT / file).is_file()]
    if not references.known(mechanism.citation):
        lacking.append(f"{mechanism.citation} in docs/references.bib")
    return lacking


def _without_row() -> list[str]:
    rows = {f"snippets/{mechanism.path}.py" for mechanism in CATALOGUE.values()}
    modules = {
        file.relative_to(paths.ROOT).as_posix()
        for file in (paths.ROOT / "snippets").rglob("*.py")
        if "\ndef example(" in file.read_text(encoding="utf-8")
    }
    return sorted(modules - rows)
