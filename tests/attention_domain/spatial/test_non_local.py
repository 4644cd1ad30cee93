"""Proofs of the non-local block."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmcv.cnn import NonLocal2d
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from snippets.attention_domain.spatial.non_local import MODES, NonLocalBlock
from tests.measure import Measured
from tests.memory import peak_bytes

Conv = tuple[Tensor, Tensor | None]
"""1x1 convolution: weight (out,in) or (out,in,1,1), bias (out,) or None."""


def project(x: Tensor, conv: Conv) -> Tensor:
    """(in,H,W) -> (out,H,W), position by position."""
    weight, bias = conv[0].reshape(conv[0].shape[0], -1), conv[1]
    y = torch.einsum("oi,ihw->ohw", weight, x)
    return y if bias is None else y + bias[:, None, None]


def max_pool(x: Tensor, k: int) -> Tensor:
    """k x k windows with stride k, an incomplete last window dropped; (C,H,W) -> (C,H//k,W//k)."""
    C, H, W = x.shape
    rows = []
    for i in range(H // k):
        for j in range(W // k):
            window = x[:, i * k : (i + 1) * k, j * k : (j + 1) * k]
            rows.append(torch.stack([window[c].reshape(-1).max() for c in range(C)]))
    return torch.stack(rows, dim=1).reshape(C, H // k, W // k)


def naive_non_local(
    x: Tensor,
    theta: Conv | None,
    phi: Conv | None,
    g: Conv,
    W_z: Conv,
    mode: str = "embedded_gaussian",
    w_f: Tensor | None = None,
    scale: float = 1.0,
    pool: int = 1,
    pool_before: bool = False,
) -> tuple[Tensor, Tensor]:
    """x (B,C,H,W); theta, phi, g C->P (theta, phi None for gaussian), W_z P->C, w_f (2P,) theta part first.

    pool > 1 max-pools keys and values after phi and g (gaussian keys: x itself), or x once before them
    if pool_before. Returns weights (B,N,N') and z (B,C,H,W), the residual included.
    """
    B, _, H, W = x.shape
    maps, outs = [], []
    for b in range(B):
        source = max_pool(x[b], pool) if pool > 1 and pool_before else x[b]
        query = x[b] if mode == "gaussian" else project(x[b], theta)
        key = source if mode == "gaussian" else project(source, phi)
        value = project(source, g)
        if pool > 1 and not pool_before:
            key, value = max_pool(key, pool), max_pool(value, pool)
        q, k, v = query.reshape(-1, H * W), key.reshape(key.shape[0], -1), value.reshape(value.shape[0], -1)
        rows, ys = [], []
        for i in range(H * W):
            f = []
            for j in range(k.shape[1]):
                if mode in ("gaussian", "embedded_gaussian"):
                    f.append(torch.exp(scale * (q[:, i] * k[:, j]).sum()))
                elif mode == "dot_product":
                    f.append((q[:, i] * k[:, j]).sum())
                else:
                    pair = (w_f.reshape(-1) * torch.cat([q[:, i], k[:, j]])).sum()
                    f.append(torch.where(pair > 0, pair, torch.zeros_like(pair)))
            norm = sum(f) if mode in ("gaussian", "embedded_gaussian") else k.shape[1]
            a = [fj / norm for fj in f]
            rows.append(torch.stack(a))
            ys.append(sum((a[j] * v[:, j] for j in range(len(a))), torch.zeros_like(v[:, 0])))
        y = torch.stack(ys, dim=1).reshape(-1, H, W)
        maps.append(torch.stack(rows))
        outs.append(project(y, W_z) + x[b])
    return torch.stack(maps), torch.stack(outs)


def growth(run: Callable[[Tensor], object]) -> float:
    """How many times more memory `run` needs for a map of 64 x 64 positions than for one of 32 x 32."""
    large, small = (torch.randn(1, 16, side, side) for side in (64, 32))
    return peak_bytes(run, large) / peak_bytes(run, small)


def randomise(block: NonLocalBlock) -> NonLocalBlock:
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    nn.init.normal_(block.norm.running_mean)
    nn.init.uniform_(block.norm.running_var, 0.5, 2)
    return block.double().eval()


def small(
    mode: str, size: tuple[int, int, int, int] = (2, 6, 4, 5), **options: Any
) -> tuple[NonLocalBlock, Tensor]:
    torch.manual_seed(1)
    block = randomise(NonLocalBlock(size[1], mode, **options))
    return block, torch.randn(size, dtype=torch.float64, requires_grad=True)


def conv(layer: nn.Module) -> Conv | None:
    return (layer.weight, layer.bias) if isinstance(layer, nn.Conv2d) else None


def out_projection(block: NonLocalBlock) -> Conv:
    """W_z and the batch normalisation behind it as one convolution (eval mode)."""
    factor = block.norm.weight / (block.norm.running_var + block.norm.eps).sqrt()
    return block.W_z.weight * factor[:, None, None, None], block.norm.bias - block.norm.running_mean * factor


@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_equals_naive_reference(measured: Measured, mode: str, subsample: bool) -> None:
    block, x = small(mode, scale=0.7, subsample=subsample)
    weights, z = naive_non_local(
        x,
        conv(block.theta),
        conv(block.phi),
        (block.g.weight, block.g.bias),
        out_projection(block),
        mode,
        block.w_f.weight[0] if mode == "concatenation" else None,
        scale=0.7,
        pool=2 if subsample else 1,
    )
    measured.close(block.attention(x), weights)
    measured.close(block(x), z)
    measured.gradients(block(x), z, of=(x, *block.parameters()))


@pytest.mark.parametrize("mode", MODES)
def test_forward_equals_explicit_weights(measured: Measured, mode: str) -> None:
    block, x = small(mode, size=(2, 16, 12, 11), subsample=True)
    values = block.pool(block.g(x)).flatten(2)
    y = torch.einsum("bij,bpj->bpi", block.attention(x), values).view(2, 8, 12, 11)
    explicit = x + block.norm(block.W_z(y))
    measured.close(block(x), explicit)
    measured.gradients(block(x), explicit, of=(x, *block.parameters()))


def public_forward(block: NonLocalBlock, x: Tensor, mode: str, scaled: bool, subsample: bool) -> Tensor:
    """Output of mmcv's block run with the very tensors of ours, so that gradients reach them."""
    norm = {"type": "BN"}
    public = NonLocal2d(x.shape[1], use_scale=scaled, mode=mode, sub_sample=subsample, norm_cfg=norm)
    first = ".0" if subsample else ""
    names = {
        "theta": "theta.conv",
        "phi": f"phi{first}.conv",
        "g": f"g{first}.conv",
        "w_f": "concat_project.conv",
        "W_z": "conv_out.conv",
        "norm": "conv_out.bn",
    }
    tensors = {}
    for key, tensor in (*block.named_parameters(), *block.named_buffers()):
        module, _, kind = key.partition(".")
        tensors[f"{names[module]}.{kind}"] = tensor[..., None, None] if module == "w_f" else tensor
    if mode == "concatenation":  # its backward pass fails otherwise: the division after the ReLU is in place
        public.concat_project.register_forward_hook(lambda layer, inputs, output: output.clone())
    return torch.func.functional_call(public.eval(), tensors, (x,), strict=True)


@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_equals_mmcv(measured: Measured, mode: str, scaled: bool, subsample: bool) -> None:
    scale = 8**-0.5 if scaled and mode == "embedded_gaussian" else 1.0
    block, x = small(mode, size=(2, 16, 7, 9), scale=scale, subsample=subsample)
    public = public_forward(block, x, mode, scaled, subsample)
    measured.close(block(x), public)
    measured.gradients(block(x), public, of=(x, *block.parameters()))


def test_is_one_head_of_torch_attention_with_a_residual(measured: Measured) -> None:
    block, x = small("embedded_gaussian", size=(2, 16, 7, 9), reduction=1, scale=16**-0.5)
    head = nn.MultiheadAttention(16, num_heads=1, batch_first=True, dtype=torch.float64)
    weight, bias = out_projection(block)
    layers = (block.theta, block.phi, block.g)
    tensors = {
        "in_proj_weight": torch.cat([layer.weight[:, :, 0, 0] for layer in layers]),
        "in_proj_bias": torch.cat([layer.bias for layer in layers]),
        "out_proj.weight": weight[:, :, 0, 0],
        "out_proj.bias": bias,
    }
    rows = x.flatten(2).mT
    y, weights = torch.func.functional_call(head, tensors, (rows, rows, rows), strict=True)
    measured.close(block.attention(x), weights)
    measured.close(block(x), x + y.mT.view_as(x))
    measured.gradients(block(x), x + y.mT.view_as(x), of=(x, *block.parameters()))


@pytest.mark.parametrize("mode", MODES)
def test_starts_as_the_identity(measured: Measured, mode: str) -> None:
    x = torch.randn(2, 16, 7, 9)
    block = NonLocalBlock(16, mode)
    measured.close(block.train()(x), x, tolerance=0)
    measured.close(block.eval()(x), x, tolerance=0)


@pytest.mark.parametrize("mode", MODES)
def test_permuted_positions_permute_the_output(measured: Measured, mode: str) -> None:
    order = torch.randperm(63)
    for subsample in (False, True):
        block, x = small(mode, size=(2, 16, 7, 9), subsample=subsample)
        permuted = block(x.flatten(2)[..., order].view_as(x))
        expected = block(x).flatten(2)[..., order].view_as(x)
        if subsample:
            assert (permuted - expected).abs().max() > 1e-3
        else:
            measured.close(permuted, expected)


@pytest.mark.parametrize("mode", MODES)
def test_softmax_modes_alone_have_rows_that_sum_to_one(measured: Measured, mode: str) -> None:
    block, x = small(mode, subsample=True)
    weights = block.attention(x)
    distance = (weights.sum(dim=-1) - 1).abs().max().item()
    if mode in ("gaussian", "embedded_gaussian"):
        measured.value("max |Σ − 1|, Gaussians", distance, below=1e-12)
    else:
        measured.value("max |Σ − 1|, others", distance, above=0.5)
    assert (weights >= 0).all() == (mode != "dot_product")


def test_dot_product_weights_have_rank_p(measured: Measured) -> None:
    x = torch.randn(1, 16, 7, 9, dtype=torch.float64)
    ranks = {
        mode: torch.linalg.matrix_rank(randomise(NonLocalBlock(16, mode)).attention(x)[0]).item()
        for mode in ("dot_product", "gaussian")
    }
    measured.count(ranks["dot_product"], 16 // 2)
    assert ranks["gaussian"] == 7 * 9


def test_without_query_weights_all_positions_get_the_same(measured: Measured) -> None:
    block, x = small("embedded_gaussian", size=(2, 16, 7, 9))
    nn.init.zeros_(block.theta.weight)
    weights, added = block.attention(x), (block(x) - x).flatten(2)
    measured.close(weights, weights[:, :1].expand_as(weights))
    measured.close(added, added[..., :1].expand_as(added))
    assert weights.std(dim=-1).min() > 1e-3


def test_normalised_features_match_themselves_best(measured: Measured) -> None:
    block, x = small("gaussian", size=(2, 16, 7, 9))
    best = block.attention(nn.functional.normalize(x, dim=1)).argmax(dim=-1)
    measured.count(int((best == torch.arange(63)).sum()), 2 * 63)


@pytest.mark.parametrize("mode", MODES)
def test_memory_of_forward_is_linear_in_positions(measured: Measured, mode: str) -> None:
    block = NonLocalBlock(16, mode)
    measured.value("bytes(64²) / bytes(32²), forward", growth(block), above=3.9, below=4.1)
    with torch.no_grad():
        measured.value("attention", growth(block.attention), above=15, below=16.1)


def test_memory_of_backward_is_linear_in_positions(measured: Measured) -> None:
    block = NonLocalBlock(16)

    def step(x: Tensor) -> None:
        block(x).square().sum().backward()

    measured.value("bytes(64²) / bytes(32²)", growth(step), above=3.9, below=4.1)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("gaussian", 4_256), ("embedded_gaussian", 8_416), ("dot_product", 8_416), ("concatenation", 8_480)],
)
def test_parameters_of_the_four_modes(measured: Measured, mode: str, expected: int) -> None:
    measured.count(sum(p.numel() for p in NonLocalBlock(64, mode).parameters()), expected)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_compiles_and_runs_in_bfloat16(mode: str) -> None:
    block, x = NonLocalBlock(16, mode, subsample=True), torch.randn(2, 16, 7, 9)
    torch.nn.init.ones_(block.norm.weight)
    compiled = torch.compile(block.eval(), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), block(x))
    exported = torch.export.export(block, (x,)).module()
    torch.testing.assert_close(exported(x), block(x))
    half = block.bfloat16()(1000 * x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()
    assert block.to("meta")(half.to("meta")).shape == x.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels 0"),
        ((64, "gaussian", 0), "reduction 0"),
        ((65,), "channels 65 must be divisible by reduction 2"),
        ((64, "softmax"), "mode 'softmax' must be one of gaussian, embedded_gaussian"),
        ((64, "gaussian", 2, float("nan")), "scale nan must be finite"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NonLocalBlock(*arguments)


@pytest.mark.parametrize(("size", "keys"), [((2, 6, 1, 5), 2), ((2, 6, 4, 1), 2), ((2, 6, 1, 1), 1)], ids=str)
def test_subsampling_halves_no_side_of_one(size: tuple[int, int, int, int], keys: int) -> None:
    block, x = small("embedded_gaussian", size=size, subsample=True)
    line = block.phi(x).flatten(2)[..., : 2 * keys]
    expected = line.unflatten(-1, (keys, -1)).amax(dim=-1)
    torch.testing.assert_close(block.pool(block.phi(x)).flatten(2), expected)
    assert block.attention(x).shape == (2, size[2] * size[3], keys)
    assert block(x).shape == x.shape


@pytest.mark.parametrize("autocast", [False, True], ids=["cast", "autocast"])
@pytest.mark.parametrize("mode", MODES)
def test_maps_of_scale_30_in_float16(mode: str, autocast: bool) -> None:
    """Products are finite where they pass 65,504 on the way, and weights are those of float64."""
    torch.manual_seed(1)
    block, x = NonLocalBlock(256, mode).eval(), 30 * torch.randn(1, 256, 14, 14)
    nn.init.ones_(block.norm.weight)
    exact = copy.deepcopy(block).double()(x.double())
    with torch.autocast("cpu", torch.float16, enabled=autocast):
        half = block(x) if autocast else block.half()(x.half())
        weights = block.attention(x if autocast else x.half())
    assert ((half - exact).norm() / exact.norm()).item() < 0.02
    assert weights.isfinite().all()
    if mode == "gaussian":  # each position matches itself best, by far
        assert torch.equal(weights[0].argmax(dim=-1), torch.arange(196))


def test_every_layer_is_called() -> None:
    block, x = small("concatenation")
    called = []
    block.w_f.register_forward_hook(lambda layer, inputs, output: called.append(output.shape))
    block(x)
    assert called == [(2, 20, 1), (2, 20, 1)]


@pytest.mark.parametrize("mode", ["gaussian", "embedded_gaussian"])
def test_second_derivatives_under_the_math_kernel(mode: str) -> None:
    block, x = small(mode, size=(1, 4, 2, 3))
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(block, (x,))
    slope = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="not implemented"):
        slope.sum().backward()


def test_refuses_a_map_without_a_batch() -> None:
    with pytest.raises(ValueError, match=r"x \(16, 10, 12\) must be \(B, C, H, W\)"):
        NonLocalBlock(16).attention(torch.randn(16, 10, 12))
