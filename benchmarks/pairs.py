"""Which mechanism is compared with what, and why the others are not."""

from collections.abc import Callable

from benchmarks import against_fightingcv, against_mmcv, against_pytorchcv, against_torch, against_torchnlp
from benchmarks.pair import Pair

PAIRS: dict[str, Callable[[], Pair]] = {
    function.__name__: function
    for function in (
        against_torchnlp.luong_global,
        against_torch.gumbel,
        against_torch.self_attention,
        against_torch.multi_head,
        against_torch.transformer_encoder,
        against_torch.transformer_decoder,
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

NOT_FOUND = "none found on PyPI that installs without a compiler"
MMSEG = "mmsegmentation 1.2.2 has it but refuses mmcv 2.2.0, and needs compiled operators of mmcv"

WITHOUT_TWIN = {
    "general": "written for this atlas, as the formula in its plainest form",
    "query_key_value": "written for this atlas, to take the three stages apart",
    "scores": "written for this atlas, to put six scores side by side",
    "masks": "its forward pass is a single call of torch's own kernel",
    "saliency": "written for this atlas, to put two kinds of attention side by side",
    "blstm_attention": NOT_FOUND,
    "additive": NOT_FOUND,
    "key_value": NOT_FOUND,
    "stochastic": NOT_FOUND,
    "luong_local": NOT_FOUND,
    "structured": NOT_FOUND,
    "srm": NOT_FOUND,
    "gsop": NOT_FOUND,
    "em_attention": MMSEG,
    "glore": NOT_FOUND,
    "gather_excite": "timm 1.0.31 has it, but only the variant without parameters runs, and the "
    "torchvision it imports does not load beside a CPU-only torch",
    "hamburger": MMSEG,
    "asymmetric_non_local": MMSEG,
    "disentangled_non_local": MMSEG,
    "psanet": MMSEG,
    "augmented_convolution": NOT_FOUND,
    "ram": NOT_FOUND,
    "multi_granularity": NOT_FOUND,
    "ra_cnn": NOT_FOUND,
    "temporal_adaptive": "mmaction2 1.2.0 has it but refuses mmcv 2.2.0",
    "global_local": NOT_FOUND,
    "highway": "allennlp 2.10.1 has it but needs a torch before 1.13",
    "sta": NOT_FOUND,
    "canet": "no code was released; the snippet is a reconstruction",
}

ABOVE_ONE = {
    "cbam": "with backward: `amax` is faster forward, but its backward compares the map with the maximum, "
    "to share the gradient among equals; pytorchcv keeps the index of one maximum",
}
