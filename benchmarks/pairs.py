"""Which mechanism is compared with what."""

from collections.abc import Callable
from functools import partial

from benchmarks import (
    against_fightingcv,
    against_mmcv,
    against_pytorchcv,
    against_torch,
    against_torchnlp,
    against_transformers,
    against_usual,
)
from benchmarks.pair import Pair, alone
from snippets.catalogue import CATALOGUE

PAIRS: dict[str, Callable[[], Pair]] = {
    function.__name__: function
    for function in (
        against_usual.rotary,
        against_torchnlp.luong_global,
        against_torch.cross_attention,
        against_torch.gumbel,
        against_torch.self_attention,
        against_torch.multi_head,
        against_torch.sliding_window,
        against_torch.online_softmax,
        against_torch.online_softmax_explicit,
        against_torch.transformer_encoder,
        against_torch.transformer_decoder,
        against_transformers.grouped_query,
        against_transformers.latent,
        against_pytorchcv.senet,
        against_fightingcv.eca,
        against_mmcv.non_local,
        against_pytorchcv.self_attention_2d,
        against_mmcv.criss_cross,
        against_mmcv.global_context,
        against_mmcv.attention_factors,
        against_pytorchcv.sknet,
        against_fightingcv.condconv,
        against_fightingcv.dynamic_convolution,
        against_pytorchcv.cbam,
        against_pytorchcv.bam,
        against_fightingcv.coordinate,
    )
}


def mechanism(name: str) -> str:
    """Return the mechanism that a pair is about; the Transformer has a pair for each kind of layer."""
    return name.removesuffix("_encoder").removesuffix("_decoder").removesuffix("_explicit")


ALONE: dict[str, Callable[[], Pair]] = {
    name: partial(alone, name) for name in CATALOGUE if name not in map(mechanism, PAIRS)
}
"""The mechanisms without a public twin that is right and installs without a compiler."""
