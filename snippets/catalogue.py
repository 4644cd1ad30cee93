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
            path="foundations/query_key_value",
            title="Query, key, value: the three stages",
            weights=None,
            domain=None,
            citation="qiu2020nndl",
            parameters="d_a*(d_q + d_k + 1)",
            macs="B*d_a*(T*d_q + S*d_k) + B*T*S*(d_a + d_v)",
            complexity=r"O(T S (d_a + d_v))",
            aliases=("QKV", "query-key-value", "three stages", "查询键值", "三个阶段"),
            related=("multi_head", "blstm_attention", "non_local"),
        ),
        Mechanism(
            path="weight_assignment/soft/blstm_attention",
            title="BLSTM softmax attention",
            weights=Weights.SOFT,
            domain=Domain.TEMPORAL,
            citation="zhou2016attblstm",
            parameters="8*d*(E + d + 2) + d",
            macs="8*B*T*d*(E + d) + 2*B*T*d",
            complexity=r"O(T d (E + d))",
            aliases=("Att-BLSTM", "BiLSTM attention", "attention pooling", "双向 LSTM 注意力", "注意力池化"),
            related=("query_key_value", "stochastic", "multi_head"),
        ),
        Mechanism(
            path="weight_assignment/hard/stochastic",
            title="Stochastic hard attention",
            weights=Weights.HARD,
            domain=Domain.SPATIAL,
            citation="xu2015show",
            parameters="k*(D + n + 2)",
            macs="B*k*(H*W*D + H*W + n)",
            complexity=r"O(N D k)",
            aliases=(
                "hard attention",
                "Show, Attend and Tell",
                "REINFORCE attention",
                "硬注意力",
                "随机硬注意力",
            ),
            related=("blstm_attention", "query_key_value", "non_local"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/multi_head",
            title="Multi-head self-attention",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            citation="vaswani2017attention",
            parameters="4*E**2 + 4*E",
            macs="4*B*T*E**2 + 2*B*T**2*E",
            complexity=r"O(T E^2 + T^2 E)",
            aliases=(
                "MHA",
                "MHSA",
                "multi-head attention",
                "Transformer attention",
                "多头注意力",
                "多头自注意力",
            ),
            related=("query_key_value", "non_local", "blstm_attention"),
        ),
        Mechanism(
            path="attention_domain/channel/senet",
            title="SENet: squeeze-and-excitation",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL,
            citation="hu2018senet",
            parameters="2*C**2/r + C/r + C",
            macs="2*B*C**2/r",
            complexity=r"O(N C + C^2 / r)",
            aliases=("SE", "SE block", "squeeze-and-excitation", "SEBlock", "挤压与激励", "通道注意力"),
            related=("cbam", "sknet"),
        ),
        Mechanism(
            path="attention_domain/spatial/non_local",
            title="Non-local block",
            weights=Weights.SELF,
            domain=Domain.SPATIAL,
            citation="wang2018nonlocal",
            parameters="4*C**2/r + 3*C/r + 2*C",
            macs="4*B*H*W*C**2/r + 2*B*(H*W)**2*C/r",
            complexity=r"O(N^2 C)",
            aliases=(
                "non-local neural network",
                "NL block",
                "NLNet",
                "embedded Gaussian",
                "非局部注意力",
                "非局部模块",
            ),
            related=("multi_head", "query_key_value", "cbam"),
        ),
        Mechanism(
            path="attention_domain/branch/sknet",
            title="SKNet: selective kernels",
            weights=Weights.SOFT,
            domain=Domain.BRANCH,
            citation="li2019sknet",
            parameters="M*(9*C**2/G + 2*C) + Max(C/r, L)*(C + 2 + M*C)",
            macs="B*M*H*W*9*C**2/G + B*C*Max(C/r, L)*(1 + M)",
            complexity=r"O(M N C^2 / G)",
            aliases=("SK", "selective kernel", "SK unit", "SK convolution", "选择性卷积核", "分支注意力"),
            related=("senet", "cbam"),
        ),
        Mechanism(
            path="attention_domain/channel_spatial/cbam",
            title="CBAM: convolutional block attention module",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL_SPATIAL,
            citation="woo2018cbam",
            parameters="2*C**2/r + C/r + C + 2*k**2 + 2",
            macs="4*B*C**2/r + 2*B*H*W*k**2",
            complexity=r"O(N C + C^2 / r)",
            aliases=(
                "convolutional block attention",
                "channel and spatial attention",
                "卷积块注意力模块",
                "混合注意力",
            ),
            related=("senet", "non_local", "sknet"),
        ),
    ]
)
