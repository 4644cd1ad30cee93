"""Writes the taxonomy for programs, once for all languages: `catalogue.json`."""

import json
from dataclasses import asdict
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from sitekit import pages, steps
from sitekit.language import LANGUAGES
from sitekit.pieces.recorded import recorded
from sitekit.pieces.used import used_by
from snippets.catalogue import CATALOGUE, Mechanism

FILE = "catalogue.json"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add it at the root of the site; paths in it lead from the root of the repository, pages from here."""
    if not config.extra["prefix"]:
        files.append(File.generated(config, FILE, content=_text(config)))
    return files


def _text(config: MkDocsConfig) -> str:
    release = config.extra["release"]
    proofs = {slug: len(found["proofs"]) for slug, found in recorded("proofs.json").items()}
    known = {
        "name": config.site_name,
        "version": release["version"],
        "date": str(release["date-released"]),
        "licence": release["license"],
        "mechanisms": [_row(row, proofs.get(row.slug, 0)) for row in CATALOGUE.values()],
    }
    return json.dumps(known, ensure_ascii=False, indent=1) + "\n"


def _row(row: Mechanism, proofs: int) -> dict[str, Any]:
    """Return the fields of a row, and where its parts are."""
    page = pages.page(row)
    title = {code: pages.title(page, language) for code, language in LANGUAGES.items()}
    found = {
        "page": page.removesuffix(".md") + "/",
        "markdown": page,
        "module": f"snippets/{row.path}.py",
        "tests": steps.proof(row),
        "figure": f"figures/{row.path}.py",
    }
    counts = {"title": title, "proofs": proofs, "used_by": _used(row.slug)}
    return {"slug": row.slug, **asdict(row), **counts, "paths": found}


def _used(slug: str) -> dict[str, Any] | None:
    """Return the families that use a mechanism, and where they were looked for."""
    used = used_by(slug)
    return used and {"families": sorted(used.families), "counted": used.counted, "package": used.package}
