"""What the decoder of a family keeps from token to token, in its default configuration.

Each layer keeps one or more kinds of numbers. A configuration that says less than it takes, or has layers of
a kind not known here, gives nothing: no figure is better than a wrong one.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from census.defaults import Defaults, defaults

Sizes = Mapping[str, int]
Row = dict[str, Any]


class Shape(NamedTuple):
    """Fields that give the shape of a state, and the code that says so."""

    heads: str
    key: str
    value: str
    code: str


_DELTA = Shape(
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "recurrent_state_shape = (batch_size, num_v_heads, k_head_dim, v_head_dim)",
)
_KIMI = Shape(
    "linear_num_heads",
    "linear_head_dim",
    "linear_head_dim",
    "torch.zeros(batch_size, num_heads, k_head_dim, v_head_dim, dtype=value.dtype",
)
_MAMBA_2 = Shape(
    "mamba_n_heads", "mamba_d_state", "mamba_d_head", "self.ssm_state_size = config.mamba_d_state"
)

STATES: Mapping[str, Shape] = {
    **dict.fromkeys(("olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_next"), _DELTA),
    **dict.fromkeys(("bailing_hybrid", "glm5_next", "kimi_linear"), _KIMI),
    **dict.fromkeys(("bamba", "falcon_h1", "granitemoehybrid"), _MAMBA_2),
    "mamba2": Shape("num_heads", "state_size", "head_dim", "self.ssm_state_size = config.state_size"),
    **dict.fromkeys(
        ("falcon_mamba", "mamba"),
        Shape("", "state_size", "intermediate_size", "self.ssm_state_size = config.state_size"),
    ),
    "minimax": Shape("num_attention_heads", "head_dim", "head_dim", "attn_weights_inter = torch.zeros("),
}
COMPRESSED = "self.compress_rate = config.compress_rates["

# Where no list says of which kind the layers are
_WINDOWED = re.compile(
    r"create_causal_mask if self\.config\.sliding_window is None else create_sliding_window_causal_mask"
)
_LISTED = re.compile(r"^\s+(?:self\.|def )?layers?_(?:block_)?types?\b ?[:=(]", re.MULTILINE)
# Sizes that differ between layers, and layers of kinds that such a list does not tell
_OTHERWISE = re.compile(
    r"per_layer_config|\bblock_types\b|\bswa_\w*head|num_key_value_heads \* \d if"
    r"|cross_attention_layers|kv_source_layers"
)


def kept(family: str, texts: Mapping[str, str]) -> list[Row]:
    """Return what the layers keep, equal ones together; nothing if this is no decoder, or one not understood.

    >>> kept("toy", {"configuration_toy.py": '''
    ... class ToyConfig:
    ...     num_hidden_layers: int = 2
    ...     num_attention_heads: int = 4
    ...     num_key_value_heads: int = 1
    ...     hidden_size: int = 32
    ...     use_cache: bool = True
    ... ''', "modeling_toy.py": "GenerationMixin, create_causal_mask"})
    [{'kind': 'full', 'layers': 2, 'heads': 1, 'key': 8, 'value': 8, 'numbers': 16}]
    """
    fields = _decoder(texts)
    if fields is None:
        return []
    try:
        found = Counter(
            (kind, tuple(sizes.items())) for kind, sizes in _layers(family, fields, "".join(texts.values()))
        )
    except (KeyError, TypeError):
        return []
    rows: list[Row] = [
        {"kind": kind, "layers": count, **dict(sizes)} for (kind, sizes), count in found.items()
    ]
    return [row | {"numbers": numbers(row)} | _read(family, row["kind"], texts) for row in rows]


def _decoder(texts: Mapping[str, str]) -> Defaults | None:
    """Return the defaults of the one class that configures a decoder."""
    models = "".join(text for name, text in texts.items() if name.startswith("modeling"))
    settings = [text for name, text in texts.items() if name.startswith("configuration")]
    causal = "GenerationMixin" in models and re.search(r"create_\w*mask", models)
    if not causal or any(map(_OTHERWISE.search, texts.values())):
        return None
    classes = defaults(settings)
    if any(fields.get("is_encoder_decoder") for fields in classes.values()):
        return None
    found = {name: fields for name, fields in classes.items() if _decodes(fields)}
    if len(found) > 1:
        found = {name: fields for name, fields in found.items() if name.endswith("TextConfig")}
    listed = any(map(_LISTED.search, settings))
    known = [fields for fields in found.values() if not listed or fields.get("layer_types")]
    return known[0] if len(known) == 1 else None


def _decodes(fields: Defaults) -> bool:
    wanted = bool(fields.get("num_hidden_layers")) and "use_cache" in fields
    return wanted and fields.get("is_decoder", True)


def _layers(family: str, fields: Defaults, text: str) -> Iterator[tuple[str, Sizes]]:
    """Yield kind and sizes of all that is kept, layer by layer."""
    count = fields["num_hidden_layers"]
    every = (
        "sliding_attention" if _WINDOWED.search(text) and fields.get("sliding_window") else "full_attention"
    )
    kinds = fields.get("layer_types") or [every] * count
    own = count - fields.get("num_kv_shared_layers", 0)
    for place, kind in enumerate(kinds[:own]):
        yield from _LAYERS[kind](family, fields, place)


def _attention(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    if rank := fields.get("kv_lora_rank"):
        yield "latent", {"rank": rank, "rotated": fields["qk_rope_head_dim"]}
    else:
        yield "full", _heads(fields)


def _window(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    yield "window", {**_heads(fields), "window": fields["sliding_window"] + 0}


def _chunk(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    yield "window", {**_heads(fields), "window": fields["attention_chunk_size"] + 0}


def _indexed(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    yield from _attention(family, fields, place)
    types = fields.get("indexer_types")
    if not types or types[place] == "full":
        yield "index", {"width": fields["index_head_dim"] + 0}


def _compressed(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    """One vector is key and value; of the sparse kind each entry has an index key as well."""
    kind = fields["layer_types"][place]
    index = fields["index_head_dim"] if kind == "compressed_sparse_attention" else 0
    yield (
        "compressed",
        {"width": fields["head_dim"] + index, "every": fields["compress_rates"][kind]},
    )
    window = {"heads": 1, "key": fields["head_dim"], "value": 0, "window": fields["sliding_window"]}
    yield "window", window


def _state(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    shape = STATES[family]
    yield (
        "state",
        {
            "heads": fields[shape.heads],
            "key": _width(fields, shape.key),
            "value": _width(fields, shape.value),
        },
    )


def _both(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    yield from _attention(family, fields, place)
    yield from _state(family, fields, place)


def _nothing(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    yield from ()


_LAYERS = {
    "full_attention": _attention,
    "sliding_attention": _window,
    "chunked_attention": _chunk,
    "indexed_attention": _indexed,
    "compressed_sparse_attention": _compressed,
    "heavily_compressed_attention": _compressed,
    "linear_attention": _state,
    "hybrid": _both,
    "conv": _nothing,
}


def _heads(fields: Defaults) -> Sizes:
    heads = fields.get("num_key_value_heads") or fields.get("num_kv_heads") or fields["num_attention_heads"]
    if fields.get("multi_query"):
        heads = 1
    width = _width(fields, "head_dim")
    return {"heads": heads, "key": width, "value": fields.get("v_head_dim") or width}


def _width(fields: Defaults, name: str) -> int:
    return int(fields.get(name) or fields["hidden_size"] // fields["num_attention_heads"])


def _read(family: str, kind: str, texts: Mapping[str, str]) -> Row:
    """Return where a shape stands that no page of the atlas explains."""
    code = {"state": STATES[family].code if family in STATES else "", "compressed": COMPRESSED}.get(kind, "")
    if not code:
        return {}
    for name, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            if code in line:
                return {"read": f"models/{family}/{name}, line {number}"}
    raise ValueError(f"{family}: no line has {code!r} any more; read the shape of its {kind} again")


def numbers(row: Mapping[str, Any]) -> int:
    """Return how many numbers one layer keeps: for each entry, or at all if it is a state.

    >>> numbers({"kind": "latent", "rank": 512, "rotated": 64})
    576
    """
    match row["kind"]:
        case "full" | "window":
            return int(row["heads"] * (row["key"] + row["value"]))
        case "latent":
            return int(row["rank"] + row["rotated"])
        case "state":
            return int(row["heads"] * row["key"] * row["value"])
    return int(row["width"])
