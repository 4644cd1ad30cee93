"""Convolutional blocks beside those of fightingcv-attention; where one has no bias, the other's is zero."""

import torch
from fightingcv_attention.attention.CoordAttention import CoordAtt
from fightingcv_attention.attention.ECAAttention import ECAAttention
from fightingcv_attention.conv.CondConv import CondConv
from fightingcv_attention.conv.DynamicConv import DynamicConv
from torch import Tensor, nn

from benchmarks.pair import Pair, in_order
from snippets.attention_domain.branch.condconv import CondConv2d
from snippets.attention_domain.branch.dynamic_convolution import DynamicConv2d
from snippets.attention_domain.channel.eca import ECALayer
from snippets.attention_domain.channel_spatial.coordinate import CoordinateAttention

CHANNELS = 128


def eca() -> Pair:
    ours = ECALayer(CHANNELS, kernel_size=5).eval()
    theirs = ECAAttention(kernel_size=5).eval()
    theirs.load_state_dict({"conv.weight": ours.conv.weight, "conv.bias": torch.zeros(1)})
    return Pair("fightingcv ECAAttention", ours, theirs, (feature_map(),))


def coordinate() -> Pair:
    ours = CoordinateAttention(CHANNELS).eval()
    return Pair("fightingcv CoordAtt", ours, in_order(ours, CoordAtt(CHANNELS, CHANNELS)), (feature_map(),))


def condconv() -> Pair:
    ours = CondConv2d(CHANNELS, CHANNELS).eval()
    nn.init.zeros_(ours.routing.bias)
    theirs = CondConv(CHANNELS, CHANNELS, kernel_size=3, stride=1, padding=1, bias=False).eval()
    theirs.load_state_dict(
        {
            "attention.net.weight": ours.routing.weight[:, :, None, None],
            "weight": ours.experts.unflatten(1, ours.kernel_shape),
        }
    )
    return Pair("fightingcv CondConv", ours, theirs, (feature_map(),))


def dynamic_convolution() -> Pair:
    ours = DynamicConv2d(CHANNELS, CHANNELS).eval()
    theirs = DynamicConv(CHANNELS, CHANNELS, kernel_size=3, stride=1, padding=1).eval()
    for layer in (0, 2):
        nn.init.zeros_(ours.scores.get_parameter(f"{layer}.bias"))
    state = {
        f"attention.net.{layer}.weight": ours.scores.get_parameter(f"{layer}.weight")[:, :, None, None]
        for layer in (0, 2)
    }
    theirs.load_state_dict(
        state | {"weight": ours.kernels.unflatten(1, ours.kernel_shape), "bias": ours.biases}
    )
    return Pair("fightingcv DynamicConv", ours, theirs, (feature_map(),))


def feature_map(side: int = 40, batch: int = 4) -> Tensor:
    return torch.randn(batch, CHANNELS, side - 4, side)
