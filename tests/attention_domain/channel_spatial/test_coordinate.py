"""Proofs of coordinate attention."""

import pytest
import torch
from torch import Tensor, nn

from snippets.attention_domain.channel_spatial.coordinate import CoordinateAttention
from tests.measure import Measured
from tests.resnet import macs, parameters

BN = tuple[Tensor, Tensor, Tensor, Tensor]  # gamma (m,), beta (m,), running mean (m,), running var (m,)


def h_swish(x: Tensor) -> Tensor:
    """x ReLU6(x + 3) / 6."""
    return x * torch.clamp(x + 3, 0, 6) / 6


def naive_coordinate(
    x: Tensor,
    w_1: Tensor,
    b_1: Tensor,
    bn: BN,
    w_h: Tensor,
    b_h: Tensor,
    w_w: Tensor,
    b_w: Tensor,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """f = h_swish(BN(W_1 [x_h; x_w])), a_h = sigmoid(W_h f_h), a_w = sigmoid(W_w f_w), y = x a_h a_w. w_1 (m,
    C), w_h and w_w (C, m), biases; returns (a_h (B, C, H), a_w (B, C, W), y). Eval-mode BN, so the H + W
    columns are independent."""
    height, width = x.shape[2:]
    gamma, beta, mean, var = bn

    def squeeze(column: Tensor) -> Tensor:  # (B, C) -> (B, m)
        z = torch.einsum("mc,bc->bm", w_1, column) + b_1
        return h_swish(gamma * (z - mean) / torch.sqrt(var + eps) + beta)

    gates_h, gates_w = [], []
    for i in range(height):
        z = torch.einsum("cm,bm->bc", w_h, squeeze(x[:, :, i, :].sum(dim=2) / width)) + b_h
        gates_h.append(1 / (1 + torch.exp(-z)))
    for j in range(width):
        z = torch.einsum("cm,bm->bc", w_w, squeeze(x[:, :, :, j].sum(dim=2) / height)) + b_w
        gates_w.append(1 / (1 + torch.exp(-z)))
    a_h, a_w = torch.stack(gates_h, dim=2), torch.stack(gates_w, dim=2)
    return a_h, a_w, x * a_h[:, :, :, None] * a_w[:, :, None, :]


def small(
    size: tuple[int, int, int, int] = (2, 6, 5, 4), reduction: int = 32
) -> tuple[CoordinateAttention, Tensor]:
    torch.manual_seed(1)
    block = CoordinateAttention(size[1], reduction)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    nn.init.normal_(block.shared[1].running_mean)
    nn.init.uniform_(block.shared[1].running_var, 0.5, 2)
    x = torch.randn(size) + torch.randn(*size[:3], 1) + torch.randn(*size[:2], 1, size[3])
    return block.double().eval(), x.double().requires_grad_()


@pytest.mark.parametrize(("size", "reduction"), [((2, 6, 5, 4), 32), ((1, 40, 3, 7), 4)])
def test_equals_naive_reference(measured: Measured, size: tuple[int, int, int, int], reduction: int) -> None:
    block, x = small(size, reduction)
    first, norm, _ = block.shared
    rows, columns, y = naive_coordinate(
        x,
        first.weight[..., 0],
        first.bias,
        (norm.weight, norm.bias, norm.running_mean, norm.running_var),
        block.conv_h.weight[..., 0],
        block.conv_h.bias,
        block.conv_w.weight[..., 0],
        block.conv_w.bias,
    )
    a_h, a_w = block.gates(x)
    measured.close(a_h[..., 0], rows)
    measured.close(a_w[:, :, 0], columns)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=(x, *block.parameters()))


def test_in_training_rows_and_columns_are_normalised_together(measured: Measured) -> None:
    block, x = small()
    first, norm, activation = block.shared
    means = first(torch.cat([x.mean(dim=3), x.mean(dim=2)], dim=2))
    deviation = means - means.mean(dim=(0, 2), keepdim=True)
    scale = norm.weight[:, None] / (deviation.square().mean(dim=(0, 2), keepdim=True) + 1e-5).sqrt()
    hidden = activation(deviation * scale + norm.bias[:, None])
    block.train()
    measured.close(block.gates(x)[0][..., 0], torch.sigmoid(block.conv_h(hidden[..., :5])))
    measured.close(block.gates(x)[1][:, :, 0], torch.sigmoid(block.conv_w(hidden[..., 5:])))


def test_weights_of_a_channel_have_rank_one(measured: Measured) -> None:
    block, x = small(size=(2, 32, 14, 10))
    first, second = torch.linalg.svdvals(block.attention(x))[..., :2].unbind(dim=2)
    measured.value("second / first singular value", (second / first).max().item(), below=1e-14)


def test_weights_of_a_sample_have_a_higher_rank(measured: Measured) -> None:
    block, x = small(size=(1, 32, 14, 10))
    measured.count(torch.linalg.matrix_rank(block.attention(x)[0].flatten(1), rtol=1e-6).item(), 32)


def test_row_gate_sees_its_row_and_no_other(measured: Measured) -> None:
    block, x = small(size=(1, 6, 14, 10))
    a_h, a_w = block.gates(x)
    row = torch.autograd.grad(a_h[0, 2, 5, 0], x, retain_graph=True)[0][0]
    column = torch.autograd.grad(a_w[0, 2, 0, 7], x)[0][0]
    measured.count(row.count_nonzero().item(), 6 * 10)
    measured.count(column.count_nonzero().item(), 6 * 14)
    assert row[:, 5].all()
    assert column[:, :, 7].all()


def test_moved_rows_move_their_gates(measured: Measured) -> None:
    block, x = small(size=(2, 6, 14, 10))
    order = torch.randperm(14)
    measured.close(block(x[:, :, order]), block(x)[:, :, order])
    measured.close(block.gates(x[:, :, order])[1], block.gates(x)[1])


def test_transposed_input_swaps_the_gates(measured: Measured) -> None:
    block, x = small(size=(2, 6, 14, 10))
    expected = block(x).mT
    block.conv_h, block.conv_w = block.conv_w, block.conv_h
    measured.close(block(x.mT), expected)


def test_permutation_matrices_look_alike(measured: Measured) -> None:
    block, x = small(size=(1, 6, 14, 14))
    diagonal = x[:, :, :1, :1] * torch.eye(14, dtype=torch.float64)
    gates = block.attention(diagonal)
    measured.close(gates, gates[..., :1, :1].expand_as(gates))
    shuffled = diagonal[..., torch.randperm(14)]
    measured.close(block.attention(shuffled), gates)


def conv_bn(inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class InvertedResidual(nn.Module):
    """Block of MobileNetV2; attention on the hidden channels where the block expands."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, attend: bool) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = nn.Sequential(
            nn.Sequential(conv_bn(inputs, hidden), nn.ReLU6()) if expansion > 1 else nn.Identity(),
            conv_bn(hidden, hidden, 3, stride, groups=hidden),
            nn.ReLU6(),
            CoordinateAttention(hidden) if attend and expansion > 1 else nn.Identity(),
            conv_bn(hidden, outputs),
        )
        self.keep = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.residual(x)
        return x + out if self.keep else out


def mobilenet_v2(attend: bool) -> nn.Sequential:
    """MobileNetV2 on the meta device. Sandler et al., CVPR 2018."""
    plan = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    with torch.device("meta"):
        layers: list[nn.Module] = [conv_bn(3, 32, 3, 2), nn.ReLU6()]
        inputs = 32
        for expansion, outputs, repeats, stride in plan:
            for repeat in range(repeats):
                layers.append(InvertedResidual(inputs, outputs, 1 if repeat else stride, expansion, attend))
                inputs = outputs
        layers += [
            conv_bn(320, 1280),
            nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(1280, 1000),
        ]
        return nn.Sequential(*layers).eval()


def test_mobilenet_v2_parameters(measured: Measured) -> None:
    measured.count(parameters(mobilenet_v2(attend=True)), 3_950_648)


def test_mobilenet_v2_multiply_adds(measured: Measured) -> None:
    total = macs(mobilenet_v2(attend=True))
    measured.count(total, 306_666_368)
    measured.count(total - macs(mobilenet_v2(attend=False)), 5_892_096)


@pytest.mark.parametrize(
    ("arguments", "message"), [((0,), "channels 0"), ((64, 0), "reduction 0 must be at least 1")]
)
def test_refuses_impossible_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CoordinateAttention(*arguments)


@pytest.mark.parametrize("reduction", [32.0, float("nan")])
def test_refuses_a_reduction_that_is_no_integer(reduction: float) -> None:
    """Below 8 hidden channels a wrong ratio would not show: there are 8 of them anyway."""
    with pytest.raises(TypeError, match="integer"):
        CoordinateAttention(64, reduction)
