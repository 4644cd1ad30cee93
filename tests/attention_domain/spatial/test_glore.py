"""Proofs of GloRe."""

import pytest
import torch
from torch import Tensor, nn

from snippets.attention_domain.spatial.glore import GloReUnit, example
from tests.measure import Measured
from tests.memory import peak_bytes
from tests.resnet import parameters, resnet50


def glore_projection(x: Tensor, w_b: Tensor, b_b: Tensor) -> Tensor:
    """B = W_b x + b_b: the un-normalised projection maps (B, M, N); x (B, C, H, W), w_b (M, C), b_b (M,)."""
    return torch.einsum("mc,bcn->bmn", w_b, x.flatten(2)) + b_b[None, :, None]


def graph_convolution(v: Tensor, w_node: Tensor, b_node: Tensor, w_state: Tensor) -> Tensor:
    """V' = W_state ReLU(V + V w_node^T + b_node); v (B, S, M), w_node (M, M), b_node (M,), w_state (S, S)."""
    h = torch.einsum("mk,bsk->bsm", w_node, v) + b_node[None, None, :]  # conv1d over nodes
    h = h + v  # the + I of (A + I)
    return torch.einsum("ts,bsm->btm", w_state, torch.relu(h))  # conv1d over states, no bias


def glore(
    x: Tensor,
    w_s: Tensor,
    b_s: Tensor,
    w_b: Tensor,
    b_b: Tensor,
    w_node: Tensor,
    b_node: Tensor,
    w_state: Tensor,
    w_e: Tensor,
    bn_weight: Tensor,
    bn_bias: Tensor,
    bn_mean: Tensor,
    bn_var: Tensor,
    normalize: bool = False,
    bn_eps: float = 1e-4,
) -> tuple[Tensor, Tensor]:
    """out = x + BN(W_e (GCN(X_s B^T) B)), V = X_s B^T (times 1/N if normalize); returns out and V (B, S, M).

    w_s (S, C), b_s (S,); w_b (M, C), b_b (M,); w_node (M, M), b_node (M,); w_state (S, S);
    w_e (C, S) no bias; bn_* (C,).
    """
    xs = torch.einsum("sc,bcn->bsn", w_s, x.flatten(2)) + b_s[None, :, None]
    proj = glore_projection(x, w_b, b_b)
    v = torch.einsum("bsn,bmn->bsm", xs, proj)
    if normalize:
        v = v / xs.shape[2]
    rel = graph_convolution(v, w_node, b_node, w_state)
    y = torch.einsum("bsm,bmn->bsn", rel, proj)  # back with the same B
    y = torch.einsum("cs,bsn->bcn", w_e, y)
    scale = bn_weight / torch.sqrt(bn_var + bn_eps)
    y = (y - bn_mean[None, :, None]) * scale[None, :, None] + bn_bias[None, :, None]
    return x + y.reshape(x.shape), v


def small(
    normalize: bool = False, size: tuple[int, int, int, int] = (2, 7, 4, 5)
) -> tuple[GloReUnit, Tensor]:
    torch.manual_seed(1)
    unit = GloReUnit(size[1], nodes=3, states=4, normalize=normalize)
    for parameter in unit.parameters():
        nn.init.normal_(parameter, std=0.5)
    nn.init.normal_(unit.norm.running_mean)
    nn.init.uniform_(unit.norm.running_var, 0.5, 2)
    return unit.double().eval(), torch.randn(size, dtype=torch.float64, requires_grad=True)


def tensors(unit: GloReUnit) -> tuple[Tensor, ...]:
    """What `glore` takes after x, in its order."""
    graph, norm = unit.reason, unit.norm
    return (
        unit.reduce.weight[..., 0, 0],
        unit.reduce.bias,
        unit.assign.weight[..., 0, 0],
        unit.assign.bias,
        graph.adjacency.weight[..., 0],
        graph.bias[:, 0],
        graph.weight.weight,
        unit.extend.weight[..., 0, 0],
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
    )


@pytest.mark.parametrize("normalize", [False, True])
def test_equals_naive_reference(measured: Measured, normalize: bool) -> None:
    unit, x = small(normalize)
    weights = unit.attention(x)
    out, nodes = glore(x, *tensors(unit), normalize=normalize)
    measured.close(weights, glore_projection(x, *tensors(unit)[2:4]))
    measured.close(unit.project(x, weights).mT, nodes if normalize else nodes / 20)
    measured.close(unit(x), out)
    measured.gradients(unit(x), out, of=(x, *unit.parameters()))


def test_starts_as_the_identity(measured: Measured) -> None:
    _, x = small()
    unit = GloReUnit(7, nodes=3, states=4).double()
    measured.close(unit(x), x, tolerance=0)
    measured.close(unit.eval()(x), x, tolerance=0)


def test_permuted_positions_permute_the_output(measured: Measured) -> None:
    unit, x = small()
    order = torch.randperm(20)
    shuffled = x.flatten(2)[:, :, order].view_as(x)
    measured.close(unit(shuffled), unit(x).flatten(2)[:, :, order].view_as(x))


def test_a_map_shown_twice_doubles_the_nodes(measured: Measured) -> None:
    unit, x = small()
    with torch.no_grad():
        for tensor in (unit.reason.bias, unit.norm.bias, unit.norm.running_mean):
            tensor.zero_()  # what is added is then proportional to the nodes
    twice, added = torch.cat([x, x], dim=3), unit(x) - x
    measured.close(unit(twice) - twice, 2 * torch.cat([added, added], dim=3))
    unit.normalize = True
    measured.close(unit(twice), torch.cat([unit(x), unit(x)], dim=3))


def test_output_without_reasoning_is_bilinear(measured: Measured) -> None:
    """Without edges, and while no node is negative, f adds W_e X g^T g."""
    unit, x = small()
    with torch.no_grad():
        unit.reason.adjacency.weight.zero_()
        unit.reason.bias.zero_()
        unit.reason.weight.weight.copy_(torch.eye(4))
        unit.reduce.weight.abs_()
        unit.assign.weight.abs_()
        unit.reduce.bias.abs_()
        unit.assign.bias.abs_()
    x = x.detach().abs()
    states, weights = unit.reduce(x).flatten(2), unit.attention(x)
    y = torch.einsum("bsj,bmj,bmi->bsi", states, weights, weights).view(2, 4, 4, 5)
    measured.close(unit(x), x + unit.norm(unit.extend(y)))


def test_what_is_added_has_rank_m(measured: Measured) -> None:
    unit, x = small(size=(2, 7, 6, 5))
    with torch.no_grad():
        unit.norm.bias.zero_()
        unit.norm.running_mean.zero_()
    added = (unit(x) - x).flatten(2)  # (2, 7, 30)
    for sample in added:
        measured.count(int(torch.linalg.matrix_rank(sample)), 3)


def test_weights_are_not_a_distribution(measured: Measured) -> None:
    unit, (x,) = example()
    weights = unit.attention(x)
    measured.value("min", weights.min().item(), below=-0.5)
    measured.value("|Σ − 1|", (weights.sum(-1) - 1).abs().min().item(), above=0.1)


def test_an_edge_carries_a_change_to_far_positions(measured: Measured) -> None:
    """A node passes on what its positions hold along an edge, and only there."""
    unit, x = small(size=(1, 3, 2, 6))
    with torch.no_grad():
        for layer in (unit.assign, unit.reduce):
            nn.init.zeros_(layer.bias)
        unit.assign.weight.copy_(torch.eye(3)[..., None, None])
        unit.reason.bias.fill_(100.0)
        unit.reason.adjacency.weight.zero_()
        edge = unit.reason.adjacency.weight[2, 0]
        hot = torch.zeros_like(x)
        hot[:, 0, :, :2] = hot[:, 1, :, 2:4] = hot[:, 2, :, 4:] = 1  # node 0 left, 1 in the middle, 2 right
        changed = hot.clone()
        changed[:, 0, :, :2] = 2
        apart = (unit(changed) - unit(hot))[..., 2:].abs().amax(dim=(0, 1, 2))
        edge.fill_(1.0)
        joined = (unit(changed) - unit(hot))[..., 2:].abs().amax(dim=(0, 1, 2))
    measured.close(apart, torch.zeros(4, dtype=torch.float64))
    measured.close(joined[:2], torch.zeros(2, dtype=torch.float64))
    measured.value("joined", joined[2:].min().item(), above=0.1)


def test_memory_is_linear_in_positions(measured: Measured) -> None:
    unit, _ = example()
    peaks = [peak_bytes(unit, torch.randn(1, 32, side, side)) for side in (32, 64)]
    measured.value("× memory", peaks[1] / peaks[0], above=3.8, below=4.2)


@pytest.mark.parametrize(("channels", "expected"), [(64, 6_592), (512, 411_136), (1024, 1_641_472)])
def test_parameters_of_a_unit(measured: Measured, channels: int, expected: int) -> None:
    measured.count(parameters(GloReUnit(channels, channels // 4, channels // 2)), expected)


@pytest.mark.parametrize(
    ("places", "expected"), [((15, 13, 11), 30_481_448), ((15, 13, 11, 9, 7), 31_303_720)]
)
def test_resnet50_parameters(measured: Measured, places: tuple[int, ...], expected: int) -> None:
    """Units behind bottlenecks of res4 (items 10 to 15 of the network) and res3 (6 to 9)."""
    network = resnet50()
    with torch.device("meta"):
        for place in places:
            channels = 1024 if place > 9 else 512
            network.insert(place + 1, GloReUnit(channels, channels // 4, channels // 2))
        assert network(torch.empty(1, 3, 64, 64)).shape == (1, 1000)
    measured.count(parameters(network), expected)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_refuses_impossible_arguments(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"nodes \d and states \d must be at least 1"):
        GloReUnit(*sizes)


def test_refuses_float16_where_its_sums_do_not_fit() -> None:
    unit, x = small()
    with pytest.raises(TypeError, match=r"x must be float32 in training, not torch\.float16"):
        unit.half().train()(x.half())
    unit.normalize = True
    assert unit(x.half()).isfinite().all()


def test_refuses_a_map_without_a_batch() -> None:
    unit, x = small()
    with pytest.raises(ValueError, match=r"x \(7, 4, 5\) must be \(B, C, H, W\)"):
        unit.attention(x[0])
