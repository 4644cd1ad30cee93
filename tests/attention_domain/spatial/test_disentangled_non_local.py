"""Proofs of the disentangled non-local block."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from snippets.attention_domain.spatial.disentangled_non_local import DisentangledNonLocal
from snippets.attention_domain.spatial.non_local import NonLocalBlock
from tests.measure import Measured
from tests.memory import peak_bytes
from tests.resnet import parameters


def explicit_softmax(s: Tensor) -> Tensor:
    """exp(s_j) / sum_j' exp(s_j') over the last axis (the shift by the maximum cancels)."""
    e = torch.exp(s - s.max(dim=-1, keepdim=True).values.detach())
    return e / e.sum(dim=-1, keepdim=True)


def disentangled_weights(
    x: Tensor,
    w_q: Tensor,
    b_q: Tensor,
    w_k: Tensor,
    b_k: Tensor,
    w_m: Tensor,
    b_m: Tensor,
    use_scale: bool = True,
    temperature: float = 0.05,
) -> tuple[Tensor, Tensor, Tensor]:
    """pairwise = softmax_j((q_i - mu_q).(k_j - mu_k) / (sqrt(P) t)), unary = softmax_j(m_j), omega = sum.

    x (B, C, H, W); w_q, w_k (P, C), b_q, b_k (P,); w_m (C,), b_m () or (1,): the unary map.
    use_scale divides by sqrt(P), then temperature divides again (code: True, 0.05; the paper: False, 1.0).
    Whitening = subtract the mean over positions per channel.
    Returns pairwise (B, N, N), unary (B, N), omega (B, N, N).
    """
    xs = x.flatten(2)
    q = torch.einsum("pc,bcn->bpn", w_q, xs) + b_q[None, :, None]
    k = torch.einsum("pc,bcn->bpn", w_k, xs) + b_k[None, :, None]
    m = torch.einsum("c,bcn->bn", w_m, xs) + b_m
    n = xs.shape[2]
    q = q - q.sum(dim=2, keepdim=True) / n
    k = k - k.sum(dim=2, keepdim=True) / n
    logits = torch.einsum("bpi,bpj->bij", q, k)
    if use_scale:
        logits = logits / w_q.shape[0] ** 0.5
    pairwise = explicit_softmax(logits / temperature)
    unary = explicit_softmax(m)
    return pairwise, unary, pairwise + unary[:, None, :]


def disentangled_non_local(
    x: Tensor,
    w_q: Tensor,
    b_q: Tensor,
    w_k: Tensor,
    b_k: Tensor,
    w_m: Tensor,
    b_m: Tensor,
    w_v: Tensor,
    gamma: Tensor,
    use_scale: bool = True,
    temperature: float = 0.05,
) -> Tensor:
    """y_i = x_i + gamma * sum_j pairwise_ij v_j + sum_j unary_j v_j (detection code).

    w_v (C, C) without bias, scalar gamma (on the pairwise term only); the others as in disentangled_weights.
    """
    pairwise, unary, _ = disentangled_weights(x, w_q, b_q, w_k, b_k, w_m, b_m, use_scale, temperature)
    v = torch.einsum("dc,bcn->bdn", w_v, x.flatten(2))
    pair_term = torch.einsum("bij,bdj->bdi", pairwise, v)
    unary_term = torch.einsum("bj,bdj->bd", unary, v)
    return x + gamma * pair_term.reshape(x.shape) + unary_term[:, :, None, None]


def small(reduction: int = 2, scale: float = 1.0) -> tuple[DisentangledNonLocal, Tensor]:
    torch.manual_seed(1)
    block = DisentangledNonLocal(12, reduction, scale).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 12, 5, 6, dtype=torch.float64) + torch.randn(12, 1, 1).double()
    return block, x.requires_grad_()


def matrix(layer: nn.Module) -> Tensor:
    return layer.weight[:, :, 0, 0]


def non_local(block: DisentangledNonLocal) -> NonLocalBlock:
    """The embedded Gaussian with the same queries and keys."""
    plain = NonLocalBlock(12, scale=block.scale).double().eval()
    for ours, theirs in ((block.theta, plain.theta), (block.phi, plain.phi)):
        theirs.weight.data = ours.weight.data
        nn.init.zeros_(theirs.bias)
    return plain


def moved(x: Tensor, order: Tensor) -> Tensor:
    return x.flatten(2)[..., order].view_as(x)


@pytest.mark.parametrize("released", [False, True], ids=["paper", "released"])
@pytest.mark.parametrize("reduction", [1, 2])
def test_equals_naive_reference(measured: Measured, reduction: int, released: bool) -> None:
    width = 12 // reduction
    block, x = small(reduction, width**-0.5 / 0.05 if released else 1.0)
    b_q, b_k, b_m = (torch.randn(size).double() for size in (width, width, 1))  # of no effect
    layers = (matrix(block.theta), b_q, matrix(block.phi), b_k, matrix(block.m)[0], b_m)
    options = {"use_scale": released, "temperature": 0.05 if released else 1.0}
    pairwise, unary, omega = disentangled_weights(x, *layers, **options)
    measured.close(block.pairwise(x), pairwise)
    measured.close(block.unary(x)[:, 0], unary)
    measured.close(block.attention(x), omega)

    W_z, ones = matrix(block.W_z), torch.ones((), dtype=torch.float64)
    y = disentangled_non_local(x, *layers, W_z @ matrix(block.g), ones, **options)
    y = y + (2 * W_z @ block.g.bias + block.W_z.bias)[:, None, None]  # twice: the weights sum to two
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


def test_forward_equals_explicit_weights(measured: Measured) -> None:
    block, x = small(scale=0.7)
    mixed = torch.einsum("bij,bpj->bpi", block.attention(x), block.g(x).flatten(2)).view(2, 6, 5, 6)
    explicit = x + block.W_z(mixed)
    measured.close(block(x), explicit)
    measured.gradients(block(x), explicit, of=(x, *block.parameters()))


def test_weights_of_a_query_sum_to_two(measured: Measured) -> None:
    block, x = small()
    measured.close(block.attention(x).sum(dim=-1), x.new_full((2, 30), 2.0))
    measured.close(block.pairwise(x).sum(dim=-1), x.new_ones(2, 30))
    measured.close(block.unary(x).sum(dim=-1), x.new_ones(2, 1))


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_non_local_softmax_is_the_product_of_both_terms(measured: Measured, scale: float) -> None:
    block, x = small(scale=scale)
    means = block.theta(x)[:1].mean(dim=(2, 3))  # of the first sample: the unary score is a layer
    block.m.weight.data = scale * torch.einsum("bp,pcij->bcij", means, block.phi.weight)
    product = block.pairwise(x[:1]) * block.unary(x[:1])
    whole = non_local(block).attention(x[:1])
    measured.close(product / product.sum(dim=-1, keepdim=True), whole)
    assert (block.attention(x[:1]) / 2 - whole).abs().max() > 0.1


def test_common_shift_changes_the_non_local_weights_alone(measured: Measured) -> None:
    block, x = small()
    shifted = x + torch.randn(12, 1, 1).double()
    measured.close(block.attention(shifted), block.attention(x))
    plain = non_local(block)
    assert (plain.attention(shifted) - plain.attention(x)).abs().max() > 0.1


def test_with_centred_queries_nothing_unary_hides_in_non_local(measured: Measured) -> None:
    block, x = small()
    centred = x - x.mean(dim=(2, 3), keepdim=True)
    measured.close(non_local(block).attention(centred), block.pairwise(centred))


def test_low_unary_weight_silences_a_key_in_the_product_alone(measured: Measured) -> None:
    block, x = small()
    key = block.pairwise(x)[0].amax(dim=0).argmax()  # the key that some query likes most
    block.m.weight.data = -5 * x[:1].flatten(2)[..., key, None, None]
    pairwise, unary = block.pairwise(x)[0], block.unary(x)[0]
    product = pairwise * unary
    most = (product / product.sum(dim=-1, keepdim=True))[:, key].max().item()
    measured.value("largest weight, product", most, below=1e-9)
    kept = block.attention(x)[0, :, key]
    measured.value("sum", kept.max().item(), above=0.5)
    measured.close(kept, pairwise[:, key])


def test_unary_term_adds_the_same_everywhere(measured: Measured) -> None:
    block, x = small()
    values = block.g(x).flatten(2)
    pairwise = torch.einsum("bij,bpj->bpi", block.pairwise(x), values).view(2, 6, 5, 6)
    rest = block(x) - x - block.W_z(pairwise)
    measured.close(rest, rest[..., :1, :1].expand_as(rest))
    assert rest.abs().max() > 0.1


def test_starts_as_the_identity(measured: Measured) -> None:
    x = torch.randn(2, 16, 7, 9)
    measured.close(DisentangledNonLocal(16)(x), x, tolerance=0)


def test_permuted_positions_permute_the_output(measured: Measured) -> None:
    block, x = small()
    order = torch.randperm(30)
    measured.close(block(moved(x, order)), moved(block(x), order))


def test_memory_is_linear_in_positions(measured: Measured) -> None:
    block = DisentangledNonLocal(16)
    large, little = torch.randn(1, 16, 48, 48), torch.randn(1, 16, 24, 24)

    def step(x: Tensor) -> None:
        block(x).square().sum().backward()

    forward, backward = (peak_bytes(run, large) / peak_bytes(run, little) for run in (block, step))
    measured.value("bytes(48²) / bytes(24²), forward", forward, above=3.9, below=4.1)
    measured.value("with backward", backward, above=3.9, below=4.1)
    with torch.no_grad():
        explicit = peak_bytes(block.attention, large) / peak_bytes(block.attention, little)
    measured.value("attention", explicit, above=15, below=16.1)


def test_parameters_with_and_without_biases(measured: Measured) -> None:
    counted = parameters(DisentangledNonLocal(64))
    measured.count(counted, 8_352)
    measured.count(counted + 2 * 32 + 1, 8_417)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels 0"),
        ((64, 0), "reduction 0"),
        ((65,), "channels 65 must be divisible by reduction 2"),
        ((64, 2, float("nan")), "scale nan must be finite"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DisentangledNonLocal(*arguments)


@pytest.mark.parametrize("autocast", [False, True], ids=["cast", "autocast"])
def test_scores_beyond_65504_in_float16(autocast: bool) -> None:
    torch.manual_seed(1)
    block, x = DisentangledNonLocal(64), 100 * torch.randn(1, 64, 5, 7)
    nn.init.eye_(matrix(block.theta))
    block.phi.load_state_dict(block.theta.state_dict())
    with torch.autocast("cpu", torch.float16, enabled=autocast):
        weights = block.pairwise(x) if autocast else block.half().pairwise(x.half())
    assert torch.equal(weights[0].argmax(dim=-1), torch.arange(35))  # each position matches itself best
    torch.testing.assert_close(weights.sum(dim=-1).float(), torch.ones(1, 35), atol=1e-2, rtol=0)


def test_second_derivatives_under_the_math_kernel() -> None:
    block, x = DisentangledNonLocal(4).double(), torch.randn(1, 4, 2, 3, dtype=torch.float64)
    nn.init.normal_(block.W_z.weight)
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(block, (x.requires_grad_(),))


def test_refuses_a_map_without_a_batch() -> None:
    with pytest.raises(ValueError, match=r"x \(16, 10, 12\) must be \(B, C, H, W\)"):
        DisentangledNonLocal(16).attention(torch.randn(16, 10, 12))
