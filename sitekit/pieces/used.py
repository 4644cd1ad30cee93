"""Which public model families use a mechanism, as `python -m census` has counted."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sitekit.language import Language
from sitekit.pieces.elements import code, link
from sitekit.pieces.recorded import recorded

KNOWN = [
    *("llama", "mistral", "gemma3", "qwen3", "gpt_oss", "deepseek_v3", "deepseek_v4", "qwen3_next"),
    *("kimi_linear", "gpt2", "bert", "t5", "bart", "whisper", "wav2vec2", "vit", "swin", "clip", "detr"),
    "mamba2",
]
"""Families that many readers know: examples are taken from these first."""

COMMON = ("multi_head", "online_softmax", "transformer")
"""Nearly everywhere, or no property of a layer: the table of models is wide enough without their columns."""


class Used(NamedTuple):
    """Who uses a mechanism.

    Attributes:
        slug: the mechanism.
        families: those that do, first the examples that many know.
        counted: how many families were looked at.
        package: name and version of the package that holds them.
    """

    slug: str
    families: Sequence[str]
    counted: int
    package: str

    def sentence(self, language: Language) -> str:
        """Return the count, a link to the families in the table of models, with examples."""
        names = language.separator.join(map(code, self.families[:3]))
        key = "used by families" if len(self.families) > 3 else "used by named"
        count = language.word("count of", count=len(self.families), counted=self.counted)
        query = "" if self.slug in COMMON else f"?uses={self.slug}"
        families = link(f"/models.md{query}#families", count)
        return language.word(key, families=families, names=names, package=self.package)


def census() -> dict[str, Any]:
    """Return what was counted, nothing if there is no such file."""
    return recorded("census.json")


def package() -> str:
    """Return name and version of the package that was read."""
    found = census()
    return f"{found['package']} {found['version']}"


def used_by(slug: str) -> Used | None:
    """Return who uses a mechanism; None if it was not looked for."""
    found = census()
    if slug not in found.get("mechanisms", ()):
        return None
    families = [name for name, row in found["families"].items() if slug in row["uses"]]
    families.sort(key=lambda name: KNOWN.index(name) if name in KNOWN else len(KNOWN))
    return Used(slug, families, len(found["families"]), package())
