#!/usr/bin/env bash
# transformers 5.23.0: position ids that start anew part packed texts only where no cache is made.
#
# Two texts in one row, positions 0 to 4 and 0 to 3: with `use_cache=False` the model notices the restart and keeps them
# apart, so the second text gets the logits that it gets alone. By default a cache is made, no mask is built from the
# positions, and the second text reads the first, without a word. In evaluation of packed data this is easily overlooked.
# Cure: `use_cache=False`, or a mask of one's own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=50,
    initializer_range=1.0,
    attn_implementation="sdpa",
)
model = LlamaForCausalLM(config).eval()
first, second = torch.randint(50, (1, 5)), torch.randint(50, (1, 4))
packed, position = torch.cat([first, second], dim=1), torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3]])
off = {}
with torch.no_grad():
    alone = model(second).logits
    for name, arguments in (("default", {}), ("use_cache=False", {"use_cache": False})):
        logits = model(packed, position_ids=position, **arguments).logits[:, 5:]
        off[name] = float((logits - alone).abs().max())
print("transformers", transformers.__version__, "torch", torch.__version__)
print("expected: logits of the second text off by above 1 by default, by below 1e-4 with use_cache=False")
print("observed:", {name: f"{distance:.3g}" for name, distance in off.items()})
sys.exit(not (off["default"] > 1 and off["use_cache=False"] < 1e-4))
PYTHON
