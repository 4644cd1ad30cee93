"""Proofs of the Hamburger."""

import warnings
from collections.abc import Callable

import pytest
import torch
from sklearn.decomposition import NMF as PublicNMF
from torch import Tensor, nn

from snippets.attention_domain.spatial.hamburger import MODES, NMF, Hamburger, example
from tests.measure import Measured
from tests.memory import peak_bytes
from tests.resnet import parameters

EXCEPTIONS = {
    "test_gradcheck": {
        "hamburger": "all rounds but the last are constants in the backward pass, as in the paper",
        "hamburger:vq": "all rounds but the last are constants in the backward pass, as in the paper",
        "hamburger:cd": "all rounds but the last are constants in the backward pass, as in the paper",
    },
    "test_second_derivative": {
        "hamburger": "all rounds but the last are constants in the backward pass, as in the paper",
        "hamburger:vq": "all rounds but the last are constants in the backward pass, as in the paper",
        "hamburger:cd": "all rounds but the last are constants in the backward pass, as in the paper",
    },
}
"""Checks of the contract that it cannot pass, with the reason."""

EPS = 1e-6


def softmax_last(s: Tensor) -> Tensor:
    """exp / sum over the last axis (the R bases)."""
    e = torch.exp(s - s.max(dim=-1, keepdim=True).values.detach())
    return e / e.sum(dim=-1, keepdim=True)


def unit_columns(m: Tensor, eps: float = 1e-12) -> Tensor:
    """m_:r / max(|m_:r|_2, eps) for m (B, d, R): norm over d; makes an initial D from a random matrix."""
    return m / m.pow(2).sum(dim=1, keepdim=True).sqrt().clamp(min=eps)


def initial_coefficients(x: Tensor, d0: Tensor, inv_t: float = 1.0) -> Tensor:
    """C0 = softmax_r(tau X^T D0): x (B, d, N), d0 (B, d, R) -> (B, N, R)."""
    return softmax_last(inv_t * torch.einsum("bdn,bdr->bnr", x, d0))


def nmf_coefficients(x: Tensor, d: Tensor, c: Tensor) -> Tensor:
    """C <- C * (X^T D) / (C D^T D + 1e-6), elementwise."""
    numerator = torch.einsum("bdn,bdr->bnr", x, d)
    gram = torch.einsum("bdr,bds->brs", d, d)
    return c * numerator / (torch.einsum("bnr,brs->bns", c, gram) + EPS)


def nmf_bases(x: Tensor, d: Tensor, c: Tensor) -> Tensor:
    """D <- D * (X C) / (D C^T C + 1e-6), elementwise."""
    numerator = torch.einsum("bdn,bnr->bdr", x, c)
    gram = torch.einsum("bnr,bns->brs", c, c)
    return d * numerator / (torch.einsum("bdr,brs->bds", d, gram) + EPS)


def nmf(x: Tensor, d0: Tensor, steps: int = 6, one_step_grad: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """K multiplicative updates (C, then D), then one more C; returns X~ = D C^T (B, d, N), D, C (B, N, R).

    x (B, d, N) >= 0; d0 (B, d, R) >= 0 with unit columns already (unit_columns); tau = 1.
    one_step_grad=True (paper): D and the incoming C are constants, gradient through the last update only;
    False: back-propagation through all steps (mmseg / SegNeXt); the forward value is the same.
    """
    d, c = d0, initial_coefficients(x, d0)
    for _ in range(steps):
        c = nmf_coefficients(x, d, c)
        d = nmf_bases(x, d, c)
    if one_step_grad:
        d, c = d.detach(), c.detach()
    c = nmf_coefficients(x, d, c)
    return torch.einsum("bdr,bnr->bdn", d, c), d, c


def vq(
    x: Tensor, d0: Tensor, steps: int = 6, inv_t: float = 100.0, one_step_grad: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft k-means: C = softmax_r(tau cos(x_n, d_r)) / (1e-6 + sum over N), D = X C; returns X~, D, C.

    The last C is not L1-normalised; in it x is divided by (1e-6 + |x_n|) with |x_n| detached (a constant).
    """
    d = d0
    for _ in range(steps):
        c = softmax_last(inv_t * torch.einsum("bdn,bdr->bnr", unit_columns(x), unit_columns(d, EPS)))
        c = c / (EPS + c.sum(dim=1, keepdim=True))
        d = torch.einsum("bdn,bnr->bdr", x, c)
    x_norm = x.pow(2).sum(dim=1, keepdim=True).sqrt()
    if one_step_grad:
        d = d.detach()
    cosine = torch.einsum("bdn,bdr->bnr", x / (EPS + x_norm.detach()), unit_columns(d, EPS))
    c = softmax_last(inv_t * cosine)
    return torch.einsum("bdr,bnr->bdn", d, c), d, c


def cd(
    x: Tensor, d0: Tensor, steps: int = 6, inv_t: float = 100.0, beta: float = 0.1, one_step_grad: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Concept decomposition: VQ steps, unit-column D; last C = X^T D (D^T D + beta I)^-1; gives X~, D, C."""
    d = d0
    for _ in range(steps):
        c = softmax_last(inv_t * torch.einsum("bdn,bdr->bnr", unit_columns(x), d))
        c = c / (EPS + c.sum(dim=1, keepdim=True))
        d = unit_columns(torch.einsum("bdn,bnr->bdr", x, c), EPS)
    if one_step_grad:
        d = d.detach()
    gram = torch.einsum("bdr,bds->brs", d, d) + beta * torch.eye(d.shape[2], dtype=d.dtype, device=d.device)
    c = torch.einsum("bdn,bdr,brs->bns", x, d, torch.linalg.inv(gram))
    return torch.einsum("bdr,bnr->bdn", d, c), d, c


def hamburger_v1(
    x: Tensor,
    ham: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
    w_l: Tensor,
    b_l: Tensor,
    w_u: Tensor,
    bn_weight: Tensor,
    bn_bias: Tensor,
    bn_mean: Tensor,
    bn_var: Tensor,
    bn_eps: float = 1e-5,
    lower_relu: bool = True,
    final_relu: bool = True,
) -> Tensor:
    """y = ReLU(x + BN(W_u M(ReLU(W_l x + b_l)))): official code; final_relu=False is the paper's equation.

    x (B, C, H, W); w_l (d, C), b_l (d,); w_u (C, d) no bias; bn_* (C,); ham: lambda z: nmf(z, d0, steps),
    or vq, cd (for these two lower_relu=False).
    """
    z = torch.einsum("dc,bcn->bdn", w_l, x.flatten(2)) + b_l[None, :, None]
    if lower_relu:
        z = torch.relu(z)
    y = torch.einsum("cd,bdn->bcn", w_u, ham(z)[0])
    scale = bn_weight / torch.sqrt(bn_var + bn_eps)
    y = (y - bn_mean[None, :, None]) * scale[None, :, None] + bn_bias[None, :, None]
    y = x + y.reshape(x.shape)
    return torch.relu(y) if final_relu else y


NAIVE = {"nmf": nmf, "vq": vq, "cd": cd}


def small(ham: str, one_step: bool = True, steps: int = 4) -> tuple[Hamburger, Tensor]:
    torch.manual_seed(1)
    block = Hamburger(5, 7, rank=3, steps=steps, mode=ham, one_step=one_step)
    norm = block.upper[1]
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    block = block.double().eval()
    block.ham.bases.copy_(unit_columns(block.ham.bases[None])[0])  # of length one in float64, too
    return block, torch.randn(2, 5, 4, 6, dtype=torch.float64, requires_grad=True)


def non_negative(batch: int = 2) -> tuple[NMF, Tensor]:
    """A decomposition of rank 4 and matrices without negative entries: (batch, 9, 30)."""
    torch.manual_seed(2)
    ham = NMF(9, 4, steps=6, one_step=True).double()
    return ham, torch.rand(batch, 9, 30, dtype=torch.float64)


def input_gradient(block: Hamburger, x: Tensor) -> Tensor:
    """Gradient in x and the lower convolution of a random combination of what is added, as a vector."""
    y = block(x) - x
    cotangent = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))
    weights = [parameter for parameter in block.lower.parameters()]
    return torch.cat([g.flatten() for g in torch.autograd.grad(y, (x, *weights), cotangent)])


@pytest.mark.parametrize("one_step", [True, False])
@pytest.mark.parametrize("ham", MODES)
def test_equals_naive_reference(measured: Measured, ham: str, one_step: bool) -> None:
    block, x = small(ham, one_step)
    start = block.ham.bases.expand(2, -1, -1)
    lower, (upper, norm) = block.lower[0], block.upper

    def decompose(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return NAIVE[ham](z, start, steps=4, one_step_grad=one_step)

    y = hamburger_v1(
        x,
        decompose,
        lower.weight[..., 0, 0],
        lower.bias,
        upper.weight[..., 0, 0],
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        lower_relu=ham == "nmf",
        final_relu=False,
    )
    z = block.columns(x)
    for actual, expected in zip(block.ham(z), decompose(z)[1:], strict=True):
        measured.close(actual, expected)
    measured.close(block.attention(x), decompose(z)[2])
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


def test_equals_scikit_learn(measured: Measured) -> None:
    ham, x = non_negative(batch=1)
    start = (x.mT @ ham.bases).softmax(-1)
    public = PublicNMF(4, init="custom", solver="mu", max_iter=6, tol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        codes = public.fit_transform(
            x[0].mT.numpy(), W=start[0].numpy().copy(), H=ham.bases.mT.numpy().copy()
        )
    bases, ours = ham.bases[None], start
    for _ in range(6):
        bases, ours = ham.improve(x, bases, ours)
    measured.close(ours[0], torch.from_numpy(codes), tolerance=1e-5)
    measured.close(bases[0].mT, torch.from_numpy(public.components_), tolerance=1e-5)


def test_error_never_rises(measured: Measured) -> None:
    ham, x = non_negative(batch=20)
    errors = []
    for ham.steps in range(31):
        bases, codes = ham(x)
        errors.append((x - bases @ codes.mT).square().sum((1, 2)))
    steps = torch.stack(errors).diff(dim=0)
    measured.value("largest rise", steps.max().item(), at_most=0)
    measured.value("error left", (errors[-1] / errors[0]).mean().item(), below=0.9)


def test_exact_factors_stay(measured: Measured) -> None:
    ham, _ = non_negative()
    codes = torch.rand(1, 30, 4, dtype=torch.float64)
    bases, improved = ham.improve(ham.bases @ codes.mT, ham.bases[None], codes)
    measured.close(improved, codes, tolerance=1e-5)
    measured.close(bases, ham.bases[None], tolerance=1e-5)


def test_nmf_is_non_negative_and_of_rank_r(measured: Measured) -> None:
    ham, x = non_negative()
    bases, codes = ham(x)
    measured.value("smallest entry", min(bases.min().item(), codes.min().item()), at_least=0)
    for product in bases @ codes.mT:
        measured.count(int(torch.linalg.matrix_rank(product)), 4)


def test_vq_codes_are_votes(measured: Measured) -> None:
    block, x = small("vq")
    measured.close(block.attention(x).sum(-1), torch.ones(2, 24, dtype=torch.float64))


def test_cd_codes_are_least_squares(measured: Measured) -> None:
    """The derivative of |X - D C^T|^2 + 0.1 |C|^2 in C is zero, and the bases have length one."""
    block, x = small("cd")
    z = block.columns(x)
    bases, codes = block.ham(z)
    measured.close((z - bases @ codes.mT).mT @ bases, 0.1 * codes)
    measured.close(bases.norm(dim=1), torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("ham", MODES)
def test_permuted_positions_permute_the_output(measured: Measured, ham: str) -> None:
    block, x = small(ham)
    order = torch.randperm(24)
    shuffled = x.flatten(2)[:, :, order].view_as(x)
    measured.close(block(shuffled), block(x).flatten(2)[:, :, order].view_as(x))


@pytest.mark.parametrize("ham", MODES)
def test_same_output_other_gradient(measured: Measured, ham: str) -> None:
    (one, x), (full, _) = small(ham, True), small(ham, False)
    measured.close(one(x), full(x), tolerance=0)
    short, whole = input_gradient(one, x), input_gradient(full, x)
    measured.value("‖Δ∇‖ / ‖∇‖", ((short - whole).norm() / whole.norm()).item(), above=0.01)


@pytest.mark.parametrize("ham", ["nmf", "cd"])
def test_full_gradient_is_the_derivative(measured: Measured, ham: str) -> None:
    """Along a random direction, against a difference quotient; the one-step gradient is not."""
    slopes = []
    for one_step in (False, True):
        block, x = small(ham, one_step)
        direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            ends = [block(x + step * direction).square().sum() for step in (1e-5, -1e-5)]
        slope = (torch.autograd.grad(block(x).square().sum(), x)[0] * direction).sum()
        slopes.append((slope / ((ends[0] - ends[1]) / 2e-5) - 1).abs())
    measured.close(slopes[0], torch.zeros((), dtype=torch.float64), tolerance=1e-5)
    assert slopes[1] > 1e-3


@pytest.mark.parametrize(("one_step", "low", "high"), [(True, 0.99, 1.01), (False, 2.5, 4.5)])
def test_memory_by_rounds(measured: Measured, one_step: bool, low: float, high: float) -> None:
    """Forward and backward pass with 24 rounds against 6."""
    peaks = []
    for steps in (6, 24):
        block = Hamburger(16, 16, rank=8, steps=steps, one_step=one_step)
        peaks.append(peak_bytes(lambda x, block=block: block(x).sum().backward(), torch.randn(1, 16, 32, 32)))
    name = "× memory, one step" if one_step else "× memory, full"
    measured.value(name, peaks[1] / peaks[0], above=low, below=high)


def test_memory_is_linear_in_positions(measured: Measured) -> None:
    block, _ = example()
    peaks = [peak_bytes(block, torch.randn(1, 32, side, side)) for side in (32, 64)]
    measured.value("× memory", peaks[1] / peaks[0], above=3.8, below=4.2)


def test_output_depends_on_the_drawing(measured: Measured) -> None:
    block, (x,) = example()
    assert torch.equal(block(x), block(x))
    first = block(x) - x
    block.ham.bases.copy_(nn.functional.normalize(torch.rand(64, 8), dim=0))
    measured.value("‖Δ‖ / ‖f - x‖", ((block(x) - x - first).norm() / first.norm()).item(), above=0.05)


@pytest.mark.parametrize(("channels", "expected"), [(64, 8_384), (256, 131_840), (512, 525_824)])
def test_parameters(measured: Measured, channels: int, expected: int) -> None:
    measured.count(parameters(Hamburger(channels, channels)), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8), "channels 0"),
        ((8, 0), "width 0"),
        ((8, 8, 0), "rank 0"),
        ((8, 8, 4, 0), "steps 0"),
        ((8, 8, 4, 6, "pca"), "mode 'pca' must be one of nmf, vq, cd"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hamburger(*arguments)


@pytest.mark.parametrize("steps", [2.0, float("nan")])
def test_refuses_rounds_that_are_no_integer(steps: float) -> None:
    with pytest.raises(TypeError, match="float"):
        Hamburger(8, 8, 4, steps)


@pytest.mark.parametrize("ham", MODES)
def test_forward_mode_treats_the_rounds_as_constants_as_well(ham: str) -> None:
    """no_grad would stop gradients only, detach stops tangents too."""
    block, x = small(ham)
    x = x.detach()
    torch.manual_seed(5)
    tangent, cotangent = torch.randn(2, *x.shape, dtype=x.dtype)
    _, moved = torch.func.jvp(block, (x,), (tangent,))
    (gradient,) = torch.func.vjp(block, x)[1](cotangent)
    torch.testing.assert_close((moved * cotangent).sum(), (gradient * tangent).sum())


@pytest.mark.parametrize("ham", MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_positions_and_features_of_zeros_stay_finite_in_half_precision(dtype: torch.dtype, ham: str) -> None:
    """A small constant that the type rounds to zero would leave 0 / 0."""
    torch.manual_seed(6)
    decomposition = MODES[ham](16, 4, steps=6, one_step=True).to(dtype)
    x = torch.rand(2, 16, 56 * 56).to(dtype)
    x[:, 3], x[:, :, 7], x[1] = 0, 0, 0
    for factor in decomposition(x):
        assert factor.isfinite().all()


def test_reset_draws_other_patterns_of_length_one() -> None:
    block, (x,) = example()
    first = block(x)
    block.ham.reset_parameters()
    assert not torch.allclose(block(x), first)
    torch.testing.assert_close(block.ham.bases.norm(dim=0), torch.ones(8))


def test_refuses_a_map_without_a_batch() -> None:
    block, x = small("nmf")
    with pytest.raises(ValueError, match=r"x \(5, 4, 6\) must be \(B, C, H, W\)"):
        block.attention(x[0])
