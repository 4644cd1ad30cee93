"""The census: patterns on made-up files, figures against the library, which the census itself never runs."""

import importlib
import json
import shutil
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from census import wheel
from census.__main__ import RESULT, census, text
from census.defaults import defaults
from census.kept import kept
from census.patterns import PATTERNS, used

FOUND = json.loads(RESULT.read_text(encoding="utf-8"))

# A line that shows each mechanism, and one that looks like it
MADE_UP = {
    "multi_head": ("self.num_heads = 4; weights = softmax(scores)", "self.num_heads = 4"),
    "transformer": (
        "is_encoder_decoder: bool = True\nself.encoder_attn = ToyAttention(4)",
        "is_encoder_decoder: bool = True\nself.encoder_attn_layer_norm = nn.LayerNorm(4)",
    ),
    "cross_attention": ("self.crossattention = ToyAttention(4)", "self.add_cross_attention = True"),
    "kv_cache": ("k, v = past_key_values.update(k, v, 0)", "past_key_values = None"),
    "grouped_query": ("self.num_key_value_groups = 4", "self.num_key_value_groups = 1; kv_lora_rank = 8"),
    "latent": ("kv_lora_rank: int = 512", "q_lora_rank: int = 1536"),
    "kv_sharing": ("num_kv_shared_layers: int = 15", "num_shared_experts: int = 1"),
    "sliding_window": ('"sliding_attention"', "sliding_window: int = 128"),
    "structured_masks": ("cu_seqlens = lengths.cumsum(0)", "create_causal_mask(config)"),
    "online_softmax": ("_supports_flash_attn = True", "_supports_flash_attn = False"),
    "rotary": ("def rotate_half(x):", "def rotate(x):"),
    "rotary_scaling": ("ROPE_INIT_FUNCTIONS[kind]", "rope_theta: float = 1e4"),
    "rotary_axes": ("class ToyVisionRotaryEmbedding(nn.Module)", "class ToyRotaryEmbedding(nn.Module)"),
    "position_bias": ("def build_alibi_tensor(mask):", "position_embeddings = None"),
    "no_position": (
        "if self.sliding_window is not None:\n    query_states, key_states = apply_rotary_pos_emb(",
        "query_states, key_states = apply_rotary_pos_emb(",
    ),
    "sink": ("self.sinks = nn.Parameter(torch.empty(4))", "self.sink_tokens = 4"),
    "bounded_logits": ("self.q_norm = ToyNorm(8)", "self.mask_norm = ToyNorm(8)"),
    "output_gate": (
        "attn_output = attn_output * torch.sigmoid(gate)",
        "hidden_states = up * torch.sigmoid(gate)",
    ),
    "differential": ("self.lambda_q1 = 0", "self.lambda_init = 0"),
    "decayed_linear": ("class ToyLightningAttention(nn.Module):", "class ToyAttention(nn.Module):"),
    "selective_scan": ("selective_scan_fn(x)", "scan(x)"),
    "state_space_duality": ("mamba_chunk_scan_combined(x)", "selective_scan_fn(x)"),
    "gated_delta": ("chunk_gated_delta_rule(q, k, v)", "chunk_kda(q, k, v)"),
    "kimi_delta": ("chunk_kda(q, k, v)", "chunk_gated_delta_rule(q, k, v)"),
    "lightning_indexer": ("class ToyIndexer(nn.Module):", "self.indexer = None"),
    "block_selection": ('class ToyIndexer(nn.Module):\n"minimax_m3_sparse"', '"minimax_m3_sparse"'),
    "compressed_sparse": ("compress_rates: dict = None", "compression_ratio = 4"),
    "attention_residual": ("class ToyBlockAttentionResidual(nn.Module):", "attn_residual = x"),
    "hyper_connection": ("hc_mult: int = 4", "connection = 4"),
    "shifted_window": ("self.shift_size = 2", "self.window_size = 4"),
    "deformable": ("self.sampling_offsets = nn.Linear(4, 8)", "self.offsets = 4"),
    "neighbourhood": ("from natten.functional import natten2dav", "neighbours = 4"),
    "divided_space_time": ('attention_type == "divided_space_time"', "attention_type = 1"),
    "latent_queries": ("class ToyPerceiverAttention(nn.Module):", "class ToyAttention(nn.Module):"),
    "gumbel": ("F.gumbel_softmax(x)", "F.softmax(x)"),
    "senet": ("class ToySqueezeExciteLayer(nn.Module):", "class SqueezeBertLayer(nn.Module):"),
}


@pytest.mark.parametrize("pattern", PATTERNS, ids=[pattern.slug for pattern in PATTERNS])
def test_a_pattern_finds_the_mechanism_and_not_what_looks_like_it(pattern: Any) -> None:
    shows, looks_alike = MADE_UP[pattern.slug]
    assert pattern.uses(f"# made up\n{shows}\n")
    assert not pattern.uses(f"# made up\n{looks_alike}\n")


def test_slugs_are_of_one_pattern_each() -> None:
    assert set(Counter(pattern.slug for pattern in PATTERNS).values()) == {1}
    assert used("") == []


def toy(fields: str, modeling: str = "GenerationMixin, create_causal_mask") -> list[dict[str, Any]]:
    """What a made-up decoder of two layers keeps."""
    common = (
        "num_hidden_layers: int = 2; num_attention_heads: int = 4; hidden_size: int = 32; use_cache = True"
    )
    source = "class ToyConfig:\n" + "".join(f"    {line}\n" for line in f"{common}\n{fields}".splitlines())
    return kept("toy", {"configuration_toy.py": source, "modeling_toy.py": modeling})


def test_layers_of_different_kinds_are_counted_apart() -> None:
    window = 'layer_types: list = ["full_attention", "sliding_attention"]; sliding_window: int = 16'
    full, ring = toy(window)
    assert full == {"kind": "full", "layers": 1, "heads": 4, "key": 8, "value": 8, "numbers": 64}
    assert ring == full | {"kind": "window", "window": 16}
    (latent,) = toy("kv_lora_rank: int = 12; qk_rope_head_dim: int = 4")
    assert (latent["kind"], latent["layers"], latent["numbers"]) == ("latent", 2, 16)


@pytest.mark.parametrize(
    "fields",
    [
        'layer_types: list = ["full_attention", "of_another_kind"]',
        "layer_types: list = read_from_somewhere()",
        'layer_types: list = ["full_attention", "linear_attention"]',
        'layer_types: list = ["full_attention", "sliding_attention"]; sliding_window: int = None',
        "is_encoder_decoder: bool = True",
        "per_layer_config: dict = None",
    ],
)
def test_what_is_not_understood_gives_no_figure(fields: str) -> None:
    assert toy(fields) == []


def test_a_shape_that_stands_nowhere_any_more_is_an_error() -> None:
    source = """class ToyConfig:
        num_hidden_layers: int = 1; use_cache: bool = True; layer_types: list = ["linear_attention"]
        num_heads: int = 2; state_size: int = 4; head_dim: int = 8"""
    code = "GenerationMixin, create_causal_mask"
    with pytest.raises(ValueError, match=r"^mamba2: no line has 'self\.ssm_state_size"):
        kept("mamba2", {"configuration_mamba2.py": source, "modeling_mamba2.py": code})


def test_what_cannot_be_read_is_forgotten() -> None:
    source = """class ToyConfig:
    width: int = 8
    def __post_init__(self, **kwargs):
        while self.width < 100:
            self.width = self.width * 2
        self.half = self.width // 2
        self.heads = 4 if kwargs.get("heads") is None else 0
    """
    assert defaults([source])["ToyConfig"] == {"heads": 4}


def test_the_census_is_that_of_the_pinned_version() -> None:
    """Whoever changes version or patterns counts again; a day is no change."""
    package, version = wheel.pinned()
    assert f"{package}=={version}" in (RESULT.parents[1] / "constraints.txt").read_text().split()
    again = json.loads(text(census(wheel.read())))
    assert again | {"date": FOUND["date"]} == FOUND


@pytest.mark.parametrize("source", ["folder", "wheel"])
def test_files_are_read_from_a_folder_or_a_wheel(tmp_path: Path, source: str) -> None:
    file = tmp_path / "transformers/models/toy/modeling_toy.py"
    file.parent.mkdir(parents=True)
    file.write_text("self.sinks = None")
    found = wheel.of_folder(tmp_path) if source == "folder" else wheel.of_wheel(packed(tmp_path))
    assert found == {"toy": {"modeling_toy.py": "self.sinks = None"}}


def packed(folder: Path) -> Path:
    """Pack a folder as a wheel."""
    archive = shutil.make_archive(str(folder / "toy"), "zip", folder, "transformers")
    return Path(archive).rename(folder / "toy.whl")


def configurations(families: Container[str]) -> Iterator[tuple[str, Mapping[str, Any], PreTrainedConfig]]:
    """Yield each configuration of decoders as it was read, and as the library makes it."""
    for family, texts in wheel.read().items():
        if family not in families:
            continue
        for name, source in texts.items():
            for cls, fields in defaults([source] if name.startswith("configuration") else []).items():
                if "num_hidden_layers" in fields:
                    file = name.removesuffix(".py")
                    module = importlib.import_module(f"transformers.models.{family}.{file}")
                    yield f"{family}.{cls}", fields, getattr(module, cls)()


FIELDS = (
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size"),
    *("layer_types", "sliding_window", "kv_lora_rank", "qk_rope_head_dim", "v_head_dim", "index_head_dim"),
    *("linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"),
)


def test_defaults_are_those_of_the_library() -> None:
    decoders = {name for name, row in FOUND["families"].items() if "keeps" in row}
    found = list(configurations(decoders))
    assert {name.partition(".")[0] for name, _, _ in found} == decoders
    wrong = [
        f"{name}.{field}: read {fields[field]}, is {getattr(made, field)}"
        for name, fields, made in found
        for field in FIELDS
        if field in fields and fields[field] != getattr(made, field)
    ]
    assert not wrong


CACHED = ("llama", "gpt2", "mistral", "deepseek_v3", "deepseek_v32", "gpt_oss", "kimi_linear", "qwen3_next")


@pytest.mark.parametrize("family", CACHED)
def test_what_is_kept_is_what_the_cache_of_the_library_holds(family: str) -> None:
    """A model in its default configuration, without memory, reads five tokens."""
    ((_, _, configuration),) = configurations([family])
    with torch.device("meta"), torch.no_grad():
        model = AutoModelForCausalLM.from_config(configuration, dtype=torch.bfloat16).eval()
        cache = model(torch.zeros(1, 5, dtype=torch.long), use_cache=True).past_key_values
    held: Counter[str] = Counter()
    for layer in cache.layers:
        kind = "window" if "Sliding" in type(layer).__name__ else "full"
        for name in ("keys", "values"):
            held[kind] += getattr(layer, name).numel() // 5 if hasattr(layer, name) else 0
        held["index"] += layer.indexer_keys.numel() // 5 if hasattr(layer, "indexer_keys") else 0
        held["state"] += sum(state.numel() for state in getattr(layer, "recurrent_states", {}).values())
    counted: Counter[str] = Counter()
    for row in FOUND["families"][family]["keeps"]:
        counted[row["kind"].replace("latent", "full")] += row["layers"] * row["numbers"]
    assert +held == counted
