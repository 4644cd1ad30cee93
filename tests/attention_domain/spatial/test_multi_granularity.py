"""Proofs of multiple-granularity descriptors, as reconstructed: nothing here is a figure of the paper."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.attention_domain.spatial.multi_granularity import Grain, MultipleGranularity, example
from tests.measure import Measured

EXCEPTIONS = {
    "test_every_parameter_receives_a_gradient": {
        "multi_granularity": "argmax chooses a region: the logits of a grain train that, not forward",
        "multi_granularity:one_grain": "the logits of a grain train the choice of its region, not forward",
        "multi_granularity:wide_region": "the logits of a grain train the choice of its region, not forward",
    },
}
"""Checks of the contract that it cannot pass, with the reason."""


def coarse_probabilities(p_fine: Tensor, parent: list[int]) -> Tensor:
    """p(family f) = sum over species s with parent[s] = f of p(s); p_fine (B, S) -> (B, max(parent) + 1)."""
    columns = []
    for family in range(max(parent) + 1):
        columns.append(sum(p_fine[:, s] for s in range(len(parent)) if parent[s] == family))
    return torch.stack(columns, dim=1)


def response_map(features: Tensor, w_class: Tensor, labels: Tensor) -> Tensor:
    """One reading of 'response': E(y, x) = sum_c w[label, c] f_c(y, x), of a grain's classifier w (K, C); (B,
    H, W)."""
    return torch.stack(
        [torch.einsum("c,chw->hw", w_class[int(k)], f) for f, k in zip(features, labels, strict=True)]
    )


def region_scores(energy: Tensor, boxes: list[tuple[int, int, int, int]]) -> Tensor:
    """Mean energy (B, H, W) in each proposal (top, left, bottom, right), ends excluded; (B, number of
    boxes)."""
    scores = []
    for top, left, bottom, right in boxes:
        area = (bottom - top) * (right - left)
        scores.append(energy[:, top:bottom, left:right].sum(dim=(1, 2)) / area)
    return torch.stack(scores, dim=1)


def grain_descriptor(
    features: Tensor, energy: Tensor, boxes: list[tuple[int, int, int, int]], regions: int = 1
) -> tuple[Tensor, Tensor]:
    """Hard selection: the `regions` best-scored boxes, best first (ties: lower index); the descriptor is
    their average pooled features (B, C, H, W), concatenated. Returns (indices (B, regions), descriptor (B,
    regions C))."""
    scores = region_scores(energy, boxes)
    chosen, descriptors = [], []
    for b in range(features.shape[0]):
        order = sorted(range(len(boxes)), key=lambda r: (-float(scores[b, r]), r))[:regions]
        chosen.append(order)
        pooled = []
        for top, left, bottom, right in (boxes[r] for r in order):
            pooled.append(
                features[b, :, top:bottom, left:right].sum(dim=(1, 2)) / ((bottom - top) * (right - left))
            )
        descriptors.append(torch.cat(pooled))
    return torch.tensor(chosen), torch.stack(descriptors)


def naive_network(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """ReLU of a 3 x 3 convolution with zeros around, position by position: (B, C, H, W) -> (B, d, H, W)."""
    B, C, H, W = x.shape
    framed = x.new_zeros(B, C, H + 2, W + 2)
    framed[:, :, 1:-1, 1:-1] = x
    rows = []
    for i in range(H):
        row = [
            torch.einsum("bcij,dcij->bd", framed[:, :, i : i + 3, j : j + 3], convolution.weight)
            for j in range(W)
        ]
        rows.append(torch.stack(row, -1))
    y = torch.stack(rows, -2) + convolution.bias[None, :, None, None]
    return torch.where(y > 0, y, torch.zeros_like(y))


def naive_grain(grain: Grain, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """One grain: the mask of its region (B, H, W) and its descriptor (B, d), every window tried in turn."""
    H, W = x.shape[2:]
    h, w = min(k, H), min(k, W)
    boxes = [(i, j, i + h, j + w) for i in range(H - h + 1) for j in range(W - w + 1)]
    detection, description = (
        next(layer for layer in network if isinstance(layer, nn.Conv2d))
        for network in (grain.detection, grain.description)
    )
    features, weight, bias = naive_network(x, detection), grain.classifier.weight, grain.classifier.bias
    logits = torch.einsum("bdhw,kd->bk", features, weight) / (H * W) + bias
    energy = response_map(features, weight, logits.argmax(1)).detach()
    chosen, _ = grain_descriptor(features, energy, boxes)
    masks = torch.zeros(len(x), H, W, dtype=x.dtype)
    described = []
    for b, (index,) in enumerate(chosen.tolist()):
        top, left, bottom, right = boxes[index]
        masks[b, top:bottom, left:right] = 1
        crop = x[b : b + 1, :, top:bottom, left:right]  # the network sees the region alone
        described.append(naive_network(crop, description).sum((2, 3))[0] / (h * w))
    return masks, torch.stack(described)


def small(seed: int = 1, region: int = 3, H: int = 6, W: int = 5) -> tuple[MultipleGranularity, Tensor]:
    torch.manual_seed(seed)
    block = MultipleGranularity(4, (2, 3, 5), region=region, width=3).double()
    return block, torch.randn(2, 4, H, W, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("region", "H", "W"), [(3, 6, 5), (2, 5, 7), (4, 3, 6)])
def test_equals_naive_reference(measured: Measured, region: int, H: int, W: int) -> None:
    block, x = small(region, region, H, W)
    masks, descriptors = zip(*(naive_grain(grain, x, region) for grain in block.grains), strict=True)
    y = torch.cat(descriptors, 1)
    measured.close(block.attention(x), torch.stack(masks, 1))
    measured.close(block(x), y)
    described = [p for grain in block.grains for p in grain.description.parameters()]
    measured.gradients(block(x), y, of=(x, *described))


def test_energy_is_gradient_times_activation(measured: Measured) -> None:
    block, x = small()
    for grain in block.grains:
        features = grain.detection(x)
        winning = grain.classifier(features.mean((2, 3))).amax(1).sum()
        (gradient,) = torch.autograd.grad(winning, features)
        measured.close(grain.energy(x), 30 * (gradient * features).sum(1))


def test_energy_adds_up_to_the_logit(measured: Measured) -> None:
    block, x = small()
    for grain in block.grains:
        logit, winner = grain.logits(x).max(1)
        measured.close(grain.energy(x).mean((1, 2)) + grain.classifier.bias[winner], logit)


def test_cropping_equals_masking(measured: Measured) -> None:
    block, x = small()
    masks = block.attention(x)[:, :, None]  # (B, L, 1, H, W)
    parts = [
        (g * grain.description(g * x)).sum((2, 3)) / 9
        for g, grain in zip(masks.unbind(1), block.grains, strict=True)
    ]
    measured.close(block(x), torch.cat(parts, 1))
    measured.gradients(block(x), torch.cat(parts, 1), of=(x,))


def test_descriptor_depends_on_its_region_alone(measured: Measured) -> None:
    block, (x,) = example()
    y = block(x.requires_grad_()).view(len(x), 3, 6)
    regions = block.attention(x)
    for grain in range(3):
        (slope,) = torch.autograd.grad(y[:, grain].sum(), x, retain_graph=True)
        touched = slope.abs().sum(1) > 0
        assert torch.equal(touched, regions[:, grain].bool())
        measured.count(int(touched[0].sum()), 16)


def test_region_moves_with_the_picture(measured: Measured) -> None:
    block, _ = small()
    x = torch.zeros(2, 4, 16, 14, dtype=torch.float64)
    x[:, :, 5:9, 4:9] = torch.randn(2, 4, 4, 5, dtype=torch.float64)
    moved = x.roll((3, -1), (2, 3))
    corners = block.corners(x)
    assert corners.amin() > 1  # not at the border
    shift = block.corners(moved) - corners
    measured.close(shift.double(), torch.tensor([3.0, -1.0]).double().expand(2, 3, 2))
    measured.close(block(moved), block(x))


def train(labels: tuple[Tensor, Tensor], x: Tensor) -> MultipleGranularity:
    """Teach two grains with the same start for ten steps, each with labels of its own."""
    torch.manual_seed(0)
    block = MultipleGranularity(4, (3, 3), region=3, width=6).double()
    block.grains[1].load_state_dict(block.grains[0].state_dict())
    optimiser = torch.optim.SGD(block.parameters(), lr=1.0)
    for _ in range(10):
        loss = sum(F.cross_entropy(z, y) for z, y in zip(block.logits(x), labels, strict=True))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return block


def test_same_labels_same_region_and_descriptor(measured: Measured) -> None:
    torch.manual_seed(3)
    x, coarse, fine = (
        torch.randn(24, 4, 7, 6, dtype=torch.float64),
        torch.arange(24) % 2,
        torch.arange(24) % 3,
    )
    same, different = train((coarse, coarse), x), train((coarse, fine), x)
    first, second = same(x).chunk(2, 1)
    measured.close(first, second)
    apart = (different.corners(x)[:, 0] != different.corners(x)[:, 1]).any(1).sum().item()
    measured.value("samples in which other labels choose another region, of 24", apart, at_least=8)


def test_descriptors_cannot_teach_the_detection(measured: Measured) -> None:
    block, x = small()
    finders = [p for g in block.grains for m in (g.detection, g.classifier) for p in m.parameters()]
    learnt = torch.autograd.grad(block(x).square().sum(), finders, allow_unused=True)
    measured.count(sum(slope is not None for slope in learnt), 0)
    loss = sum(z.square().sum() for z in block.logits(x))
    slopes = torch.autograd.grad(loss, finders)
    measured.count(sum(bool(slope.any()) for slope in slopes), 12)


def test_grains_need_not_agree(measured: Measured) -> None:
    block, (x,) = example()
    for grain in block.grains:
        nn.init.normal_(grain.classifier.weight)  # answers that are not nearly uniform
    family, _, species = (z.softmax(1) for z in block.logits(x))
    parent = [s % 5 for s in range(19)]  # a tree; the module knows none
    gap = (family - coarse_probabilities(species, parent)).abs().max().item()
    measured.value("max |p(family) − Σ p(species)|", gap, above=0.05)


def test_region_as_large_as_the_map_reads_everything(measured: Measured) -> None:
    block, x = small(region=9)
    measured.count(int(block.attention(x).sum()), 2 * 3 * 30)
    whole = torch.cat([grain.description(x).mean((2, 3)) for grain in block.grains], 1)
    measured.close(block(x), whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (2,), 3, 4), "channels 0"),
        ((8, (2, 0), 3, 4), r"classes \(2, 0\)"),
        ((8, (2,), 0, 4), "region 0"),
        ((8, (2,), 3, 0), "width 0"),
        ((8, (), 3, 4), r"classes \(\) must hold one or more"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, tuple[int, ...], int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultipleGranularity(*arguments)


def test_refuses_what_would_be_misread() -> None:
    with pytest.raises(TypeError, match="float"):
        MultipleGranularity(4, (2,), 3.0, 4)
    block, (x,) = example()
    with pytest.raises(ValueError, match=r"x .* must be \(B, C, H, W\)"):
        block(x[0])


def test_an_empty_batch_has_no_descriptors() -> None:
    block, (x,) = example()
    assert block(x[:0]).shape == (0, 18)
    assert block.attention(x[:0]).shape == (0, 3, 12, 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_close_windows_do_not_tie_in_half_precision(dtype: torch.dtype) -> None:
    block = MultipleGranularity(1, (2,), region=2, width=1)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    grain = block.grains[0]
    grain.detection[0].weight.data[0, 0, 1, 1] = 1.0  # energy = the map
    nn.init.ones_(grain.classifier.weight)
    x = torch.full((1, 1, 4, 4), 256.0)
    x[0, 0, 3, 3] += 2  # the mean of the last window is half a unit larger
    assert block.to(dtype).corners(x.to(dtype)).tolist() == [[[2, 2]]]
