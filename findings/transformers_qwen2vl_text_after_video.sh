#!/usr/bin/env bash
# transformers 5.23.0: in Qwen2-VL, text after a video starts at positions that frames of the video hold already.
#
# Text is said to go on behind the largest position of what came before. After ten frames of 2 x 2 patches, merged into
# one token each, the frames hold temporal positions 2 to 11, and the text behind them 3, 4, 5: the code adds the larger
# of height and width, not of the frames. With images, which have one frame, both rules agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers
from transformers import Qwen2VLConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

FRAMES = 10
rotary = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
text |= {"num_key_value_heads": 1, "rope_parameters": rotary}
vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2}
config = Qwen2VLConfig(text_config=text, vision_config=vision)
with torch.device("meta"):
    model = Qwen2VLModel(config)
tokens = torch.tensor([[1, 2] + [config.video_token_id] * FRAMES + [5, 6, 7]])
kinds = torch.tensor([[0, 0] + [2] * FRAMES + [0, 0, 0]])
position, _ = model.get_rope_index(tokens, kinds, video_grid_thw=torch.tensor([[FRAMES, 2, 2]]))
frames, after = position[0, 0, 2 : 2 + FRAMES].tolist(), position[:, 0, 2 + FRAMES :].tolist()
print("transformers", transformers.__version__, "torch", torch.__version__)
print("expected: frames at 2 to 11, text behind them at 3, 4, 5 on all three axes")
print("observed:", frames, after)
sys.exit(not (frames == list(range(2, 12)) and after == [[3, 4, 5]] * 3))
PYTHON
