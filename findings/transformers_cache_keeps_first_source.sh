#!/usr/bin/env bash
# transformers 5.23.0: an EncoderDecoderCache that has been used once ignores every later source without a word.
#
# Keys and values of the source are kept after the first call, and `is_updated` says so. A second call of the layer with
# another source, another picture or another document, returns what the first source gives, to the last bit.
# Cure: a new cache, or `reset()`, for each source.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers
from transformers import BartConfig, DynamicCache, EncoderDecoderCache
from transformers.models.bart.modeling_bart import BartAttention

torch.manual_seed(0)
config = BartConfig(d_model=32, decoder_attention_heads=4, attn_implementation="sdpa")
layer = BartAttention(32, 4, is_decoder=True, config=config, layer_idx=0).eval()
x, first, second = torch.randn(3, 1, 5, 32)
cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
with torch.no_grad():
    old = layer(x, key_value_states=first, past_key_values=cache)[0]
    new = layer(x, key_value_states=second, past_key_values=cache)[0]
    right = layer(x, key_value_states=second)[0]
print("transformers", transformers.__version__, "torch", torch.__version__)
print("expected: 0 to the result for the first source, above 0.1 to that for the second")
to_old, to_right = (float((new - y).abs().max()) for y in (old, right))
print(f"observed: {to_old:.3g}, {to_right:.3g}")
sys.exit(not (to_old == 0 and to_right > 0.1))
PYTHON
