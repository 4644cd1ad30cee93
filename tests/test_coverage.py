"""The systems that this atlas set out to cover: each can be found by the name it is known by."""

import pytest

from snippets.catalogue import CATALOGUE, find

SYSTEMS = {
    "attention in one formula": "general",
    "query-key-value": "query_key_value",
    "score functions": "scores",
    "saliency": "saliency",
    "key-value attention": "key_value",
    "BLSTM": "blstm_attention",
    "additive attention": "additive",
    "global attention": "luong_global",
    "local attention": "luong_local",
    "stochastic hard attention": "stochastic",
    "self-attention": "self_attention",
    "intra-attention": "self_attention",
    "multi-head": "multi_head",
    "Transformer": "transformer",
    "SENet": "senet",
    "GSoP-Net": "gsop",
    "SRM": "srm",
    "spatial self-attention": "self_attention_2d",
    "non-local": "non_local",
    "disentangled non-local": "disentangled_non_local",
    "CCNet": "criss_cross",
    "EMANet": "em_attention",
    "ANN": "asymmetric_non_local",
    "GCNet": "global_context",
    "GloRe": "glore",
    "HamNet": "hamburger",
    "GENet": "gather_excite",
    "PSANet": "psanet",
    "four attention factors": "attention_factors",
    "attention-augmented convolution": "augmented_convolution",
    "RAM": "ram",
    "RA-CNN": "ra_cnn",
    "MGD": "multi_granularity",
    "TAM": "temporal_adaptive",
    "GLTR": "global_local",
    "Highway": "highway",
    "SKNet": "sknet",
    "CondConv": "condconv",
    "dynamic convolution": "dynamic_convolution",
    "CBAM": "cbam",
    "CANet": "canet",
    "STA": "sta",
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_found_by_its_name(name: str) -> None:
    assert find(name) is CATALOGUE[SYSTEMS[name]]
