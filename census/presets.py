"""Ten models for the cache calculator: a family in its default configuration, or as it was published."""

from collections.abc import Mapping
from typing import Any

from census.kept import Row, numbers

MODELS: Mapping[str, str | list[Row]] = {
    "GPT-2 XL": [{"kind": "full", "layers": 48, "heads": 25, "key": 64, "value": 64}],
    "Llama 3 8B": [{"kind": "full", "layers": 32, "heads": 8, "key": 128, "value": 128}],
    "Mistral 7B v0.1": "mistral",
    "Gemma 2 2B": "gemma2",
    "gpt-oss-120b": "gpt_oss",
    "DeepSeek-V3": "deepseek_v3",
    "DeepSeek-V3.2": "deepseek_v32",
    "DeepSeek-V4-Flash": "deepseek_v4",
    "Qwen3-Next 80B-A3B": "qwen3_next",
    # The default configuration of transformers has 6 and 21 layers, those of the checkpoint are 7 and 20
    "Kimi Linear 48B-A3B": [
        {"kind": "latent", "layers": 7, "rank": 512, "rotated": 64},
        {"kind": "state", "layers": 20, "heads": 32, "key": 128, "value": 128},
    ],
}
"""In the order of the list: the family whose defaults are those of the model, or what was published."""


def rows(families: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Return what each model keeps."""
    return {name: _rows(model, families) for name, model in MODELS.items()}


def _rows(model: str | list[Row], families: Mapping[str, Any]) -> list[Row]:
    if isinstance(model, str):
        return list(families[model]["keeps"])
    return [row | {"numbers": numbers(row)} for row in model]
