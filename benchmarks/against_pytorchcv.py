"""Convolutional blocks beside those of pytorchcv."""

import torch
from pytorchcv.models.bamresnet import BamBlock
from pytorchcv.models.cbamresnet import CbamBlock
from pytorchcv.models.common.att import SEBlock as PublicSEBlock
from pytorchcv.models.danet import PosAttBlock
from pytorchcv.models.sknet import SKConvBlock
from torch import Tensor, nn

from benchmarks.pair import Pair, in_order
from snippets.attention_domain.branch.sknet import SelectiveKernel
from snippets.attention_domain.channel.senet import SEBlock
from snippets.attention_domain.channel_spatial.bam import BAM
from snippets.attention_domain.channel_spatial.cbam import CBAM
from snippets.attention_domain.spatial.self_attention_2d import SelfAttention2d

CHANNELS = 128


def senet() -> Pair:
    ours = SEBlock(CHANNELS).eval()
    return Pair("pytorchcv SEBlock", ours, in_order(ours, PublicSEBlock(CHANNELS)), (feature_map(),))


def cbam() -> Pair:
    ours = CBAM(CHANNELS).eval()
    return Pair("pytorchcv CbamBlock", ours, in_order(ours, CbamBlock(CHANNELS)), (feature_map(),))


def bam() -> Pair:
    """The scores multiplied, as in the released code."""
    ours = BAM(CHANNELS, multiply=True).eval()
    return Pair("pytorchcv BamBlock", ours, in_order(ours, BamBlock(CHANNELS)), (feature_map(),))


def sknet() -> Pair:
    ours = SelectiveKernel(CHANNELS).eval()
    return Pair(
        "pytorchcv SKConvBlock", ours, in_order(ours, SKConvBlock(CHANNELS, CHANNELS, 1)), (feature_map(),)
    )


def self_attention_2d() -> Pair:
    ours = SelfAttention2d(CHANNELS, value_reduction=1).eval()
    nn.init.ones_(ours.gamma)
    theirs = PosAttBlock(CHANNELS).eval()
    state = {
        f"{name}_conv.{kind}": getattr(getattr(ours, name), kind)
        for name in ("query", "key", "value")
        for kind in ("weight", "bias")
    }
    theirs.load_state_dict(state | {"scale.alpha": ours.gamma.view(1)})
    return Pair("pytorchcv PosAttBlock (DANet)", ours, theirs, (feature_map(40, batch=2),))


def feature_map(side: int = 40, batch: int = 4) -> Tensor:
    return torch.randn(batch, CHANNELS, side - 4, side)
