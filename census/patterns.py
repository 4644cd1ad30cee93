"""What is looked for: expressions that occur in the files of a family if it has a mechanism.

A mechanism is counted where its code stands, switched on by default or not. What has no page yet is counted
all the same.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Pattern(NamedTuple):
    """How to recognise a mechanism.

    Attributes:
        slug: name in the catalogue.
        names: short ones for a column of a table, by language.
        found: expressions that must all occur.
        absent: one that must not.
    """

    slug: str
    names: tuple[str, str]
    found: tuple[str, ...]
    absent: str = r"(?!)"

    def uses(self, text: str) -> bool:
        """Whether the code of a family has the mechanism.

        >>> Pattern("toy", ("toy", "toy"), (r"one", r"two"), absent=r"three").uses("one, two")
        True
        """
        return all(re.search(each, text, re.MULTILINE) for each in self.found) and not re.search(
            self.absent, text, re.MULTILINE
        )


CROSS = (
    r"self\.(?:\w*cross_?att\w*|encoder_att\w*|EncDecAttention) = \w*Att|^class \w*Cross\w*Att\w*\(nn\.Module"
)
NORM = r"self\.(?:q|qk|query)_?(?:layer_?)?norm = "
GATED = (
    r"att\w*_output\w*(?:\.float\(\))? \* (?:torch\.sigmoid\(|gate(?:_states)?\b)"
    r"|sigmoid\((?:gate_states|self\.output_gate\(hidden_states\))\) \* attn_output"
    r"|output \* torch\.sigmoid\(gate_states\)"
    r"|self\.g_proj\(x\)\.sigmoid\(\) \* y"
)
UNROTATED = (
    r"\bno_rope_layers\b|\bNoPE\b|self\.use_rope\b"
    r"|if [^\n]*(?:sliding|is_local|use_rope)[^\n]*:\n\s+(?:cos, sin = \w+\n\s+)?"
    r"query_states, key_states = apply_rotary"
)
AXES = (
    r"mrope_section|^class \w*Vision\w*Rot\w*Emb\w*\("
    r"|^class \w*(?:2D|2d|Axial)\w*Rot\w*\(|^class \w*RopePositionEmb"
)

PATTERNS = (
    Pattern(
        "multi_head",
        ("heads", "多头"),
        (r"softmax\(|scaled_dot_product_attention", r"num_(?:attention_)?heads"),
    ),
    Pattern("transformer", ("encoder–decoder", "编码器—解码器"), (r"is_encoder_decoder: bool = True", CROSS)),
    Pattern("cross_attention", ("cross", "交叉"), (CROSS,)),
    Pattern("kv_cache", ("KV cache", "KV 缓存"), (r"past_key_values?\w*(?:\.\w+)?\.update\(",)),
    Pattern("grouped_query", ("GQA", "GQA"), (r"num_key_value_groups|multi_query",), absent=r"kv_lora_rank"),
    Pattern("latent", ("MLA", "MLA"), (r"kv_lora_rank",)),
    Pattern(
        "kv_sharing", ("shared KV", "共享 KV"), (r"num_kv_shared_layers|shared_kv_states|attention_k_eq_v",)
    ),
    Pattern(
        "sliding_window",
        ("window", "窗口"),
        (r"create_(?:bidirectional_)?sliding_window_(?:causal_)?mask|[\"']sliding_attention[\"']",),
    ),
    Pattern(
        "structured_masks",
        ("packing, blocks", "打包与分块"),
        (
            r"cu_seq_?lens|block_sequence_ids|packed_sequence_mask|create_chunked_causal_mask|(?:or|and)_mask_function=",
        ),
    ),
    Pattern("online_softmax", ("Flash", "Flash"), (r"_supports_flash_attn = True",)),
    Pattern("rotary", ("RoPE", "RoPE"), (r"rotate_half|apply_rotary",)),
    Pattern("rotary_scaling", ("RoPE scaling", "RoPE 扩展"), (r"ROPE_INIT_FUNCTIONS",)),
    Pattern("rotary_axes", ("RoPE, 2 or 3 axes", "多轴 RoPE"), (AXES,)),
    Pattern(
        "position_bias",
        ("position bias", "位置偏置"),
        (
            r"alibi|relative_position_bucket|rel(?:ative)?_shift|distance_embedding|relative_position_bias_table",
        ),
    ),
    Pattern("no_position", ("NoPE layers", "NoPE 层"), (UNROTATED,)),
    Pattern("sink", ("sink", "汇点"), (r"self\.sinks?\b|attention_sink_bias|self\.sink_proj",)),
    Pattern("bounded_logits", ("QK norm, cap", "QK 归一化、截断"), (rf"{NORM}|attn_logit_softcapping",)),
    Pattern("output_gate", ("output gate", "输出门"), (GATED,)),
    Pattern("differential", ("differential", "差分"), (r"lambda_q1",)),
    Pattern("decayed_linear", ("decayed linear", "衰减线性"), (r"class \w*LightningAttention",)),
    Pattern("selective_scan", ("Mamba-1", "Mamba-1"), (r"selective_scan_fn",)),
    Pattern("state_space_duality", ("Mamba-2", "Mamba-2"), (r"mamba_chunk_scan_combined",)),
    Pattern("gated_delta", ("gated delta", "门控增量"), (r"chunk_gated_delta_rule",)),
    Pattern("kimi_delta", ("KDA", "KDA"), (r"chunk_kda",)),
    Pattern("lightning_indexer", ("indexer", "索引器"), (r"^class \w*Indexer\(",)),
    Pattern("block_selection", ("block selection", "块选择"), (r"minimax_m3_sparse", r"^class \w*Indexer\(")),
    Pattern("compressed_sparse", ("CSA, HCA", "CSA、HCA"), (r"compress_rates",)),
    Pattern("attention_residual", ("over depth", "跨深度"), (r"^class \w*BlockAttentionResidual\(",)),
    Pattern("hyper_connection", ("hyper-connections", "超连接"), (r"HyperConnection|\bhc_(?:mult|count)\b",)),
    Pattern("shifted_window", ("shifted window", "移位窗口"), (r"\bshift_size\b",)),
    Pattern("deformable", ("deformable", "可变形"), (r"\bsampling_offsets\b",)),
    Pattern("neighbourhood", ("neighbourhood", "邻域"), (r"\bnatten\b",)),
    Pattern("divided_space_time", ("space, then time", "时空分离"), (r"divided_space_time",)),
    Pattern(
        "latent_queries",
        ("latent queries", "潜在查询"),
        (r"^class \w*(?:Resampler|Perceiver\w*Attention|QFormer\w*Attention)\w*\(",),
    ),
    Pattern("gumbel", ("Gumbel-softmax", "Gumbel-softmax"), (r"gumbel_softmax\(",)),
    Pattern("senet", ("squeeze-excitation", "挤压激励"), (r"^class \w*(?:SqueezeExcit\w*|SELayer)\(",)),
)


def used(text: str, patterns: Iterable[Pattern] = PATTERNS) -> list[str]:
    """Return the slugs of the mechanisms that this code has."""
    return [pattern.slug for pattern in patterns if pattern.uses(text)]
