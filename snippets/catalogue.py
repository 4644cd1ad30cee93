"""The taxonomy: one row per mechanism, the one place that says where it stands.

The path of a row names its module (`snippets/<path>.py`), its page, its tests and its figure. Rows stand in
reading order: by domain, within a domain by chapter.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


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
    DEPTH = "depth"
    SET = "set"
    GRAPH = "graph"


class Chapter(StrEnum):
    """Shelf within a domain, in reading order; domains may share one."""

    FORMULA = "the formula"
    MASKS = "masks"
    POSITIONS = "positions"
    READING = "reading a source"
    POOLING = "pooling"
    TOKENS = "tokens read each other"
    CACHES = "decoders and caches"
    PIECES = "exact, in pieces"
    BOUNDED = "bounded scores and sinks"
    LINEAR = "linear and delta rule"
    SELECTION = "sparse selection"
    GATES = "gates"
    PAIRS = "every pair"
    FEWER = "fewer comparisons"
    WINDOWS = "windows and patches"
    UNPAIRED = "no comparison"
    GLIMPSES = "a part only"
    CLIPS = "frames of a clip"
    PATHS = "paths"
    KERNELS = "mixed kernels"
    LAYERS = "earlier layers"
    LATENTS = "sets and latent queries"
    EDGES = "neighbours in a graph"


class Evidence(StrEnum):
    """What a module was held against."""

    PAPER = "paper"
    """Text or equations of the paper were read."""
    CODE = "code"
    """Released code was read and run beside the module."""
    SECONDARY = "secondary"
    """The paper was not to be had; independent accounts of it agree."""
    RECONSTRUCTION = "reconstruction"
    """The accounts leave gaps, which this module fills in its own way."""


class State(NamedTuple):
    """How many numbers a decoder keeps from step to step, as formulas in the arguments of `example`.

    Attributes:
        per_token: for each token that was read.
        per_sequence: however many tokens were read.
    """

    per_token: str = "0"
    per_sequence: str = "0"


def check(row: str, kind: type[StrEnum], value: str) -> None:
    """Refuse what is no value of an axis, chapter or kind of evidence.

    Raises:
        ValueError: there is none of this name; the message carries row and nearest match.

    >>> check("senet", Chapter, "gats")
    Traceback (most recent call last):
    ValueError: senet: unknown chapter 'gats'; did you mean 'gates'?
    """
    known = [member.value for member in kind]
    if value not in known:
        near = get_close_matches(value, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"{row}: unknown {kind.__name__.lower()} '{value}'; {hint}")


@dataclass(frozen=True)
class Mechanism:
    """One attention mechanism.

    Attributes:
        path: module path below `snippets/`, without suffix.
        title: English title; the page of each language has its own.
        weights: first axis, or None for a foundation.
        domain: second axis, or None for a foundation.
        chapter: shelf within the domain.
        citation: key in `docs/references.bib`.
        parameters: number of parameters as a formula in the arguments of `example`.
        macs: multiply-adds in matrix products and convolutions of one forward pass, likewise.
        complexity: growth of time and memory, as TeX.
        state: what a decoder keeps; for every module with `step`, and for no other.
        evidence: what the module was held against, one or more.
        aliases: other names, abbreviations and spellings.
        related: slugs of neighbours.
        drop_in: how to build the block for a map of C channels, H x W, where `Class(C)` does not do.
    """

    path: str
    title: str
    weights: Weights | None
    domain: Domain | None
    chapter: Chapter
    citation: str
    parameters: str
    macs: str
    complexity: str
    state: State | None = None
    evidence: tuple[Evidence, ...] = ()
    aliases: tuple[str, ...] = ()
    related: tuple[str, ...] = ()
    drop_in: str = ""

    def __post_init__(self) -> None:
        found: list[tuple[type[StrEnum], str | None]] = [(Evidence, value) for value in self.evidence]
        found += [(Weights, self.weights), (Domain, self.domain), (Chapter, self.chapter)]
        for kind, value in found:
            if value is not None:
                check(self.slug, kind, value)

    @property
    def slug(self) -> str:
        """Last part of the path: the name on the command line."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def module(self) -> str:
        """Import name of the module."""
        return f"{__package__}.{self.path.replace('/', '.')}"


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
    names = {fold(alias): row for row in CATALOGUE.values() for alias in (row.slug, row.title, *row.aliases)}
    if found := names.get(fold(name)):
        return found
    near = get_close_matches(fold(name), names, n=1)
    hint = f"; did you mean '{names[near[0]].slug}'?" if near else f"; `python -m {__package__}` lists all"
    raise UnknownMechanismError(f"unknown mechanism '{name}'{hint}")


def fold(name: str) -> str:
    """Return the letters and digits of a name, in lower case."""
    return "".join(character for character in name.casefold() if character.isalnum())


def _by_slug(rows: Iterable[Mechanism]) -> MappingProxyType[str, Mechanism]:
    return MappingProxyType({row.slug: row for row in rows})


CATALOGUE = _by_slug(
    [
        Mechanism(
            path="foundations/general",
            title="Attention in one formula",
            weights=None,
            domain=None,
            chapter=Chapter.FORMULA,
            citation="guo2022survey",
            parameters="0",
            macs="0",
            complexity=r"O(T C H W)",
            evidence=(Evidence.SECONDARY,),
            aliases=(
                "f(g(x), x)",
                "general formula",
                "general form of attention",
                "注意力的通用公式",
                "一般形式",
            ),
            related=("query_key_value", "scores", "saliency", "senet", "non_local", "blstm_attention"),
        ),
        Mechanism(
            path="foundations/query_key_value",
            title="Query, key, value: the three stages",
            weights=None,
            domain=None,
            chapter=Chapter.FORMULA,
            citation="qiu2020nndl",
            parameters="d_a*(d_q + d_k + 1)",
            macs="B*d_a*(T*d_q + S*d_k) + B*T*S*(d_a + d_v)",
            complexity=r"O(T S (d_a + d_v))",
            evidence=(Evidence.PAPER, Evidence.CODE),
            aliases=("QKV", "query-key-value", "three stages", "查询键值", "三个阶段"),
            related=("general", "scores", "masks", "key_value", "multi_head"),
        ),
        Mechanism(
            path="foundations/scores",
            title="Score functions",
            weights=None,
            domain=None,
            chapter=Chapter.FORMULA,
            citation="luong2015",
            parameters="d_q*d_k",
            macs="B*T*d_k*(d_q + S) + B*T*S*d_v",
            complexity=r"O(T d_q d_k + T S (d_k + d_v))",
            evidence=(Evidence.PAPER, Evidence.CODE),
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
            related=("query_key_value", "additive", "luong_global", "attention_factors"),
        ),
        Mechanism(
            path="foundations/saliency",
            title="Saliency and focus",
            weights=None,
            domain=None,
            chapter=Chapter.FORMULA,
            citation="niu2021review",
            parameters="C*D",
            macs="B*T*C*(D + 2*H*W)",
            complexity=r"O(T C (D + H W))",
            evidence=(Evidence.PAPER, Evidence.RECONSTRUCTION),
            aliases=(
                "bottom-up attention",
                "top-down attention",
                "saliency-based attention",
                "focused attention",
                "显著性注意力",
                "聚焦式注意力",
                "自下而上的注意力",
                "自上而下的注意力",
            ),
            related=("general", "query_key_value", "stochastic", "gather_excite", "multi_granularity"),
        ),
        Mechanism(
            path="foundations/masks",
            title="Masks: one convention",
            weights=None,
            domain=None,
            chapter=Chapter.MASKS,
            citation="vaswani2017attention",
            parameters="0",
            macs="B*heads*T*S*(d + d_v)",
            complexity=r"O(T S (d + d_v))",
            evidence=(Evidence.PAPER,),
            aliases=(
                "attention mask",
                "attn_mask",
                "key_padding_mask",
                "causal mask",
                "padding mask",
                "掩码",
                "因果掩码",
                "填充掩码",
                "掩膜",
                "注意力掩码",
            ),
            related=("structured_masks", "query_key_value", "multi_head", "self_attention", "transformer"),
        ),
        Mechanism(
            path="foundations/structured_masks",
            title="Masks that structure a sequence",
            weights=None,
            domain=None,
            chapter=Chapter.MASKS,
            citation="raffel2020t5",
            parameters="0",
            macs="B*heads*T**2*(d + d_v)",
            complexity=r"O(T^2 (d + d_v))",
            evidence=(Evidence.CODE,),
            aliases=(
                "document mask",
                "sequence packing",
                "packed sequences",
                "prefix LM",
                "chunked attention",
                "block-causal mask",
                "block diffusion",
                "tree attention",
                "mask_mod",
                "BlockMask",
                "结构化掩码",
                "文档掩码",
                "序列打包",
                "前缀掩码",
                "分块掩码",
                "块扩散",
                "树形掩码",
            ),
            related=("masks", "sliding_window", "multi_head", "transformer"),
        ),
        Mechanism(
            path="foundations/rotary",
            title="Rotary positions (RoPE)",
            weights=None,
            domain=None,
            chapter=Chapter.POSITIONS,
            citation="su2021roformer",
            parameters="4*E**2",
            macs="2*B*T*E*(2*E + T)",
            complexity=r"O(T E^2 + T^2 E)",
            state=State(per_token="2*E"),
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "RoPE",
                "RoFormer",
                "rotary position embedding",
                "rotary embedding",
                "rotate_half",
                "apply_rotary_pos_emb",
                "partial rotary",
                "旋转位置编码",
                "旋转位置嵌入",
                "旋转编码",
            ),
            related=(
                "rotary_scaling",
                "position_bias",
                "self_attention",
                "grouped_query",
                "kv_cache",
                "transformer",
            ),
        ),
        Mechanism(
            path="foundations/rotary_scaling",
            title="Stretching rotary positions: linear, NTK, YaRN, Llama 3, LongRoPE",
            weights=None,
            domain=None,
            chapter=Chapter.POSITIONS,
            citation="peng2024yarn",
            parameters="0",
            macs="B*heads*T*S*(d + d_v)",
            complexity=r"O(T S (d + d_v))",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "RoPE scaling",
                "rope_scaling",
                "YaRN",
                "NTK-aware scaling",
                "dynamic NTK",
                "position interpolation",
                "LongRoPE",
                "Llama 3 RoPE",
                "context extension",
                "RoPE 扩展",
                "位置插值",
                "长度外推",
                "上下文扩展",
            ),
            related=("rotary", "position_bias", "kv_cache"),
        ),
        Mechanism(
            path="foundations/position_bias",
            title="Position biases: Shaw, T5, Transformer-XL, ALiBi",
            weights=None,
            domain=None,
            chapter=Chapter.POSITIONS,
            citation="raffel2020t5",
            parameters="32*heads",
            macs="B*heads*T*S*(d + d_v)",
            complexity=r"O(T S (d + d_v))",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "relative position bias",
                "relative attention bias",
                "relative position representations",
                "Shaw attention",
                "T5 bias",
                "T5 buckets",
                "ALiBi",
                "linear biases",
                "rel_shift",
                "Transformer-XL",
                "位置偏置",
                "相对位置编码",
                "相对位置偏置",
                "线性偏置",
            ),
            related=("rotary", "masks", "transformer", "augmented_convolution"),
        ),
        Mechanism(
            path="weight_assignment/soft/additive",
            title="Additive attention (Bahdanau)",
            weights=Weights.SOFT,
            domain=Domain.SEQUENCE,
            chapter=Chapter.READING,
            citation="bahdanau2015",
            parameters="d_a*(d_s + d_h + 1)",
            macs="B*(S*d_a*d_h + d_a*d_s + S*d_a + S*d_h)",
            complexity=r"O(S d_a d_h)",
            evidence=(Evidence.PAPER, Evidence.CODE),
            aliases=(
                "Bahdanau attention",
                "additive attention",
                "concat attention",
                "RNNsearch",
                "MLP attention",
                "加性注意力",
                "Bahdanau 注意力",
            ),
            related=("luong_global", "scores", "query_key_value", "transformer"),
        ),
        Mechanism(
            path="weight_assignment/soft/luong_global",
            title="Global attention (Luong)",
            weights=Weights.SOFT,
            domain=Domain.SEQUENCE,
            chapter=Chapter.READING,
            citation="luong2015",
            parameters="2*d_t*d_s + d_t**2",
            macs="B*T*(2*d_t*d_s + d_t**2 + 2*S*d_s)",
            complexity=r"O(T d_t (d_t + d_s) + T S d_s)",
            evidence=(Evidence.PAPER, Evidence.CODE),
            aliases=(
                "Luong attention",
                "multiplicative attention",
                "general attention",
                "global attention",
                "Luong 注意力",
                "乘性注意力",
                "全局注意力",
            ),
            related=("additive", "luong_local", "scores", "cross_attention"),
        ),
        Mechanism(
            path="weight_assignment/hard/luong_local",
            title="Local attention (Luong)",
            weights=Weights.SOFT,
            domain=Domain.SEQUENCE,
            chapter=Chapter.READING,
            citation="luong2015",
            parameters="2*d**2 + d",
            macs="B*T*(2*d**2 + d + 2*(2*w + 1)*d)",
            complexity=r"O(T d (d + w))",
            evidence=(Evidence.PAPER, Evidence.CODE),
            aliases=(
                "local attention",
                "local-m",
                "local-p",
                "Luong local attention",
                "predictive alignment",
                "局部注意力",
                "预测对齐",
            ),
            related=("luong_global", "gumbel", "stochastic"),
        ),
        Mechanism(
            path="weight_assignment/soft/key_value",
            title="Soft attention, plain and key-value",
            weights=Weights.SOFT,
            domain=Domain.SEQUENCE,
            chapter=Chapter.READING,
            citation="qiu2020nndl",
            parameters="d_k",
            macs="B*S*(d_k + d_v)",
            complexity=r"O(S (d_k + d_v))",
            evidence=(Evidence.PAPER,),
            aliases=(
                "key-value attention",
                "plain attention",
                "memory attention",
                "soft addressing",
                "键值对注意力",
                "键值注意力",
                "普通注意力",
                "软寻址",
                "KV attention",
            ),
            related=("query_key_value", "scores", "blstm_attention", "stochastic"),
        ),
        Mechanism(
            path="weight_assignment/soft/cross_attention",
            title="Cross-attention",
            weights=Weights.SOFT,
            domain=Domain.SEQUENCE,
            chapter=Chapter.READING,
            citation="vaswani2017attention",
            parameters="2*E**2 + 2*C*E + 4*E",
            macs="2*B*E*(T*E + S*C + T*S)",
            complexity=r"O((T E + S C) E + T S E)",
            state=State(per_sequence="2*S*E"),
            evidence=(Evidence.PAPER, Evidence.CODE),
            aliases=(
                "encoder-decoder attention",
                "gated cross-attention",
                "source attention",
                "交叉注意力",
                "编码器-解码器注意力",
                "门控交叉注意力",
            ),
            related=("multi_head", "transformer", "luong_global", "query_key_value"),
        ),
        Mechanism(
            path="weight_assignment/hard/gumbel",
            title="Gumbel-softmax and straight-through",
            weights=Weights.HARD,
            domain=Domain.SEQUENCE,
            chapter=Chapter.READING,
            citation="jang2017gumbel",
            parameters="d_q*d_k",
            macs="B*T*(d_q*d_k + S*(d_k + d_v))",
            complexity=r"O(T d_q d_k + T S (d_k + d_v))",
            evidence=(Evidence.PAPER,),
            aliases=(
                "Gumbel-softmax",
                "Concrete distribution",
                "straight-through estimator",
                "ST-Gumbel",
                "Gumbel-max trick",
                "直通估计",
                "重参数化的硬注意力",
            ),
            related=("stochastic", "luong_local", "key_value", "ram"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/structured",
            title="Structured self-attentive embedding",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.POOLING,
            citation="lin2017structured",
            parameters="d_a*(D + hops)",
            macs="B*T*(D*d_a + d_a*hops + D*hops)",
            complexity=r"O(T (d_a + r) D)",
            evidence=(Evidence.PAPER, Evidence.CODE),
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
            path="weight_assignment/self_attention/self_attention",
            title="Self-attention: a single head",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.TOKENS,
            citation="vaswani2017attention",
            parameters="3*E*d",
            macs="3*B*T*E*d + 2*B*T**2*d",
            complexity=r"O(T E d + T^2 d)",
            evidence=(Evidence.PAPER, Evidence.CODE),
            aliases=(
                "self-attention",
                "intra-attention",
                "single-head self-attention",
                "scaled dot-product self-attention",
                "自注意力",
                "内部注意力",
                "单头自注意力",
                "scaled dot-product attention",
                "SDPA",
                "缩放点积注意力",
            ),
            related=("multi_head", "structured", "online_softmax", "masks", "rotary", "self_attention_2d"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/multi_head",
            title="Multi-head self-attention",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.TOKENS,
            citation="vaswani2017attention",
            parameters="4*E**2 + 4*E",
            macs="4*B*T*E**2 + 2*B*T**2*E",
            complexity=r"O(T E^2 + T^2 E)",
            evidence=(Evidence.PAPER, Evidence.CODE),
            aliases=(
                "MHA",
                "MHSA",
                "multi-head attention",
                "Transformer attention",
                "多头注意力",
                "多头自注意力",
            ),
            related=(
                "self_attention",
                "cross_attention",
                "transformer",
                "kv_cache",
                "grouped_query",
                "masks",
                "augmented_convolution",
            ),
        ),
        Mechanism(
            path="weight_assignment/self_attention/transformer",
            title="Transformer encoder and decoder",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.TOKENS,
            citation="vaswani2017attention",
            parameters="layers*(28*E**2 + 32*E)",
            macs="layers*(14*B*(S + T)*E**2 + 2*B*E*(S**2 + S*T + T**2))",
            complexity=r"O((S + T) E^2 + (S + T)^2 E)",
            state=State(per_token="2*layers*E", per_sequence="2*layers*S*E"),
            evidence=(Evidence.PAPER, Evidence.CODE),
            aliases=(
                "Transformer",
                "encoder-decoder Transformer",
                "encoder layer",
                "decoder layer",
                "pre-norm",
                "post-norm",
                "编码器与解码器",
            ),
            related=("multi_head", "cross_attention", "kv_cache", "self_attention", "masks"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/sliding_window",
            title="Sliding-window attention",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.TOKENS,
            citation="beltagy2020longformer",
            parameters="4*E**2 + 4*E",
            macs="4*B*T*E**2 + 2*B*E*(Min(T, W)**2 + 2*W**2*ceiling((T - Min(T, W))/W))",
            complexity=r"O(T E^2 + T W E)",
            state=State(per_sequence="2*W*E"),
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "sliding window",
                "SWA",
                "local attention window",
                "banded attention",
                "local-global attention",
                "sliding_window",
                "Longformer",
                "滑动窗口注意力",
                "滑动窗口",
                "局部全局交替",
            ),
            related=("kv_cache", "multi_head", "structured_masks", "masks", "luong_local"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/kv_cache",
            title="KV cache",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.CACHES,
            citation="shazeer2019",
            parameters="4*E**2 + 4*E",
            macs="4*B*T*E**2 + 2*B*T**2*E",
            complexity=r"O(T E^2 + T^2 E)",
            state=State(per_token="2*E"),
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "key-value cache",
                "KV caching",
                "past_key_values",
                "DynamicCache",
                "incremental decoding",
                "ring buffer cache",
                "rolling buffer cache",
                "KV 缓存",
                "键值缓存",
                "增量解码",
                "环形缓存",
            ),
            related=("multi_head", "sliding_window", "paged", "grouped_query", "sink", "transformer"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/grouped_query",
            title="Grouped-query attention",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.CACHES,
            citation="ainslie2023gqa",
            parameters="2*E**2*(1 + kv_heads/heads)",
            macs="2*B*T*E**2*(1 + kv_heads/heads) + 2*B*T**2*E",
            complexity=r"O(T E^2 + T^2 E)",
            state=State(per_token="2*kv_heads*E/heads"),
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "GQA",
                "MQA",
                "multi-query attention",
                "LlamaAttention",
                "enable_gqa",
                "num_key_value_heads",
                "分组查询注意力",
                "多查询注意力",
            ),
            related=("multi_head", "kv_cache", "latent", "rotary", "transformer"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/latent",
            title="Multi-head latent attention",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.CACHES,
            citation="deepseek2024v2",
            parameters="E*r_q + r_q + r_q*heads*(n + p) + E*(r + p) + r + heads*(r*(n + v) + v*E)",
            macs="B*T*(E*r_q + r_q*heads*(n + p) + E*(r + p) + heads*(r*(n + v) + v*E)) "
            "+ B*T**2*heads*(n + p + v)",
            complexity=r"O(T \, \text{heads} \, r (n + v) + T^2 \, \text{heads} (n + p + v))",
            state=State(per_token="r + p"),
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "MLA",
                "latent attention",
                "DeepseekV3Attention",
                "kv_lora_rank",
                "absorbed attention",
                "decoupled RoPE",
                "多头潜在注意力",
                "潜在注意力",
            ),
            related=("grouped_query", "kv_cache", "rotary", "multi_head"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/paged",
            title="Paged attention",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.CACHES,
            citation="kwon2023paged",
            parameters="4*E**2 + 4*E",
            macs="4*B*T*E**2 + 2*B*T**2*E",
            complexity=r"O(T E^2 + T^2 E)",
            state=State(per_token="2*E"),
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "PagedAttention",
                "paged KV cache",
                "vLLM",
                "block table",
                "prefix sharing",
                "prefix caching",
                "分页注意力",
                "分页 KV 缓存",
                "块表",
                "前缀共享",
            ),
            related=("kv_cache", "grouped_query", "multi_head", "sliding_window"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/online_softmax",
            title="Online softmax (FlashAttention)",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.PIECES,
            citation="dao2024flash2",
            parameters="0",
            macs="B*heads*T*S*(d + d_v)",
            complexity=r"O(T S (d + d_v))",
            evidence=(Evidence.PAPER, Evidence.CODE),
            aliases=(
                "FlashAttention",
                "flash attention",
                "FlashAttention-2",
                "flash_attn",
                "online softmax",
                "tiled attention",
                "memory-efficient attention",
                "log-sum-exp merge",
                "在线 softmax",
                "分块注意力",
            ),
            related=("multi_head", "self_attention", "ring", "kv_cache", "masks"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/ring",
            title="Ring attention",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.PIECES,
            citation="liu2024ring",
            parameters="0",
            macs="2*B*heads*T**2*d",
            complexity=r"O(T^2 d / P)",
            evidence=(Evidence.PAPER, Evidence.CODE),
            aliases=(
                "RingAttention",
                "context parallelism",
                "sequence parallelism",
                "striped attention",
                "zigzag ring attention",
                "DeepSpeed Ulysses",
                "UlyssesAttention",
                "环形注意力",
                "上下文并行",
                "序列并行",
            ),
            related=("online_softmax", "multi_head", "kv_cache"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/sink",
            title="Attention sinks",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.BOUNDED,
            citation="xiao2024streaming",
            parameters="4*E**2 + 4*E + heads",
            macs="4*B*T*E**2 + 2*B*(T + 1)**2*(E + heads)",
            complexity=r"O(T E^2 + T^2 E)",
            state=State(per_token="2*E"),
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "attention sink",
                "sink token",
                "StreamingLLM",
                "softmax1",
                "softmax plus one",
                "off by one",
                "add_zero_attn",
                "GptOssAttention",
                "注意力汇点",
                "注意力汇",
                "流式缓存",
            ),
            related=("multi_head", "kv_cache", "bounded_logits", "output_gate", "masks"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/bounded_logits",
            title="Bounded scores: norm of queries and keys, soft cap",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.BOUNDED,
            citation="henry2020qknorm",
            parameters="4*E**2 + 2*E/heads",
            macs="4*B*T*E**2 + 2*B*T**2*E",
            complexity=r"O(T E^2 + T^2 E)",
            state=State(per_token="2*E"),
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "bounded logits",
                "QK norm",
                "query-key normalisation",
                "query-key normalization",
                "cosine attention",
                "logit soft-capping",
                "soft cap",
                "attn_logit_softcapping",
                "Qwen3Attention",
                "有界分数",
                "QK 归一化",
                "查询与键的归一化",
                "软上限",
                "余弦注意力",
            ),
            related=("multi_head", "sink", "scores", "masks"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/output_gate",
            title="Gated output",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.BOUNDED,
            citation="qiu2025gated",
            parameters="5*E**2",
            macs="5*B*T*E**2 + 2*B*T**2*E",
            complexity=r"O(T E^2 + T^2 E)",
            state=State(per_token="2*E"),
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "gated attention",
                "output gate",
                "attention output gate",
                "SDPA output gating",
                "Qwen3NextAttention",
                "带门的输出",
                "门控注意力",
                "输出门",
            ),
            related=("multi_head", "sink", "bounded_logits", "differential", "senet"),
        ),
        Mechanism(
            path="weight_assignment/self_attention/differential",
            title="Differential attention",
            weights=Weights.SELF,
            domain=Domain.SEQUENCE,
            chapter=Chapter.BOUNDED,
            citation="ye2025differential",
            parameters="4*E**2 + 3*E/heads",
            macs="4*B*T*E**2 + 4*B*T**2*E",
            complexity=r"O(T E^2 + T^2 E)",
            state=State(per_token="2*E"),
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "DIFF Transformer",
                "Differential Transformer",
                "Differential Transformer V2",
                "DiffLlamaAttention",
                "diff attention",
                "差分注意力",
                "差分 Transformer",
            ),
            related=("multi_head", "sink", "output_gate", "grouped_query"),
        ),
        Mechanism(
            path="attention_domain/channel/senet",
            title="SENet: squeeze-and-excitation",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL,
            chapter=Chapter.GATES,
            citation="hu2018senet",
            parameters="2*C**2/r + C/r + C",
            macs="2*B*C**2/r",
            complexity=r"O(N C + C^2 / r)",
            evidence=(Evidence.PAPER, Evidence.CODE),
            aliases=(
                "SE",
                "SE block",
                "squeeze-and-excitation",
                "SEBlock",
                "挤压与激励",
                "SE-Net",
                "squeeze-and-excite",
                "压缩与激励",
            ),
            related=("eca", "srm", "gsop", "cbam", "gather_excite", "sknet"),
        ),
        Mechanism(
            path="attention_domain/channel/eca",
            title="ECA-Net",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL,
            chapter=Chapter.GATES,
            citation="wang2020eca",
            parameters="k",
            macs="B*C*k",
            complexity=r"O(N C)",
            evidence=(Evidence.PAPER, Evidence.CODE),
            aliases=("ECA", "efficient channel attention", "ECALayer", "高效通道注意力"),
            related=("senet", "srm", "gsop", "coordinate"),
        ),
        Mechanism(
            path="attention_domain/channel/srm",
            title="SRM: style-based recalibration",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL,
            chapter=Chapter.GATES,
            citation="lee2019srm",
            parameters="4*C",
            macs="0",
            complexity=r"O(N C)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "SRM",
                "style-based recalibration module",
                "style pooling",
                "SRMLayer",
                "风格重标定",
                "风格池化",
            ),
            related=("senet", "eca", "gsop"),
        ),
        Mechanism(
            path="attention_domain/channel/gsop",
            title="GSoP-Net",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL,
            chapter=Chapter.GATES,
            citation="gao2019gsop",
            parameters="5*C*m + C + 4*m**2 + 9*m",
            macs="B*(H*W*C*m + H*W*m**2 + 4*m**2 + 4*m*C)",
            complexity=r"O(N m (C + m))",
            evidence=(Evidence.CODE,),
            aliases=(
                "GSoP",
                "global second-order pooling",
                "全局二阶池化",
            ),
            related=("senet", "srm", "non_local"),
        ),
        Mechanism(
            path="attention_domain/spatial/non_local",
            title="Non-local block",
            weights=Weights.SELF,
            domain=Domain.SPATIAL,
            chapter=Chapter.PAIRS,
            citation="wang2018nonlocal",
            parameters="4*C**2/r + 3*C/r + 2*C",
            macs="4*B*H*W*C**2/r + 2*B*(H*W)**2*C/r",
            complexity=r"O(N^2 C)",
            evidence=(Evidence.PAPER,),
            aliases=(
                "non-local neural network",
                "NL block",
                "NLNet",
                "embedded Gaussian",
                "非局部注意力",
                "非局部模块",
                "NL",
                "非局部神经网络",
            ),
            related=(
                "self_attention_2d",
                "disentangled_non_local",
                "criss_cross",
                "asymmetric_non_local",
                "global_context",
                "em_attention",
            ),
        ),
        Mechanism(
            path="attention_domain/spatial/self_attention_2d",
            title="Spatial self-attention (SAGAN)",
            weights=Weights.SELF,
            domain=Domain.SPATIAL,
            chapter=Chapter.PAIRS,
            citation="zhang2019sagan",
            parameters="4*C**2/r + 3*C/r + C + 1",
            macs="4*B*H*W*C**2/r + 2*B*(H*W)**2*C/r",
            complexity=r"O(N^2 C)",
            evidence=(Evidence.PAPER,),
            aliases=(
                "spatial self-attention",
                "SAGAN",
                "self-attention GAN",
                "DANet position attention",
                "PAM",
                "SelfAttention2d",
                "空间自注意力",
                "位置注意力",
            ),
            related=("non_local", "self_attention", "criss_cross"),
        ),
        Mechanism(
            path="attention_domain/spatial/augmented_convolution",
            title="Attention-augmented convolution",
            weights=Weights.SELF,
            domain=Domain.SPATIAL,
            chapter=Chapter.PAIRS,
            citation="bello2019augmented",
            parameters="k**2*C**2*(1 - 1/r) + 5*C**2/r + C**2/r**2 + 4*C*(H + W - 1)/(r*heads)",
            macs=(
                "B*H*W*(k**2*C**2*(1 - 1/r) + 5*C**2/r + C**2/r**2 + 4*C*(H + W - 1)/r)"
                " + 2*B*(H*W)**2*(2*C/r + heads*(H + W))"
            ),
            complexity=r"O(N^2 (d_k + h (H + W)))",
            evidence=(Evidence.SECONDARY,),
            aliases=(
                "AAConv",
                "attention augmentation",
                "AA-ResNet",
                "2D relative self-attention",
                "relative logits",
                "注意力增强卷积",
                "二维相对位置自注意力",
            ),
            related=("multi_head", "attention_factors", "self_attention_2d"),
            drop_in="AugmentedConv2d(C, C, 3, 64, 64, 8, size=(H, W))",
        ),
        Mechanism(
            path="attention_domain/spatial/disentangled_non_local",
            title="Disentangled non-local block",
            weights=Weights.SELF,
            domain=Domain.SPATIAL,
            chapter=Chapter.PAIRS,
            citation="yin2020dnl",
            parameters="4*C**2/r + C/r + 2*C",
            macs="4*B*H*W*C**2/r + 2*B*(H*W)**2*C/r + B*H*W*C + B*H*W*C/r",
            complexity=r"O(N^2 C)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "DNL",
                "DNLNet",
                "disentangled non-local neural network",
                "whitened pairwise and unary",
                "解耦非局部模块",
                "解耦非局部注意力",
            ),
            related=("non_local", "global_context", "attention_factors"),
        ),
        Mechanism(
            path="attention_domain/spatial/attention_factors",
            title="The four attention factors",
            weights=Weights.SELF,
            domain=Domain.SPATIAL,
            chapter=Chapter.PAIRS,
            citation="zhu2019empirical",
            parameters="5*C**2 + 3*C + 1",
            macs="4*B*H*W*C**2 + 2*B*(H*W)**2*C + B*H*W*(H + W)*C + (H**2 + W**2)*C**2/2",
            complexity=r"O(N^2 C + N C^2)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "four attention factors",
                "generalized attention",
                "GeneralizedAttention",
                "empirical attention",
                "E1 E2 E3 E4",
                "key content only",
                "广义注意力",
                "注意力的四个因素",
            ),
            related=("non_local", "augmented_convolution", "disentangled_non_local", "scores"),
        ),
        Mechanism(
            path="attention_domain/spatial/criss_cross",
            title="Criss-cross attention (CCNet)",
            weights=Weights.SELF,
            domain=Domain.SPATIAL,
            chapter=Chapter.FEWER,
            citation="huang2019ccnet",
            parameters="C**2 + 2*C**2/r + C + 2*C/r + 1",
            macs="R*B*H*W*(C**2 + 2*C**2/r + (H + W)*(C + C/r))",
            complexity=r"O(R N C (C + H + W))",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "CCNet",
                "criss-cross attention",
                "CCA",
                "RCCA",
                "recurrent criss-cross attention",
                "十字交叉注意力",
                "十字注意力",
            ),
            related=("non_local", "self_attention_2d", "asymmetric_non_local", "psanet"),
        ),
        Mechanism(
            path="attention_domain/spatial/asymmetric_non_local",
            title="Asymmetric non-local blocks (APNB, AFNB)",
            weights=Weights.SELF,
            domain=Domain.SPATIAL,
            chapter=Chapter.FEWER,
            citation="zhu2019ann",
            parameters="2*C**2 + 4*C + 3*C**2/r + 4*C/r",
            macs="B*H*W*(2*C**2 + 2*C**2/r + 220*C/r) + 110*B*C**2/r",
            complexity=r"O(N C (C + 110))",
            evidence=(Evidence.CODE,),
            aliases=(
                "ANN",
                "ANNNet",
                "APNB",
                "AFNB",
                "asymmetric non-local neural network",
                "pyramid pooled keys",
                "非对称非局部模块",
                "非对称非局部注意力",
            ),
            related=("non_local", "criss_cross", "em_attention", "global_context"),
        ),
        Mechanism(
            path="attention_domain/spatial/em_attention",
            title="EM attention (EMANet)",
            weights=Weights.SOFT,
            domain=Domain.SPATIAL,
            chapter=Chapter.FEWER,
            citation="li2019emanet",
            parameters="2*C**2 + 3*C",
            macs="B*H*W*(2*C**2 + (2*T + 1)*K*C)",
            complexity=r"O(N C^2 + T N K C)",
            evidence=(Evidence.CODE,),
            aliases=(
                "EMANet",
                "EMA unit",
                "EMAU",
                "expectation-maximization attention",
                "expectation-maximisation attention",
                "期望最大化注意力",
                "EM 注意力",
            ),
            related=("hamburger", "glore", "asymmetric_non_local", "non_local"),
        ),
        Mechanism(
            path="attention_domain/spatial/hamburger",
            title="Hamburger: matrix decomposition",
            weights=Weights.SOFT,
            domain=Domain.SPATIAL,
            chapter=Chapter.FEWER,
            citation="geng2021hamburger",
            parameters="2*C*d + d + 2*C",
            macs="2*B*H*W*C*d + B*(2*K + 3)*H*W*d*R + B*(2*K + 1)*R**2*(d + H*W)",
            complexity=r"O(N C d + K N d R)",
            evidence=(Evidence.CODE,),
            aliases=(
                "HamNet",
                "Ham",
                "NMF attention",
                "matrix decomposition attention",
                "one-step gradient",
                "矩阵分解",
                "非负矩阵分解",
                "单步梯度",
            ),
            related=("em_attention", "glore", "non_local"),
            drop_in="Hamburger(C, width=C)",
        ),
        Mechanism(
            path="attention_domain/spatial/glore",
            title="GloRe: graph-based global reasoning",
            weights=Weights.SOFT,
            domain=Domain.SPATIAL,
            chapter=Chapter.FEWER,
            citation="chen2019glore",
            parameters="5*C**2/r + 5*C**2/r**2 + 4*C/r + 2*C",
            macs="B*H*W*(5*C**2/r + 4*C**2/r**2) + 6*B*C**3/r**3",
            complexity=r"O(N C^2 / r + C^3 / r^3)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "GloRe unit",
                "global reasoning unit",
                "graph-based global reasoning networks",
                "全局推理单元",
            ),
            related=("em_attention", "hamburger", "global_context"),
            drop_in="GloReUnit(C, nodes=64, states=128)",
        ),
        Mechanism(
            path="attention_domain/spatial/global_context",
            title="GCNet: global context block",
            weights=Weights.SOFT,
            domain=Domain.SPATIAL,
            chapter=Chapter.UNPAIRED,
            citation="cao2019gcnet",
            parameters="2*C**2/r + 3*C/r + 2*C",
            macs="2*B*H*W*C + 2*B*C**2/r",
            complexity=r"O(N C + C^2 / r)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "GCNet",
                "GC block",
                "GCBlock",
                "ContextBlock",
                "simplified non-local",
                "SNL",
                "全局上下文",
                "全局上下文模块",
            ),
            related=("non_local", "senet", "disentangled_non_local", "gather_excite"),
        ),
        Mechanism(
            path="attention_domain/spatial/psanet",
            title="PSANet: point-wise spatial attention",
            weights=Weights.SELF,
            domain=Domain.SPATIAL,
            chapter=Chapter.UNPAIRED,
            citation="zhao2018psanet",
            parameters="4*C**2/r + 2*C**2/r**2 + 2*C*(2*H - 1)*(2*W - 1)/r + 8*C/r + 2*C",
            macs="2*B*H*W*C*(2*C + (2*H - 1)*(2*W - 1) + H*W)/r + 2*B*H*W*C**2/r**2",
            complexity=r"O(N^2 C)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "PSANet",
                "point-wise spatial attention",
                "collect and distribute",
                "PSAMask",
                "over-complete attention map",
                "逐点空间注意力",
                "收集与分发",
                "PSA",
            ),
            related=("non_local", "criss_cross", "attention_factors"),
            drop_in="PointwiseSpatialAttention(C, size=(H, W))",
        ),
        Mechanism(
            path="attention_domain/spatial/gather_excite",
            title="GENet: gather-excite",
            weights=Weights.SOFT,
            domain=Domain.SPATIAL,
            chapter=Chapter.UNPAIRED,
            citation="hu2018genet",
            parameters="22*C",
            macs="9*B*C*(ceiling(H/2)*ceiling(W/2) + ceiling(H/4)*ceiling(W/4))",
            complexity=r"O(N C)",
            evidence=(Evidence.SECONDARY,),
            aliases=("GENet", "GE", "GE-theta", "GatherExcite", "gather-excite", "聚集与激励"),
            related=("senet", "global_context", "bam", "saliency"),
            drop_in="GatherExcite(C, extent=4)",
        ),
        Mechanism(
            path="weight_assignment/hard/stochastic",
            title="Stochastic hard attention",
            weights=Weights.HARD,
            domain=Domain.SPATIAL,
            chapter=Chapter.GLIMPSES,
            citation="xu2015show",
            parameters="k*(D + n + 2)",
            macs="B*k*(H*W*D + H*W + n)",
            complexity=r"O(N D k)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "Show, Attend and Tell",
                "REINFORCE attention",
                "随机硬注意力",
            ),
            related=("gumbel", "ram", "saliency", "additive"),
        ),
        Mechanism(
            path="attention_domain/spatial/ram",
            title="Recurrent models of visual attention (RAM)",
            weights=Weights.HARD,
            domain=Domain.SPATIAL,
            chapter=Chapter.GLIMPSES,
            citation="mnih2014ram",
            parameters="k*g**2*n/2 + 3*n**2 + 9*n + n*K + K + 3",
            macs="B*T*(k*g**2*n/2 + 3*n**2 + 4*n) + B*n*K",
            complexity=r"O(T (k g^2 n + n^2))",
            evidence=(Evidence.SECONDARY,),
            aliases=(
                "RAM",
                "recurrent attention model",
                "glimpse network",
                "glimpse sensor",
                "retina",
                "循环注意力模型",
                "视觉注意力的循环模型",
                "一瞥",
            ),
            related=("stochastic", "ra_cnn", "multi_granularity", "saliency"),
        ),
        Mechanism(
            path="attention_domain/spatial/ra_cnn",
            title="RA-CNN, attention proposal network",
            weights=Weights.SOFT,
            domain=Domain.SPATIAL,
            chapter=Chapter.GLIMPSES,
            citation="fu2017racnn",
            parameters="n*(F + 1) + 3*(n + 1)",
            macs="B*n*(F + 3)",
            complexity=r"O(F n + C N)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "RA-CNN",
                "RACNN",
                "APN",
                "attention proposal network",
                "recurrent attention CNN",
                "注意力建议网络",
                "循环注意力卷积网络",
            ),
            related=("ram", "multi_granularity", "saliency"),
        ),
        Mechanism(
            path="attention_domain/spatial/multi_granularity",
            title="Multiple-granularity descriptors (MGD)",
            weights=Weights.HARD,
            domain=Domain.SPATIAL,
            chapter=Chapter.GLIMPSES,
            citation="wang2015mgd",
            parameters="6*d*(9*C + 1) + (d + 1)*(K_1 + K_2 + K_3)",
            macs="3*B*H*W*d*(9*C + 1) + B*d*(K_1 + K_2 + K_3) + 27*B*Min(k, H)*Min(k, W)*C*d",
            complexity=r"O(L N C d)",
            evidence=(Evidence.RECONSTRUCTION,),
            aliases=(
                "MGD",
                "multiple granularity descriptors",
                "multi-grained descriptors",
                "region discovery",
                "label hierarchy",
                "多粒度描述子",
            ),
            related=("ra_cnn", "ram", "saliency"),
        ),
        Mechanism(
            path="weight_assignment/soft/blstm_attention",
            title="BLSTM softmax attention",
            weights=Weights.SOFT,
            domain=Domain.TEMPORAL,
            chapter=Chapter.POOLING,
            citation="zhou2016attblstm",
            parameters="8*d*(E + d + 2) + d",
            macs="8*B*T*d*(E + d) + 2*B*T*d",
            complexity=r"O(T d (E + d))",
            evidence=(Evidence.SECONDARY,),
            aliases=(
                "BLSTM",
                "Att-BLSTM",
                "BiLSTM attention",
                "双向 LSTM 注意力",
            ),
            related=("structured", "additive", "key_value", "temporal_adaptive"),
        ),
        Mechanism(
            path="attention_domain/temporal/temporal_adaptive",
            title="Temporal adaptive module (TAM)",
            weights=Weights.SOFT,
            domain=Domain.TEMPORAL,
            chapter=Chapter.CLIPS,
            citation="liu2021tam",
            parameters="2*T**2 + 4*T + 2*T*K + C**2*(K + 1)/4 + C/2",
            macs="B*C*(2*T**2 + 2*T*K) + B*T*C**2*(K + 1)/4 + B*C*T**2*H*W",
            complexity=r"O(T^2 N C + T C^2)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "TAM",
                "TANet",
                "temporal adaptive module",
                "adaptive temporal kernel",
                "时间自适应模块",
                "时序自适应模块",
            ),
            related=("global_local", "blstm_attention", "senet", "condconv"),
        ),
        Mechanism(
            path="attention_domain/temporal/global_local",
            title="Global-local temporal representations (GLTR)",
            weights=Weights.SELF,
            domain=Domain.TEMPORAL,
            chapter=Chapter.CLIPS,
            citation="li2019gltr",
            parameters="9*d**2 + 12*d + 36*d**2/a + 21*d/a",
            macs="B*T*(9*d**2 + 36*d**2/a) + 6*B*T**2*d/a",
            complexity=r"O(T d^2 + T^2 d)",
            evidence=(Evidence.SECONDARY, Evidence.RECONSTRUCTION),
            aliases=(
                "GLTR",
                "global-local temporal representation",
                "dilated temporal pyramid",
                "DTP",
                "TSA",
                "全局局部时间表示",
            ),
            related=("temporal_adaptive", "self_attention", "non_local", "sta"),
        ),
        Mechanism(
            path="attention_domain/branch/sknet",
            title="SKNet: selective kernels",
            weights=Weights.SOFT,
            domain=Domain.BRANCH,
            chapter=Chapter.PATHS,
            citation="li2019sknet",
            parameters="M*(9*C**2/G + 2*C) + Max(C/r, L)*(C + 2 + M*C)",
            macs="B*M*H*W*9*C**2/G + B*C*Max(C/r, L)*(1 + M)",
            complexity=r"O(M N C^2 / G)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "SK",
                "selective kernel",
                "SK unit",
                "SK convolution",
                "选择性卷积核",
            ),
            related=("senet", "condconv", "dynamic_convolution", "highway"),
        ),
        Mechanism(
            path="attention_domain/branch/highway",
            title="Highway network",
            weights=Weights.SOFT,
            domain=Domain.BRANCH,
            chapter=Chapter.PATHS,
            citation="srivastava2015highway",
            parameters="2*C**2*k**2 + 2*C",
            macs="2*B*H*W*C**2*k**2",
            complexity=r"O(N C^2)",
            evidence=(Evidence.PAPER,),
            aliases=(
                "Highway layer",
                "Highway networks",
                "Training Very Deep Networks",
                "carry gate",
                "transform gate",
                "高速公路网络",
                "携带门",
                "变换门",
            ),
            related=("sknet", "condconv", "senet"),
        ),
        Mechanism(
            path="attention_domain/branch/condconv",
            title="CondConv",
            weights=Weights.SOFT,
            domain=Domain.BRANCH,
            chapter=Chapter.KERNELS,
            citation="yang2019condconv",
            parameters="n*C*D*k**2/G + C*n + n",
            macs="B*H*W*C*D*k**2/G + B*n*C*D*k**2/G + B*C*n",
            complexity=r"O(N C D + n C D)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "conditionally parameterized convolution",
                "CondConv2d",
                "kernel experts",
                "条件参数化卷积",
                "条件卷积",
            ),
            related=("dynamic_convolution", "sknet", "highway"),
            drop_in="CondConv2d(C, C)",
        ),
        Mechanism(
            path="attention_domain/branch/dynamic_convolution",
            title="Dynamic convolution",
            weights=Weights.SOFT,
            domain=Domain.BRANCH,
            chapter=Chapter.KERNELS,
            citation="chen2020dynamic",
            parameters="K*C*D*k**2/G + K*D + C**2/r + C/r + C*K/r + K",
            macs="B*H*W*C*D*k**2/G + B*K*C*D*k**2/G + B*K*D + B*C**2/r + B*C*K/r",
            complexity=r"O(N C D + K C D + C^2 / r)",
            evidence=(Evidence.SECONDARY,),
            aliases=(
                "DY-CNN",
                "DyConv",
                "DynamicConv2d",
                "attention over convolution kernels",
                "动态卷积",
            ),
            related=("condconv", "sknet", "senet"),
            drop_in="DynamicConv2d(C, C)",
        ),
        Mechanism(
            path="attention_domain/channel_spatial/cbam",
            title="CBAM: convolutional block attention module",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL_SPATIAL,
            chapter=Chapter.GATES,
            citation="woo2018cbam",
            parameters="2*C**2/r + C/r + C + 2*k**2 + 2",
            macs="4*B*C**2/r + 2*B*H*W*k**2",
            complexity=r"O(N C + C^2 / r)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "convolutional block attention",
                "卷积块注意力模块",
            ),
            related=("senet", "bam", "coordinate", "gather_excite"),
        ),
        Mechanism(
            path="attention_domain/channel_spatial/bam",
            title="BAM: bottleneck attention module",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL_SPATIAL,
            chapter=Chapter.GATES,
            citation="park2018bam",
            parameters="3*C**2/r + C + 18*C**2/r**2 + 13*C/r + 1",
            macs="2*B*C**2/r + B*H*W*(C**2/r + 18*C**2/r**2 + C/r)",
            complexity=r"O(N C^2 / r)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=(
                "bottleneck attention module",
                "瓶颈注意力模块",
            ),
            related=("cbam", "coordinate", "senet", "gather_excite"),
        ),
        Mechanism(
            path="attention_domain/channel_spatial/coordinate",
            title="Coordinate attention",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL_SPATIAL,
            chapter=Chapter.GATES,
            citation="hou2021coordinate",
            parameters="Max(8, C/r)*(3*C + 3) + 2*C",
            macs="2*B*(H + W)*C*Max(8, C/r)",
            complexity=r"O(N C + (H + W) C^2 / r)",
            evidence=(Evidence.CODE, Evidence.SECONDARY),
            aliases=("CA", "CoordAtt", "CoordAttention", "coordinate attention block", "坐标注意力"),
            related=("cbam", "senet", "eca", "criss_cross"),
        ),
        Mechanism(
            path="attention_domain/channel_spatial/canet",
            title="CANet, concatenated attention for image restoration",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL_SPATIAL,
            chapter=Chapter.GATES,
            citation="canet2020",
            parameters="55*C + 3 + M*L*(9*C**2 + 2*C**2/r + 3*C + C/r + 1) + (M - 1)*(2*C**2 + C)"
            " + (M + 1)*C**2 + C",
            macs="B*H*W*(54*C + M*L*(9*C**2 + C) + (3*M - 1)*C**2) + 2*B*M*L*C**2/r",
            complexity=r"O(M L N C^2)",
            evidence=(Evidence.RECONSTRUCTION,),
            aliases=(
                "CANet",
                "concatenated attention neural network",
                "拼接注意力",
            ),
            related=("cbam", "senet", "bam"),
        ),
        Mechanism(
            path="attention_domain/spatial_temporal/sta",
            title="STA: spatial-temporal attention",
            weights=Weights.SOFT,
            domain=Domain.SPATIAL_TEMPORAL,
            chapter=Chapter.CLIPS,
            citation="fu2019sta",
            parameters="0",
            macs="0",
            complexity=r"O(T N C)",
            evidence=(Evidence.SECONDARY,),
            aliases=(
                "STA",
                "spatial-temporal attention",
                "spatio-temporal attention",
                "inter-frame regularization",
                "2-D attention score matrix",
                "时空注意力",
                "帧间正则化",
            ),
            related=("global_local", "temporal_adaptive", "non_local"),
        ),
    ]
)
