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
            path="foundations/scores",
            title="Score functions",
            weights=None,
            domain=None,
            citation="luong2015",
            parameters="d_q*d_k",
            macs="B*T*d_k*(d_q + S) + B*T*S*d_v",
            complexity=r"O(T d_q d_k + T S (d_k + d_v))",
            aliases=(
                "alignment functions",
                "dot score",
                "general score",
                "bilinear attention",
                "concat score",
                "location-based attention",
                "打分函数",
                "对齐函数",
                "双线性打分",
                "基于位置的打分",
            ),
            related=("query_key_value", "multi_head", "blstm_attention"),
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
            path="weight_assignment/soft/additive",
            title="Additive attention (Bahdanau)",
            weights=Weights.SOFT,
            domain=Domain.SEQUENCE,
            citation="bahdanau2015",
            parameters="d_a*(d_s + d_h + 1)",
            macs="B*(S*d_a*d_h + d_a*d_s + S*d_a + S*d_h)",
            complexity=r"O(S d_a d_h)",
            aliases=(
                "Bahdanau attention",
                "additive attention",
                "concat attention",
                "RNNsearch",
                "MLP attention",
                "加性注意力",
                "Bahdanau 注意力",
            ),
            related=("luong_global", "query_key_value", "blstm_attention", "multi_head"),
        ),
        Mechanism(
            path="weight_assignment/soft/luong_global",
            title="Global attention (Luong)",
            weights=Weights.SOFT,
            domain=Domain.SEQUENCE,
            citation="luong2015",
            parameters="2*d_t*d_s + d_t**2",
            macs="B*T*(2*d_t*d_s + d_t**2 + 2*S*d_s)",
            complexity=r"O(T d_t (d_t + d_s) + T S d_s)",
            aliases=(
                "Luong attention",
                "multiplicative attention",
                "general attention",
                "global attention",
                "Luong 注意力",
                "乘性注意力",
                "全局注意力",
            ),
            related=("additive", "query_key_value", "multi_head"),
        ),
        Mechanism(
            path="weight_assignment/soft/key_value",
            title="Soft attention, plain and key-value",
            weights=Weights.SOFT,
            domain=Domain.SEQUENCE,
            citation="qiu2020nndl",
            parameters="d_k",
            macs="B*S*(d_k + d_v)",
            complexity=r"O(S (d_k + d_v))",
            aliases=(
                "key-value attention",
                "plain attention",
                "soft attention",
                "memory attention",
                "soft addressing",
                "键值对注意力",
                "键值注意力",
                "普通注意力",
                "软寻址",
            ),
            related=("query_key_value", "stochastic", "blstm_attention"),
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
            path="weight_assignment/hard/gumbel",
            title="Gumbel-softmax and straight-through",
            weights=Weights.HARD,
            domain=Domain.SEQUENCE,
            citation="jang2017gumbel",
            parameters="d_q*d_k",
            macs="B*T*(d_q*d_k + S*(d_k + d_v))",
            complexity=r"O(T d_q d_k + T S (d_k + d_v))",
            aliases=(
                "Gumbel-softmax",
                "Concrete distribution",
                "straight-through estimator",
                "ST-Gumbel",
                "Gumbel-max trick",
                "直通估计",
                "重参数化的硬注意力",
            ),
            related=("stochastic", "query_key_value", "blstm_attention"),
        ),
        Mechanism(
            path="weight_assignment/hard/luong_local",
            title="Local attention (Luong)",
            weights=Weights.SOFT,
            domain=Domain.SEQUENCE,
            citation="luong2015",
            parameters="2*d**2 + d",
            macs="B*T*(2*d**2 + d + 2*(2*w + 1)*d)",
            complexity=r"O(T d (d + w))",
            aliases=(
                "local attention",
                "local-m",
                "local-p",
                "Luong local attention",
                "predictive alignment",
                "局部注意力",
                "预测对齐",
            ),
            related=("stochastic", "query_key_value", "blstm_attention"),
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
            path="weight_assignment/self_attention/self_attention",
            title="Self-attention: a single head",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            citation="vaswani2017attention",
            parameters="3*E*d",
            macs="3*B*T*E*d + 2*B*T**2*d",
            complexity=r"O(T E d + T^2 d)",
            aliases=(
                "self-attention",
                "intra-attention",
                "single-head self-attention",
                "scaled dot-product self-attention",
                "自注意力",
                "内部注意力",
                "单头自注意力",
            ),
            related=("multi_head", "query_key_value", "structured", "non_local"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/structured",
            title="Structured self-attentive embedding",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            citation="lin2017structured",
            parameters="d_a*(D + hops)",
            macs="B*T*(D*d_a + d_a*hops + D*hops)",
            complexity=r"O(T (d_a + r) D)",
            aliases=(
                "structured self-attention",
                "self-attentive sentence embedding",
                "self-attentive pooling",
                "multi-hop attention pooling",
                "结构化自注意力",
                "自注意力句子嵌入",
                "多跳注意力池化",
            ),
            related=("blstm_attention", "self_attention", "multi_head"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/transformer",
            title="Transformer encoder and decoder",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            citation="vaswani2017attention",
            parameters="layers*(28*E**2 + 32*E)",
            macs="layers*(14*B*(S + T)*E**2 + 2*B*E*(S**2 + S*T + T**2))",
            complexity=r"O((S + T) E^2 + (S + T)^2 E)",
            aliases=(
                "Transformer",
                "encoder-decoder Transformer",
                "encoder layer",
                "decoder layer",
                "cross-attention",
                "pre-norm",
                "post-norm",
                "编码器与解码器",
                "编码器",
                "解码器",
                "交叉注意力",
            ),
            related=("multi_head", "self_attention", "query_key_value"),
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
            path="attention_domain/spatial/ram",
            title="Recurrent models of visual attention (RAM)",
            weights=Weights.HARD,
            domain=Domain.SPATIAL,
            citation="mnih2014ram",
            parameters="k*g**2*n/2 + 3*n**2 + 9*n + n*K + K + 3",
            macs="B*T*(k*g**2*n/2 + 3*n**2 + 4*n) + B*n*K",
            complexity=r"O(T (k g^2 n + n^2))",
            aliases=(
                "RAM",
                "recurrent attention model",
                "glimpse network",
                "glimpse sensor",
                "retina",
                "hard visual attention",
                "循环注意力模型",
                "视觉注意力的循环模型",
                "一瞥",
            ),
            related=("stochastic", "gumbel", "non_local"),
        ),
        Mechanism(
            path="attention_domain/spatial/ra_cnn",
            title="RA-CNN, attention proposal network",
            weights=Weights.SOFT,
            domain=Domain.SPATIAL,
            citation="fu2017racnn",
            parameters="n*(F + 1) + 3*(n + 1)",
            macs="B*n*(F + 3)",
            complexity=r"O(F n + C N)",
            aliases=(
                "RA-CNN",
                "RACNN",
                "APN",
                "attention proposal network",
                "recurrent attention CNN",
                "注意力建议网络",
                "循环注意力卷积网络",
            ),
            related=("ram", "stochastic", "non_local"),
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
