"""What the decoder of a family keeps from token to token, in its default configuration.

Each layer keeps one or more kinds of numbers. A configuration that says less than it takes, or has layers of
a kind not known here, gives nothing: no figure is better than a wrong one.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from census import states
from census.defaults import defaults
from census.expressions import Defaults

Sizes = Mapping[str, int]
Row = dict[str, Any]


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
    except KeyError:
        return []
    rows: list[Row] = [
        {"kind": kind, "layers": count, **dict(sizes)} for (kind, sizes), count in found.items()
    ]
    for row in rows:
        row["numbers"] = numbers(row)
        if where := states.place(family, row["kind"], texts):
            row["read"] = where
    return rows


def _decoder(texts: Mapping[str, str]) -> Defaults | None:
    """Return the defaults of the one class that configures a decoder."""
    models = "".join(text for name, text in texts.items() if name.startswith("modeling"))
    settings = [text for name, text in texts.items() if name.startswith("configuration")]
    causal = "GenerationMixin" in models and re.search(r"create_\w*mask|cache_params", models)
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
    if fields.get("kv_lora_rank"):
        yield (
            "latent",
            {"rank": _number(fields, "kv_lora_rank"), "rotated": _number(fields, "qk_rope_head_dim")},
        )
    else:
        yield "full", _heads(fields)


def _window(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    yield "window", {**_heads(fields), "window": _number(fields, "sliding_window")}


def _chunk(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    yield "window", {**_heads(fields), "window": _number(fields, "attention_chunk_size")}


def _indexed(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    yield from _attention(family, fields, place)
    types = fields.get("indexer_types")
    if not types or types[place] == "full":
        yield "index", {"width": _number(fields, "index_head_dim")}


def _compressed(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    """One vector is key and value; of the sparse kind each entry has an index key as well."""
    kind, width = fields["layer_types"][place], _number(fields, "head_dim")
    index = _number(fields, "index_head_dim") if kind == "compressed_sparse_attention" else 0
    yield "compressed", {"width": width + index, "every": fields["compress_rates"][kind]}
    yield "window", {"heads": 1, "key": width, "value": 0, "window": _number(fields, "sliding_window")}


def _state(family: str, fields: Defaults, place: int) -> Iterator[tuple[str, Sizes]]:
    shape = states.STATES[family]
    heads, key, value = (_width(fields, name) for name in (shape.heads, shape.key, shape.value))
    yield "state", {"heads": heads, "key": key, "value": value}


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
    heads = fields.get("num_key_value_heads") or fields.get("num_kv_heads")
    if fields.get("multi_query"):
        heads = 1
    width = _width(fields, "head_dim")
    return {
        "heads": heads or _number(fields, "num_attention_heads"),
        "key": width,
        "value": fields.get("v_head_dim") or width,
    }


def _width(fields: Defaults, name: str) -> int:
    """Return a field, or the width of a head that follows from the others."""
    if fields.get(name):
        return _number(fields, name)
    return _number(fields, "hidden_size") // _number(fields, "num_attention_heads")


def _number(fields: Defaults, name: str) -> int:
    """Return a field.

    Raises:
        KeyError: it is unknown, or none.
    """
    value = fields[name]
    if not isinstance(value, int):
        raise KeyError(name)
    return value


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
