#!/usr/bin/env bash
# transformers 5.23.0: the cross-attention of Mllama reads its source causally when no mask is given (sdpa).
#
# MllamaTextCrossAttention has no attribute `is_causal`, and the sdpa path takes True where there is none. With more
# than one query and no `cross_attention_mask`, query i then sees source tokens 0 to i alone. The eager path of the same
# layer sees the whole source, so two settings that should differ in speed differ in what the model reads.
# Cure: pass a mask of ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers
from transformers.models.mllama.configuration_mllama import MllamaTextConfig
from transformers.models.mllama.modeling_mllama import MllamaTextCrossAttention

SIZES = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
x, source = torch.randn(2, 1, 4, 32)[0], torch.randn(1, 6, 32)
other = source.clone()
other[:, 3:] += 1  # source tokens 3, 4 and 5
changed = {}
for path in ("eager", "sdpa"):
    torch.manual_seed(0)
    config = MllamaTextConfig(**SIZES, cross_attention_layers=[1], attn_implementation=path)
    layer = MllamaTextCrossAttention(config, layer_idx=1).eval()
    with torch.no_grad():
        changed[path] = (layer(x, source)[0] != layer(x, other)[0]).any(dim=-1)[0].tolist()
print("transformers", transformers.__version__, "torch", torch.__version__)
print("expected: eager [True, True, True, True], sdpa [False, False, False, True]: which queries notice other tokens 3 to 5")
print("observed:", changed)
sys.exit(changed != {"eager": [True] * 4, "sdpa": [False, False, False, True]})
PYTHON
