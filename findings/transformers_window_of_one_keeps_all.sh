#!/usr/bin/env bash
# transformers 5.23.0: the dynamic cache of a window of one token drops nothing.
#
# DynamicSlidingWindowLayer keeps the last `sliding_window - 1` tokens between two steps. It slices from the end, and for
# a window of 1 the end is counted as 0, so the slice is the whole: the layer keeps and returns every token. Windows of 2
# and 3 return 2 and 3 tokens, as they should. Sizes that are searched or tested down to 1 measure full attention there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers
from transformers.cache_utils import DynamicSlidingWindowLayer

returned = {}
for window in (1, 2, 3):
    layer = DynamicSlidingWindowLayer(window)
    for token in range(6):
        key = torch.full((1, 1, 1, 1), float(token))
        keys, _ = layer.update(key, key)
    returned[window] = keys.shape[2]
print("transformers", transformers.__version__, "torch", torch.__version__)
print("expected: after six tokens a window of 1 returns 6, of 2 returns 2, of 3 returns 3")
print("observed:", returned)
sys.exit(returned != {1: 6, 2: 2, 3: 3})
PYTHON
