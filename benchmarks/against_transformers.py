"""Decode steps behind 4096 tokens beside the layers of transformers (sdpa); what is kept is an input."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import Cache, DeepseekV3Config, LlamaConfig
from transformers.cache_utils import DynamicLayer
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention
from transformers.models.llama.modeling_llama import LlamaAttention

from benchmarks.pair import Pair
from snippets.weight_assignment.self_attention.grouped_query import GroupedCache, GroupedQueryAttention
from snippets.weight_assignment.self_attention.latent import LatentAttention, LatentCache

KEPT = 4096
WIDTH, HEADS, KV_HEADS = 4096, 32, 8
LATENT_WIDTH, LATENT_HEADS, LATENT, CONTENT, ROTATED = 2048, 16, 512, 128, 64


class Step(nn.Module):
    """A step as a call: of the next token, and of the tensors of the state."""

    def __init__(self, block: nn.Module, state: Callable[..., object]) -> None:
        super().__init__()
        self.block, self.state = block, state

    def forward(self, x: Tensor, *kept: Tensor) -> Tensor:
        output: Tensor = self.block.step(x, self.state(*kept))[0]  # type: ignore[operator]
        return output


def grouped_query() -> Pair:
    """The layer of Llama 3 8B with cosine 1 and sine 0, for ours has no positions."""
    ours = GroupedQueryAttention(WIDTH, HEADS, KV_HEADS).eval()
    config = LlamaConfig(  # type: ignore[call-arg]  # takes what any layer may want
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        attn_implementation="sdpa",
    )
    theirs = LlamaAttention(config, layer_idx=0).eval()
    theirs.load_state_dict({name.replace("out", "o"): w for name, w in ours.state_dict().items()})
    head_dim = WIDTH // HEADS
    unrotated = torch.ones(1, 1, head_dim), torch.zeros(1, 1, head_dim)

    def run(x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        output: Tensor = theirs(x, unrotated, past_key_values=cache(keys, values))[0]
        return output

    keys, values = torch.randn(2, 1, KV_HEADS, KEPT, head_dim)
    return Pair(
        "transformers LlamaAttention", Step(ours, GroupedCache), run, (torch.randn(1, 1, WIDTH), keys, values)
    )


def latent() -> Pair:
    """The layer of DeepSeek-V2-Lite; theirs expands what it keeps at each step."""
    ours = LatentAttention(LATENT_WIDTH, LATENT_HEADS, LATENT, CONTENT, ROTATED, CONTENT).eval()
    config = DeepseekV3Config(  # type: ignore[call-arg]
        hidden_size=LATENT_WIDTH,
        num_attention_heads=LATENT_HEADS,
        num_key_value_heads=LATENT_HEADS,
        q_lora_rank=None,
        kv_lora_rank=LATENT,
        qk_nope_head_dim=CONTENT,
        qk_rope_head_dim=ROTATED,
        v_head_dim=CONTENT,
        attn_implementation="sdpa",
    )
    theirs = DeepseekV3Attention(config, layer_idx=0).eval()
    ups = [layer.weight.unflatten(0, (LATENT_HEADS, -1)) for layer in (ours.k_up, ours.v_up)]
    theirs.load_state_dict(
        {
            "q_proj.weight": ours.q_up.weight,
            "kv_a_proj_with_mqa.weight": ours.kv_down.weight,
            "kv_a_layernorm.weight": ours.kv_norm.weight,
            "kv_b_proj.weight": torch.cat(ups, dim=1).flatten(0, 1),
            "o_proj.weight": ours.out_proj.weight,
        }
    )
    angle = KEPT * ours.base ** (-torch.arange(0, ROTATED, 2) / ROTATED)
    angles = torch.cat([angle, angle])[None, None]

    def run(x: Tensor, entries: Tensor) -> Tensor:
        latents, keys = entries[:, None].split([LATENT, ROTATED], dim=3)
        halves = torch.cat([keys[..., 0::2], keys[..., 1::2]], dim=3)  # the order in which theirs keeps them
        kept = cache(latents, halves)
        output: Tensor = theirs(x, (angles.cos(), angles.sin()), None, past_key_values=kept)[0]
        return output

    entries = torch.randn(1, KEPT, LATENT + ROTATED)
    return Pair(
        "transformers DeepseekV3Attention",
        Step(ours, LatentCache),
        run,
        (torch.randn(1, 1, LATENT_WIDTH), entries),
    )


def cache(keys: Tensor, values: Tensor) -> Cache:
    """A cache of transformers that holds these, without a copy."""
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return Cache(layers=[layer])
