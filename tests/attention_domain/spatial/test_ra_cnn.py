"""Proofs of the attention proposal network of RA-CNN."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.attention_domain.spatial.ra_cnn import (
    AttentionProposal,
    boxcar,
    example,
    ranking_loss,
    zoom,
)
from tests.measure import Measured

EXCEPTIONS = {
    "test_forward_mode_equals_backward_mode": {
        "ra_cnn": "torch 2.13 has no forward mode for grid_sample",
        "ra_cnn:features_as_maps": "torch 2.13 has no forward mode for grid_sample",
    },
}
"""Checks of the contract that it cannot pass, with the reason."""

SQUARE = torch.tensor([[30.3, 25.7, 10.4]], dtype=torch.float64)  # on 64 x 64 pixels


def logistic(u: Tensor, k: float) -> Tensor:
    """h(u) = 1 / (1 + exp(-k u)) (torch.sigmoid keeps it finite for large k)."""
    return torch.sigmoid(k * u)


def attention_proposal(
    features: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, side: Tensor
) -> Tensor:
    """APN head: (t_x, t_y, t_l) = side * sigmoid(W2 tanh(W1 f + b1) + b2); f flattened (B, F), w1 (D, F), w2
    (3, D)."""
    hidden = torch.tanh(torch.einsum("df,bf->bd", w1, features.flatten(1)) + b1)
    return side * logistic(torch.einsum("td,bd->bt", w2, hidden) + b2, 1.0)


def boxcar_mask(t: Tensor, height: int, width: int, k: float) -> Tensor:
    """M(x, y) = [h(x-(t_x-t_l)) - h(x-(t_x+t_l))] [h(y-(t_y-t_l)) - h(y-(t_y+t_l))]; t (B, 3) pixels, t_l
    half side; x = column index, y = row index, from 0; (B, 1, H, W)."""
    maps = []
    for b in range(t.shape[0]):
        tx, ty, tl = t[b, 0], t[b, 1], t[b, 2]
        rows = []
        for y in range(height):
            in_y = logistic(y - (ty - tl), k) - logistic(y - (ty + tl), k)
            row = [in_y * (logistic(x - (tx - tl), k) - logistic(x - (tx + tl), k)) for x in range(width)]
            rows.append(torch.stack(row))
        maps.append(torch.stack(rows))
    return torch.stack(maps)[:, None]


def bilinear_zoom(x: Tensor, top: Tensor, left: Tensor, step: Tensor, size: int) -> Tensor:
    """out(i, j) = sum_{a,b in 0,1} |1-a-{y}| |1-b-{x}| X(floor(y)+a, floor(x)+b), y = top + i step, x = left
    + j step (step = 1 / lambda); top, left, step (B,); coordinates clamped to the map (border padding); (B,
    C, size, size)."""
    height, width = x.shape[2:]
    samples = []
    for b in range(x.shape[0]):
        rows = []
        for i in range(size):
            row = []
            for j in range(size):
                y = (top[b] + i * step[b]).clamp(0, height - 1)
                z = (left[b] + j * step[b]).clamp(0, width - 1)
                m, n = int(y.detach().floor()), int(z.detach().floor())
                m1, n1 = min(m + 1, height - 1), min(n + 1, width - 1)
                fy, fx = y - m, z - n
                upper = (1 - fx) * x[b, :, m, n] + fx * x[b, :, m, n1]
                lower = (1 - fx) * x[b, :, m1, n] + fx * x[b, :, m1, n1]
                row.append((1 - fy) * upper + fy * lower)
            rows.append(torch.stack(row, dim=-1))
        samples.append(torch.stack(rows, dim=-2))
    return torch.stack(samples)


def naive_ra_cnn(
    x: Tensor, t: Tensor, size: int, k: float = 10.0, align_corners: bool = False
) -> tuple[Tensor, Tensor]:
    """X_att = X * M, then its box zoomed to size x size: corner (t_x - t_l, t_y - t_l), step 2 t_l / size
    (the paper's origin-aligned rule) or 2 t_l / (size - 1) (align_corners: last output pixel on t + t_l).
    Returns (M, zoomed)."""
    mask = boxcar_mask(t, x.shape[2], x.shape[3], k)
    step = 2 * t[:, 2] / (size - 1 if align_corners else size)
    return mask, bilinear_zoom(x * mask, t[:, 1] - t[:, 2], t[:, 0] - t[:, 2], step, size)


def naive_ranking_loss(probabilities: list[Tensor], labels: Tensor, margin: float = 0.05) -> Tensor:
    """sum_s max(0, p_t^(s) - p_t^(s+1) + margin), mean over the batch; one (B, K) softmax output per
    scale."""
    total = probabilities[0].new_zeros(())
    for b in range(labels.shape[0]):
        p = [scale[b, int(labels[b])] for scale in probabilities]
        for s in range(len(p) - 1):
            total = total + torch.relu(p[s] - p[s + 1] + margin)
    return total / labels.shape[0]


def build(H: int = 7, W: int = 9, sharpness: float = 1.5) -> tuple[AttentionProposal, Tensor, Tensor]:
    """A proposal network with random weights in float64, features and pictures."""
    apn, (features, x) = example(B=3, H=H, W=W, F=6, n=5, S=4)
    for parameter in apn.parameters():
        nn.init.normal_(parameter, std=0.7)
    apn.sharpness = sharpness
    return apn.double(), features.double().requires_grad_(), x.double().requires_grad_()


def naive(apn: AttentionProposal, features: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Square, mask and enlarged square by the functions above."""
    side = torch.tensor([x.shape[3], x.shape[2], max(x.shape[2:])], dtype=x.dtype)
    t = attention_proposal(features, apn.fc1.weight, apn.fc1.bias, apn.fc2.weight, apn.fc2.bias, side)
    return t, *naive_ra_cnn(x, t, apn.size, apn.sharpness)


@pytest.mark.parametrize(("H", "W", "sharpness"), [(7, 9, 1.5), (8, 5, 10.0), (1, 3, 0.5)])
def test_square_mask_and_zoom_equal_naive_loops(H: int, W: int, sharpness: float, measured: Measured) -> None:
    apn, features, x = build(H, W, sharpness)
    t, mask, output = naive(apn, features, x)
    measured.close(apn.propose(features, x), t)
    measured.close(apn.attention(features, x), mask)
    measured.close(apn(features, x), output)
    measured.gradients(apn.attention(features, x), mask, [features, *apn.parameters()])
    measured.gradients(apn(features, x), output, [features, x, *apn.parameters()])


@pytest.mark.parametrize("margin", [0.05, 0.3])
def test_ranking_loss_equals_the_naive_one(margin: float, measured: Measured) -> None:
    torch.manual_seed(0)
    before, after = (torch.randn(8, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    label = torch.arange(8) % 5
    expected = naive_ranking_loss([before.softmax(1), after.softmax(1)], label, margin)
    measured.close(ranking_loss(before, after, label, margin), expected)
    measured.gradients(ranking_loss(before, after, label, margin), expected, [before, after])


def test_ranking_loss_is_zero_once_the_zoom_is_surer_by_the_margin() -> None:
    before, label = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    for p, expected in ((0.5, 0.05), (0.54, 0.01), (0.56, 0.0), (0.9, 0.0)):
        after = torch.tensor([[p, 1 - p]], dtype=torch.float64).log()
        assert ranking_loss(before, after, label).item() == pytest.approx(expected)


def test_mask_tends_to_the_square_as_k_grows(measured: Measured) -> None:
    pixel = torch.arange(64)
    inside = ((pixel - SQUARE[0, :2, None]).abs() < SQUARE[0, 2]).double()  # (2, 64), x and y
    square = inside[1][:, None] * inside[0]
    last = 4096.0
    for k in (0.05, 1.0, 10.0, 100.0):
        distance = (boxcar(SQUARE, 64, 64, k)[0, 0] - square).abs().sum().item()
        measured.value(f"Σ|M - square| at k = {k:g}", distance, below=last / 4)
        last = distance
    measured.value("pixels in the square", square.sum().item(), equals=441)


def test_area_of_a_soft_mask_is_that_of_the_square(measured: Measured) -> None:
    measured.close(boxcar(SQUARE, 64, 64, 1.0).sum(), (2 * SQUARE[0, 2]) ** 2, tolerance=0.02)


def test_edges_say_where_the_square_should_go(measured: Measured) -> None:
    t = torch.tensor([[12.3, 10.7, 5.4]], dtype=torch.float64).repeat(576, 1).requires_grad_()
    each = (
        boxcar(t, 24, 24, 1.0).flatten(1).diagonal()
    )  # pixel i of mask i, so that row i of the gradient is its
    derivative = torch.autograd.grad(each.sum(), t)[0].view(24, 24, 3)
    left, right, top, bottom = derivative[11, 7], derivative[11, 18], derivative[5, 12], derivative[16, 12]
    measured.value("∂M/∂t_x left", left[0].item(), below=-0.1)
    measured.value("right", right[0].item(), above=0.1)
    least = min(edge[2].item() for edge in (left, right, top, bottom))
    measured.value("∂M/∂t_l on the edges at least", least, above=0.1)
    measured.value("anywhere at least", derivative[..., 2].min().item(), at_least=0)


def test_a_sharp_mask_does_not_feel_what_lies_outside(measured: Measured) -> None:
    gradient = {}
    for k in (0.5, 10.0):
        t = SQUARE.clone().requires_grad_()
        seen = boxcar(t, 64, 64, k)[0, 0, 26, 50]  # a pixel 9.3 to the right of the square
        gradient[k] = torch.autograd.grad(seen, t)[0].abs().max().item()
    measured.value("|∂M/∂t| at k = 0.5", gradient[0.5], above=1e-3)
    measured.value("at k = 10", gradient[10.0], at_least=0, below=1e-30)


def test_zoom_equals_interpolate_on_whole_pixels(measured: Measured) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 9, 11, dtype=torch.float64)
    t = torch.tensor([[6.0, 4.0, 3.0]], dtype=torch.float64)
    expected = F.interpolate(x[:, :, 1:8, 3:10], size=(11, 11), mode="bilinear", align_corners=True)
    measured.close(zoom(x, t, 10), expected[:, :, :10, :10])  # the last line would be the lower right edge


def test_a_square_around_the_picture_changes_nothing(measured: Measured) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    t = torch.tensor([4.0, 4.0, 4.0], dtype=torch.float64).expand(2, 3)
    measured.close(zoom(x, t, 8), x)
    mask = boxcar(t + torch.tensor([0, 0, 4.0]), 8, 8, 10.0)
    measured.close(mask, torch.ones_like(mask), tolerance=1e-10)


def test_ranking_loss_alone_brings_the_square_to_the_object(measured: Measured) -> None:
    torch.manual_seed(0)
    apn = AttentionProposal(in_features=1, size=8, hidden_dim=4, sharpness=0.5).double()
    nn.init.zeros_(apn.fc2.weight)
    apn.fc2.bias.data = torch.tensor([0.0, 0.0, -1.1], dtype=torch.float64)  # half the width, as in the paper
    x = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    x[:, :, 4:10, 20:26] = 1
    centre = torch.tensor([22.5, 6.5])
    ramp = 4.0 - (torch.arange(8) - 3.5).abs()
    middle = ramp[:, None] * ramp  # the next network: bright in the middle is class 0
    features, label, before = x.new_ones(1, 1), torch.tensor([0]), x.new_zeros(1, 2)
    optimiser = torch.optim.Adam(apn.parameters(), lr=0.02)
    distances = []
    for _ in range(100):
        after = F.pad((middle * apn(features, x)).mean((1, 2, 3))[:, None], (0, 1), value=2.0)  # (1, 2)
        distances.append((apn.propose(features, x)[0, :2] - centre).norm().item())
        optimiser.zero_grad()
        ranking_loss(before, after, label).backward()
        optimiser.step()
    measured.value("pixels off before", distances[0], above=8)
    measured.value("after 100 steps", distances[-1], below=2)


def test_counts_the_parameters_of_the_first_proposal_network(measured: Measured) -> None:
    with torch.device("meta"):
        apn = AttentionProposal(in_features=512 * 14 * 14, size=224, hidden_dim=1024)
    measured.count(sum(p.numel() for p in apn.parameters()), 102_764_547)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "size 0"),
        ({"sharpness": 0.0}, "sharpness 0.0 must be above 0"),
        ({"sharpness": math.nan}, "sharpness nan must be above 0"),
        ({"sharpness": math.inf}, "sharpness inf must be above 0 and finite"),
    ],
)
def test_refuses_arguments_that_cannot_work(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionProposal(**{"in_features": 4, "size": 4, **wrong})


def test_refuses_a_size_that_cannot_be_counted() -> None:
    with pytest.raises(TypeError, match="float"):
        AttentionProposal(in_features=4, size=12.5)


def test_refuses_shapes_that_would_broadcast() -> None:
    apn, features, x = build()
    with pytest.raises(ValueError, match="features"):
        apn(features[:1], x)
    with pytest.raises(ValueError, match=r"x .* must be"):
        apn(features, x[0])


@pytest.mark.parametrize("label", [(4, 1), (1,), (3,), (5,)])
def test_ranking_loss_refuses_labels_of_another_shape(label: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="label"):
        ranking_loss(torch.randn(4, 3), torch.randn(4, 3), torch.zeros(label).long())


def test_ranking_loss_refuses_scores_of_another_shape_and_an_empty_batch() -> None:
    with pytest.raises(ValueError, match="after"):
        ranking_loss(torch.randn(4, 3), torch.randn(5, 3), torch.zeros(4).long())
    with pytest.raises(ValueError, match="label"):
        ranking_loss(torch.randn(0, 3), torch.randn(0, 3), torch.zeros(0).long())


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("side", [224, 448])
def test_reads_large_pictures_in_half_precision(side: int, dtype: torch.dtype, autocast: bool) -> None:
    apn, (features, _) = example()
    x = torch.linspace(0, 1, side).expand(4, 1, side, -1)  # grey from left to right
    expected = apn.double()(features.double(), x.double()).float()
    apn = apn.float() if autocast else apn.to(dtype)
    half = (features, x) if autocast else (features.to(dtype), x.to(dtype))
    with torch.autocast("cpu", dtype, enabled=autocast):
        found = apn(*half)
    assert found.dtype == half[1].dtype
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # the mask has edges of a pixel
    torch.testing.assert_close(found.float()[inside], expected[inside], rtol=0, atol=0.02)
