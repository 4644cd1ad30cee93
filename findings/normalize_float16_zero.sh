#!/usr/bin/env bash
# torch 2.13.0: F.normalize and F.cosine_similarity of a zero vector are NaN in float16, zero in bfloat16 and float32.
#
# Both guard against division by zero with eps (1e-12 and 1e-8). In float16 the smallest number above zero is 6e-8, so
# the guard itself rounds to zero and 0 / 0 is left. bfloat16 has the range of float32 and keeps it. Attention with
# normalised queries and keys, k-means-like bases and cosine scores meet zero vectors behind a ReLU or in padding.
# Cure: compute the norm in float32, or pass an eps that float16 can hold.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import torch.nn.functional as F

expected = {"float16": (True, True, False), "bfloat16": (False, False, False), "float32": (False, False, False)}
observed = {}
for name in expected:
    zero = torch.zeros(4, dtype=getattr(torch, name))
    observed[name] = tuple(
        bool(result.isnan().any())
        for result in (
            F.normalize(zero, dim=0),
            F.cosine_similarity(zero, torch.ones_like(zero), dim=0),
            F.normalize(zero, dim=0, eps=1e-4),
        )
    )
print("torch", torch.__version__, "- NaN from normalize, cosine_similarity, normalize with eps 1e-4")
print("expected", expected)
print("observed", observed)
sys.exit(observed != expected)
PYTHON
