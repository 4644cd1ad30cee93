#!/usr/bin/env bash
# x-transformers 2.31.10: with fewer key-value heads, neighbouring query heads read different ones.
#
# torch (`enable_gqa`), transformers and the paper on grouped queries let query head h read key-value head
# floor(h / (heads / kv_heads)): 0, 0, 1, 1. This library tiles: 0, 1, 0, 1. Shapes agree, so weights of one load into the
# other without complaint and compute something else. To convert, permute the query heads, and with them the columns of
# the output matrix.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 x-transformers==2.31.10
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
import torch.nn.functional as F
from x_transformers.x_transformers import Attention

torch.manual_seed(0)
layer = Attention(32, heads=4, dim_head=8, kv_heads=2, flash=False).eval()
x = torch.randn(1, 5, 32)
off = {}
with torch.no_grad():
    y = layer(x)
    y = y[0] if isinstance(y, tuple) else y
    q, k, v = (
        linear(x).unflatten(2, (-1, 8)).transpose(1, 2) for linear in (layer.to_q, layer.to_k, layer.to_v)
    )
    for name, spread in (
        ("tiled", lambda heads: heads.repeat(1, 2, 1, 1)),
        ("interleaved", lambda heads: heads.repeat_interleave(2, dim=1)),
    ):
        read = F.scaled_dot_product_attention(q, spread(k), spread(v)).transpose(1, 2).flatten(2)
        off[name] = float((layer.to_out(read) - y).abs().max())
print("x-transformers", version("x-transformers"), "torch", torch.__version__)
print("expected: off by less than 1e-6 from tiled heads, by more than 0.1 from interleaved ones")
print("observed:", {name: f"{distance:.2g}" for name, distance in off.items()})
sys.exit(not (off["tiled"] < 1e-6 and off["interleaved"] > 0.1))
PYTHON
