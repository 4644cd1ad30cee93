"""Proofs of the spatial self-attention of SAGAN."""

import copy
from typing import Any

import pytest
import torch
from mmcv.cnn import NonLocal2d
from pytorchcv.models.danet import PosAttBlock
from torch import Tensor, nn

from snippets.attention_domain.spatial.self_attention_2d import SelfAttention2d
from tests.measure import Measured
from tests.memory import peak_bytes
from tests.resnet import parameters

FIRST: dict[str, Any] = {"value_reduction": 1}  # first arXiv version, DANet
FINAL: dict[str, Any] = {}  # final paper
RELEASED: dict[str, Any] = {"value_reduction": 2, "subsample": True, "bias": False}  # released code, BigGAN
DEFINITIONS = pytest.mark.parametrize("options", [FIRST, FINAL, RELEASED], ids=["first", "final", "released"])


def self_attention_weights(
    x: Tensor, w_f: Tensor, b_f: Tensor | None, w_g: Tensor, b_g: Tensor | None
) -> Tensor:
    """g(x): beta[b, i, j] = exp(q_i . k_j) / sum_j' exp(q_i . k_j'), i = output, j = key; no scaling.

    x (B, C, H, W); w_f (C/8, C), b_f (C/8,) make the query q; w_g (C/8, C), b_g (C/8,) the key k.
    Returns (B, N, N). (The paper writes beta_{j,i} with j the output; here the row is always the output.)
    """
    xs = x.flatten(2)  # (B, C, N), position n = row * W + column
    q = torch.einsum("pc,bcn->bpn", w_f, xs)
    k = torch.einsum("pc,bcn->bpn", w_g, xs)
    if b_f is not None:
        q = q + b_f[None, :, None]
    if b_g is not None:
        k = k + b_g[None, :, None]
    batches = []
    for b in range(x.shape[0]):
        rows = []
        for i in range(xs.shape[2]):
            s = torch.einsum("p,pj->j", q[b, :, i], k[b])
            e = torch.exp(s - s.max().detach())
            rows.append(e / e.sum())
        batches.append(torch.stack(rows))
    return torch.stack(batches)


def self_attention_2d(
    x: Tensor, w_f: Tensor, b_f: Tensor, w_g: Tensor, b_g: Tensor, w_h: Tensor, b_h: Tensor, gamma: Tensor
) -> Tensor:
    """y_i = gamma * sum_j beta_ij v_j + x_i (paper v1 / heykeetae / DANet form).

    value w_h (C, C), b_h (C,); scalar gamma; the others as in self_attention_weights.
    """
    beta = self_attention_weights(x, w_f, b_f, w_g, b_g)
    v = torch.einsum("dc,bcn->bdn", w_h, x.flatten(2)) + b_h[None, :, None]
    o = torch.einsum("bij,bdj->bdi", beta, v)
    return gamma * o.reshape(x.shape) + x


def self_attention_2d_final(
    x: Tensor,
    w_f: Tensor,
    w_g: Tensor,
    w_h: Tensor,
    w_v: Tensor,
    gamma: Tensor,
    b_f: Tensor | None = None,
    b_g: Tensor | None = None,
    b_h: Tensor | None = None,
    b_v: Tensor | None = None,
) -> Tensor:
    """y_i = gamma * W_v(sum_j beta_ij h_j) + x_i (final-paper form).

    w_h (C/8, C), w_v (C, C/8), scalar gamma; optional biases b_f, b_g, b_h (C/8,), b_v (C,): default none.
    """
    beta = self_attention_weights(x, w_f, b_f, w_g, b_g)
    h = torch.einsum("pc,bcn->bpn", w_h, x.flatten(2))
    if b_h is not None:
        h = h + b_h[None, :, None]
    o = torch.einsum("bij,bpj->bpi", beta, h)
    o = torch.einsum("cp,bpi->bci", w_v, o)
    if b_v is not None:
        o = o + b_v[None, :, None]
    return gamma * o.reshape(x.shape) + x


def small(size: tuple[int, int, int, int] = (2, 16, 7, 9), **options: Any) -> tuple[SelfAttention2d, Tensor]:
    torch.manual_seed(1)
    block = SelfAttention2d(size[1], **options).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block, torch.randn(size, dtype=torch.float64, requires_grad=True)


def matrix(layer: nn.Module) -> Tensor:
    return layer.weight[:, :, 0, 0]


def moved(x: Tensor, order: Tensor) -> Tensor:
    return x.flatten(2)[..., order].view_as(x)


@pytest.mark.parametrize("options", [FIRST, FINAL, {"bias": False}], ids=["first", "final", "no bias"])
def test_equals_naive_reference(measured: Measured, options: dict[str, Any]) -> None:
    block, x = small(size=(2, 16, 4, 5), **options)
    query, key, value, out = block.query, block.key, block.value, block.out
    weights = self_attention_weights(x, matrix(query), query.bias, matrix(key), key.bias)
    if options == FIRST:
        pairs = [tensor for layer in (query, key, value) for tensor in (matrix(layer), layer.bias)]
        y = self_attention_2d(x, *pairs, block.gamma)
    else:
        matrices = [matrix(layer) for layer in (query, key, value, out)]
        biases = [layer.bias for layer in (query, key, value, out)]
        y = self_attention_2d_final(x, *matrices, block.gamma, *biases)
    measured.close(block.attention(x), weights)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


def test_first_version_equals_danet_in_pytorchcv(measured: Measured) -> None:
    block, x = small(**FIRST)
    tensors = {
        f"{name}_conv.{kind}": getattr(getattr(block, name), kind)
        for name in ("query", "key", "value")
        for kind in ("weight", "bias")
    }
    tensors["scale.alpha"] = block.gamma.view(1)
    public = torch.func.functional_call(PosAttBlock(16), tensors, (x,), strict=True)
    measured.close(block(x), public)
    measured.gradients(block(x), public, of=(x, *block.parameters()))


@pytest.mark.parametrize("subsample", [False, True])
def test_final_paper_equals_an_unscaled_non_local_block_in_mmcv(measured: Measured, subsample: bool) -> None:
    block, x = small(subsample=subsample)
    public = NonLocal2d(16, reduction=8, use_scale=False, sub_sample=subsample, zeros_init=False)
    first = ".0" if subsample else ""
    layers = {
        "theta.conv": block.query,
        f"phi{first}.conv": block.key,
        f"g{first}.conv": block.value,
        "conv_out.conv": block.out,
    }
    tensors = {
        f"{name}.{kind}": getattr(layer, kind) * (block.gamma if name == "conv_out.conv" else 1)
        for name, layer in layers.items()
        for kind in ("weight", "bias")
    }
    expected = torch.func.functional_call(public, tensors, (x,), strict=True)
    measured.close(block(x), expected)
    measured.gradients(block(x), expected, of=(x, *block.parameters()))


@DEFINITIONS
def test_forward_equals_explicit_weights(measured: Measured, options: dict[str, Any]) -> None:
    block, x = small(**options)
    values = block.pool(block.value(x)).flatten(2)
    mixed = torch.einsum("bij,bpj->bpi", block.attention(x), values).view(2, -1, 7, 9)
    explicit = x + block.gamma * block.out(mixed)
    measured.close(block(x), explicit)
    measured.gradients(block(x), explicit, of=(x, *block.parameters()))


@DEFINITIONS
def test_explicit_form_has_second_derivatives(measured: Measured, options: dict[str, Any]) -> None:
    """The slope of a gradient penalty in the parameters, against central differences in one direction."""
    fused, x = small(size=(2, 16, 4, 5), **options)
    block, _ = small(size=(2, 16, 4, 5), **options, fused=False)
    measured.close(block(x), fused(x))
    measured.gradients(block(x), fused(x), of=(x,))

    def penalty() -> Tensor:
        (slope,) = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)
        return slope.square().mean()

    learnt = list(block.parameters())
    slopes = torch.autograd.grad(penalty(), learnt, materialize_grads=True)
    direction = [torch.randn_like(parameter) for parameter in learnt]
    ends = []
    for step in (1e-6, -2e-6):
        for parameter, along in zip(learnt, direction, strict=True):
            parameter.data += step * along
        ends.append(penalty())
    exact = sum((slope * along).sum() for slope, along in zip(slopes, direction, strict=True))
    error = ((ends[0] - ends[1]) / 2e-6 / exact - 1).abs().item()
    measured.value("error of the slope, relative", error, below=1e-6)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(fused(x).square().sum(), x, create_graph=True)[0].sum().backward()


def test_final_paper_is_the_first_version_with_values_of_rank_c_over_8(measured: Measured) -> None:
    final, x = small(bias=False)
    first, _ = small(bias=False, **FIRST)
    state = {**final.state_dict(), "value.weight": (matrix(final.out) @ matrix(final.value))[..., None, None]}
    del state["out.weight"]
    first.load_state_dict(state)
    measured.close(final(x), first(x))
    measured.count(int(torch.linalg.matrix_rank(matrix(first.value))), 16 // 8)


@DEFINITIONS
def test_starts_as_the_identity(measured: Measured, options: dict[str, Any]) -> None:
    x = torch.randn(2, 16, 7, 9)
    measured.close(SelfAttention2d(16, **options)(x), x, tolerance=0)


@DEFINITIONS
def test_gamma_alone_learns_at_first(measured: Measured, options: dict[str, Any]) -> None:
    block = SelfAttention2d(16, **options)
    block(torch.randn(2, 16, 7, 9)).square().sum().backward()
    learning = [name for name, parameter in block.named_parameters() if parameter.grad.any()]
    assert learning == ["gamma"]
    measured.count(len(learning), 1)


@DEFINITIONS
def test_weights_of_a_query_sum_to_one(measured: Measured, options: dict[str, Any]) -> None:
    block, x = small(**options)
    weights = block.attention(x)
    assert (weights > 0).all()
    measured.close(weights.sum(dim=-1), torch.ones_like(x[:, 0].flatten(1)))


def test_permuted_positions_permute_the_output(measured: Measured) -> None:
    order = torch.randperm(63)
    for options in (FIRST, FINAL):
        block, x = small(**options)
        measured.close(block(moved(x, order)), moved(block(x), order))
    block, x = small(**RELEASED)
    assert (block(moved(x, order)) - moved(block(x), order)).abs().max() > 1e-3


@DEFINITIONS
def test_constant_map_gets_its_own_value(measured: Measured, options: dict[str, Any]) -> None:
    block, x = small(**options)
    flat = x[..., :1, :1].expand_as(x)
    weights = block.attention(flat)
    measured.close(weights, torch.full_like(weights, 1 / weights.shape[-1]))
    measured.close(block(flat), flat + block.gamma * block.out(block.value(flat)))


def test_one_vector_added_to_all_keys_changes_nothing(measured: Measured) -> None:
    block, x = small()
    before = block.attention(x)
    block.key.bias.data += 3.0
    measured.close(block.attention(x), before)
    block.query.bias.data += 3.0
    assert (block.attention(x) - before).abs().max() > 1e-3


@DEFINITIONS
def test_memory_is_linear_in_positions(measured: Measured, options: dict[str, Any]) -> None:
    block = SelfAttention2d(16, **options)

    def step(x: Tensor) -> None:
        block(x).square().sum().backward()

    def growth(run: Any) -> float:
        return peak_bytes(run, torch.randn(1, 16, 64, 64)) / peak_bytes(run, torch.randn(1, 16, 32, 32))

    measured.value("bytes(64²) / bytes(32²), forward", growth(block), above=3.9, below=4.1)
    measured.value("with backward", growth(step), above=3.9, below=4.1)
    with torch.no_grad():
        measured.value("attention", growth(block.attention), above=15, below=16.1)


@pytest.mark.parametrize(
    ("channels", "options", "expected"),
    [(64, FIRST, 5_201), (512, FIRST, 328_321), (64, FINAL, 2_137), (64, RELEASED, 5_121)],
)
def test_parameters_of_the_three_definitions(
    measured: Measured, channels: int, options: dict[str, Any], expected: int
) -> None:
    measured.count(parameters(SelfAttention2d(channels, **options)), expected)


@DEFINITIONS
def test_every_definition_compiles_and_runs_in_bfloat16(options: dict[str, Any]) -> None:
    block, x = SelfAttention2d(16, **options).eval(), torch.randn(2, 16, 7, 9)
    nn.init.ones_(block.gamma)
    torch.testing.assert_close(torch.compile(block, backend="eager", fullgraph=True)(x), block(x))
    torch.testing.assert_close(torch.export.export(block, (x,)).module()(x), block(x))
    half = block.bfloat16()(1000 * x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()
    assert block.to("meta")(half.to("meta")).shape == x.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels 0"),
        ((64, 0), "reduction 0 must be at least 1"),
        ((64, 8, 0), "value_reduction 0 must be at least 1"),
        ((65,), "channels 65 must be divisible by reduction 8"),
        ((64, 4), "value_reduction 8 must be at most reduction 4"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelfAttention2d(*arguments)


@pytest.mark.parametrize("autocast", [False, True], ids=["cast", "autocast"])
def test_scores_beyond_65504_in_float16(autocast: bool) -> None:
    torch.manual_seed(1)
    block, x = SelfAttention2d(64), 30 * torch.randn(1, 64, 5, 7).relu()
    nn.init.ones_(block.query.weight)
    block.key.load_state_dict(block.query.state_dict())
    assert (block.query(x).flatten(2).mT @ block.key(x).flatten(2)).max() > 65_504
    exact = copy.deepcopy(block).double().attention(x.double())
    with torch.autocast("cpu", torch.float16, enabled=autocast):
        weights = block.attention(x) if autocast else block.half().attention(x.half())
    assert torch.equal(weights.argmax(dim=-1), exact.argmax(dim=-1))
    torch.testing.assert_close(weights.sum(dim=-1).float(), torch.ones(1, 35), atol=1e-2, rtol=0)


@pytest.mark.parametrize("size", [(2, 16, 1, 5), (2, 16, 1, 1)], ids=str)
def test_subsampling_halves_no_side_of_one(size: tuple[int, int, int, int]) -> None:
    block, x = small(size=size, **RELEASED)
    assert block(x).shape == x.shape
    assert block.attention(x).shape[-1] == max(size[3] // 2, 1)


def test_refuses_a_map_without_a_batch() -> None:
    with pytest.raises(ValueError, match=r"x \(16, 10, 12\) must be \(B, C, H, W\)"):
        SelfAttention2d(16).attention(torch.randn(16, 10, 12))
