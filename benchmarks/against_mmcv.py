"""Spatial blocks beside those of mmcv."""

from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import mmcv
import torch
from mmcv.cnn import ContextBlock, NonLocal2d
from mmcv.cnn.bricks import GeneralizedAttention as PublicAttention
from torch import Tensor, nn

from benchmarks.pair import Pair
from snippets.attention_domain.spatial.attention_factors import GeneralizedAttention
from snippets.attention_domain.spatial.criss_cross import CrissCrossAttention
from snippets.attention_domain.spatial.global_context import GlobalContext
from snippets.attention_domain.spatial.non_local import NonLocalBlock

CHANNELS = 64


def non_local() -> Pair:
    ours = NonLocalBlock(CHANNELS, scale=(CHANNELS // 2) ** -0.5).eval()
    theirs = NonLocal2d(CHANNELS, use_scale=True, norm_cfg={"type": "BN"}).eval()
    nn.init.ones_(ours.norm.weight)
    names = {
        "theta": "theta.conv",
        "phi": "phi.conv",
        "g": "g.conv",
        "W_z": "conv_out.conv",
        "norm": "conv_out.bn",
    }
    return Pair("mmcv.cnn.NonLocal2d", ours, renamed(ours, theirs, names), (feature_map(),))


def global_context() -> Pair:
    ours = GlobalContext(CHANNELS, reduction=4).eval()
    nn.init.normal_(ours.transform[-1].get_parameter("weight"))
    theirs = ContextBlock(CHANNELS, ratio=1 / 4).eval()
    state = theirs.state_dict()
    state["conv_mask.weight"] = ours.score.weight
    for name, tensor in ours.transform.named_parameters():
        key = f"channel_add_conv.{name}"
        state[key] = tensor.view_as(state[key])
    theirs.load_state_dict(state)
    return Pair("mmcv.cnn.ContextBlock", ours, theirs, (feature_map(),))


def criss_cross() -> Pair:
    """One pass."""
    ours = CrissCrossAttention(CHANNELS, recurrence=1).eval()
    nn.init.ones_(ours.gamma)
    theirs = public_criss_cross()(CHANNELS).eval()
    names = {"query": "query_conv", "key": "key_conv", "value": "value_conv", "gamma": "gamma.scale"}
    return Pair("mmcv.ops.CrissCrossAttention", ours, renamed(ours, theirs, names), (feature_map(),))


@cache
def public_criss_cross() -> type[nn.Module]:
    """Return mmcv's class, from its file alone: the package around it wants compiled code.

    Loaded once, because the file enters its class into a register that refuses a second one.
    """
    spec = spec_from_file_location("cc_attention", Path(mmcv.__file__).parent / "ops" / "cc_attention.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[nn.Module] = module.CrissCrossAttention
    return found


def attention_factors() -> Pair:
    """All four factors; mmcv's offset has the opposite sign, so the weights of the sines change theirs."""
    ours = GeneralizedAttention(CHANNELS, 8).eval()
    nn.init.ones_(ours.gamma)
    theirs = PublicAttention(CHANNELS, num_heads=8, kv_stride=1, attention_type="1111").eval()
    names = {"query": "query_conv", "key": "key_conv", "value": "value_conv", "proj": "proj_conv"}
    names |= {
        "position_x": "appr_geom_fc_x",
        "position_y": "appr_geom_fc_y",
        "u": "appr_bias",
        "v": "geom_bias",
    }
    theirs = renamed(ours, theirs, names)
    with torch.no_grad():
        for axis in "xy":
            theirs.get_parameter(f"appr_geom_fc_{axis}.weight")[:, : CHANNELS // 4] *= -1
    return Pair("mmcv.cnn.GeneralizedAttention", ours, theirs, (feature_map(24),))


def feature_map(side: int = 40) -> Tensor:
    """A map that is not square, as wide as asked."""
    return torch.randn(2, CHANNELS, side - 4, side)


def renamed(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> nn.Module:
    """Load the state of `ours` into `theirs`, whose parts have other names."""
    old = theirs.state_dict()
    state = {}
    for key, tensor in ours.state_dict().items():
        part, dot, kind = key.partition(".")
        name = names.get(part, part) + dot + kind
        state[name] = tensor.view_as(old[name])
    theirs.load_state_dict(state)
    return theirs
