#!/usr/bin/env bash
# transformers 5.23.0: YaRN ignores `truncate: False` where each kind of layer has rotary parameters of its own.
#
# The flag is read from the top level of `config.rope_parameters`. With one set of parameters (Llama) it moves
# frequencies by up to 8 % at 64 features, base 10,000, 4,096 trained positions and factor 4. In a configuration with sets
# for full and for sliding layers (Gemma 3) the same flag changes nothing: a model trained without truncation is loaded
# with other rotations. Check: compare `inv_freq` with and without the flag.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers
from transformers import Gemma3TextConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0}
YARN["original_max_position_embeddings"] = 4096
SIZES = {"hidden_size": 64, "num_attention_heads": 1, "head_dim": 64, "max_position_embeddings": 16384}


def frequencies(truncate: bool, per_layer: bool) -> torch.Tensor:
    parameters = YARN | {"truncate": truncate}
    if not per_layer:
        return ROPE_INIT_FUNCTIONS["yarn"](LlamaConfig(**SIZES, rope_parameters=parameters), "cpu")[0]
    kinds = {"full_attention": parameters, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    config = Gemma3TextConfig(**SIZES, num_hidden_layers=2, rope_parameters=kinds)
    return ROPE_INIT_FUNCTIONS["yarn"](config, "cpu", layer_type="full_attention")[0]


moved = {}
for name, per_layer in (("one set", False), ("per layer type", True)):
    with_, without = frequencies(True, per_layer), frequencies(False, per_layer)
    moved[name] = float(((with_ - without) / with_).abs().max())
print("transformers", transformers.__version__, "torch", torch.__version__)
print("expected: the flag moves a frequency by above 0.05 with one set, by 0 per layer type")
print("observed:", {name: round(share, 4) for name, share in moved.items()})
sys.exit(not (moved["one set"] > 0.05 and moved["per layer type"] == 0))
PYTHON
