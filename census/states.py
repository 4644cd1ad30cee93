"""Shapes that no page of the atlas explains yet, and the line of code that says each."""

from collections.abc import Mapping
from typing import NamedTuple


class Shape(NamedTuple):
    """Fields that give the shape of a state, and the code that says so."""

    heads: str
    key: str
    value: str
    code: str


_DELTA = Shape(
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "recurrent_state_shape = (batch_size, num_v_heads, k_head_dim, v_head_dim)",
)
_KIMI = Shape(
    "linear_num_heads",
    "linear_head_dim",
    "linear_head_dim",
    "torch.zeros(batch_size, num_heads, k_head_dim, v_head_dim, dtype=value.dtype",
)
_MAMBA_2 = Shape(
    "mamba_n_heads", "mamba_d_state", "mamba_d_head", "self.ssm_state_size = config.mamba_d_state"
)

STATES: Mapping[str, Shape] = {
    **dict.fromkeys(("olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_next"), _DELTA),
    **dict.fromkeys(("bailing_hybrid", "glm5_next", "kimi_linear"), _KIMI),
    **dict.fromkeys(("bamba", "falcon_h1", "granitemoehybrid"), _MAMBA_2),
    "mamba2": Shape("num_heads", "state_size", "head_dim", "self.ssm_state_size = config.state_size"),
    **dict.fromkeys(
        ("falcon_mamba", "mamba"),
        Shape("expand", "hidden_size", "state_size", "self.ssm_state_size = config.state_size"),
    ),
    "jamba": Shape(
        "mamba_expand", "hidden_size", "mamba_d_state", "self.ssm_state_size = config.mamba_d_state"
    ),
    "minimax": Shape("num_attention_heads", "head_dim", "head_dim", "attn_weights_inter = torch.zeros("),
}
COMPRESSED = "self.compress_rate = config.compress_rates["
"""Code that says how many tokens a compressed entry stands for."""


def place(family: str, kind: str, texts: Mapping[str, str]) -> str:
    """Return file and line that say the shape of what a family keeps; nothing if a page of the atlas does.

    Raises:
        ValueError: the code is there no more, so that the shape must be read again.
    """
    code = {"state": STATES[family].code if family in STATES else "", "compressed": COMPRESSED}.get(kind, "")
    if not code:
        return ""
    for name, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            if code in line:
                return f"models/{family}/{name}, line {number}"
    raise ValueError(f"{family}: no line has {code!r} any more; read the shape of its {kind} again")
