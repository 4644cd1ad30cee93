"""The taxonomy: one row per mechanism, the one place that says where it stands.

The path of a row names its module (`snippets/<path>.py`), its page, its tests and its figure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType


class Weights(StrEnum):
    """How attention weights are assigned."""

    SOFT = "soft"
    HARD = "hard"
    SELF = "self"


class Domain(StrEnum):
    """What attention weights act on."""

    SEQUENCE = "sequence"
    CHANNEL = "channel"
    SPATIAL = "spatial"
    TEMPORAL = "temporal"
    BRANCH = "branch"
    CHANNEL_SPATIAL = "channel + spatial"
    SPATIAL_TEMPORAL = "spatial + temporal"


@dataclass(frozen=True)
class Mechanism:
    """One attention mechanism.

    Attributes:
        path: module path below `snippets/`, without suffix.
        title: English title; the page of each language has its own.
        weights: first axis, or None for a foundation.
        domain: second axis, or None for a foundation.
        citation: key in `docs/references.bib`.
        parameters: number of parameters as a formula in the arguments of `example`.
        macs: multiply-adds in matrix products and convolutions of one forward pass, likewise.
        complexity: growth of time and memory, as TeX.
        aliases: other names, abbreviations and spellings.
        related: slugs of neighbours.
    """

    path: str
    title: str
    weights: Weights | None
    domain: Domain | None
    citation: str
    parameters: str
    macs: str
    complexity: str
    aliases: tuple[str, ...] = ()
    related: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """Last part of the path: the name on the command line."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def module(self) -> str:
        """Import name of the module."""
        return "snippets." + self.path.replace("/", ".")


class UnknownMechanismError(LookupError):
    """No mechanism has this name; the message carries the nearest match."""


def find(name: str) -> Mechanism:
    """Return the mechanism with this slug, title or alias, whatever its case and punctuation.

    Raises:
        UnknownMechanismError: the name is unknown.

    >>> find("Squeeze-and-Excitation").slug
    'senet'
    >>> find("senett")
    Traceback (most recent call last):
    snippets.catalogue.UnknownMechanismError: unknown mechanism 'senett'; did you mean 'senet'?
    """
    names = {_fold(alias): row for row in CATALOGUE.values() for alias in (row.slug, row.title, *row.aliases)}
    if found := names.get(_fold(name)):
        return found
    near = get_close_matches(_fold(name), names, n=1)
    hint = f"; did you mean '{names[near[0]].slug}'?" if near else "; `python -m snippets` lists all"
    raise UnknownMechanismError(f"unknown mechanism '{name}'{hint}")


def _fold(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _by_slug(rows: Iterable[Mechanism]) -> MappingProxyType[str, Mechanism]:
    return MappingProxyType({row.slug: row for row in rows})


CATALOGUE = _by_slug(
    [
        Mechanism(
            path="attention_domain/channel/senet",
            title="SENet: squeeze-and-excitation",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL,
            citation="hu2018senet",
            parameters="2*C**2/r + C/r + C",
            macs="2*B*C**2/r",
            complexity=r"O(N C + C^2 / r)",
            aliases=("SE", "SE block", "SENet", "squeeze-and-excitation", "SEBlock", "挤压与激励"),
            related=("cbam", "sknet"),
        ),
    ]
)
