"""Proofs of RAM, the recurrent model of visual attention."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.attention_domain.spatial.ram import RAM, Episode, example, hybrid_loss, look
from tests.measure import Measured
from tests.parallel import data_parallel

EXCEPTIONS = {
    "test_every_parameter_receives_a_gradient": {
        "ram": "a location has no derivative: REINFORCE trains where to look, not the output of forward",
        "ram:given": "the locations are given: location network and baseline are not needed for the output",
    },
    "test_gradcheck": {
        "ram": "a location has no derivative: it is a constant for what reads it",
    },
    "test_second_derivative": {
        "ram": "a location has no derivative: it is a constant for what reads it",
    },
}
"""Checks of the contract that it cannot pass, with the reason."""


def relu(x: Tensor) -> Tensor:
    """max(0, x)."""
    return x * (x > 0)


def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """x (B, in), w (out, in), b (out,)."""
    return torch.einsum("oi,bi->bo", w, x) + b


def glimpse_sensor(x: Tensor, loc: Tensor, size: int, scales: int) -> Tensor:
    """rho(x, l): (B, scales C, g, g), scale-major; loc (B, 2) = (x, y) in [-1, 1], -1 the left/top edge.
    Patch j has side s = g 2^j, its first pixel is floor((l + 1) / 2 * H) - s // 2, zeros outside, mean over
    2^j x 2^j blocks."""
    batch, channels, height, width = x.shape
    samples = []
    for b in range(batch):
        patches = []
        for j in range(scales):
            side, block = size * 2**j, 2**j
            left = math.floor(0.5 * (float(loc[b, 0]) + 1.0) * width) - side // 2
            top = math.floor(0.5 * (float(loc[b, 1]) + 1.0) * height) - side // 2
            for c in range(channels):
                cells = []
                for cell in range(size * size):
                    acc = x.new_zeros(())
                    for pixel in range(block * block):
                        row = top + (cell // size) * block + pixel // block
                        col = left + (cell % size) * block + pixel % block
                        if 0 <= row < height and 0 <= col < width:
                            acc = acc + x[b, c, row, col]
                    cells.append(acc / block**2)
                patches.append(torch.stack(cells).reshape(size, size))
        samples.append(torch.stack(patches))
    return torch.stack(samples)


def glimpse_network(
    patches: Tensor,
    loc: Tensor,
    w_g: Tensor,
    b_g: Tensor,
    w_l: Tensor,
    b_l: Tensor,
    w_hg: Tensor,
    b_hg: Tensor,
    w_hl: Tensor,
    b_hl: Tensor,
) -> Tensor:
    """g_t = ReLU(W_hg ReLU(W_g rho + b_g) + b_hg + W_hl ReLU(W_l l + b_l) + b_hl), rho flattened; (B, G)."""
    what = relu(linear(patches.flatten(1), w_g, b_g))
    where = relu(linear(loc, w_l, b_l))
    return relu(linear(what, w_hg, b_hg) + linear(where, w_hl, b_hl))


def core_network(h: Tensor, g: Tensor, w_h: Tensor, b_h: Tensor, w_i: Tensor, b_i: Tensor) -> Tensor:
    """h_t = ReLU(W_h h_{t-1} + b_h + W_i g_t + b_i); (B, hidden)."""
    return relu(linear(h, w_h, b_h) + linear(g, w_i, b_i))


def location_mean(h: Tensor, w: Tensor, b: Tensor, squash: bool = False) -> Tensor:
    """f_l(h): linear to 2 numbers (paper); squash adds the tanh of the common PyTorch code. w (2, hidden), b
    (2,)."""
    mu = linear(h, w, b)
    return torch.tanh(mu) if squash else mu


def location_log_prob(loc: Tensor, mu: Tensor, sigma: float) -> Tensor:
    """log N(l; mu, sigma^2 I) summed over the two coordinates of the last dim."""
    density = -((loc - mu) ** 2) / (2 * sigma**2) - math.log(sigma) - 0.5 * math.log(2 * math.pi)
    return density[..., 0] + density[..., 1]


def reinforce_loss(log_pi: Tensor, reward: Tensor, baseline: Tensor) -> Tensor:
    """-(1/M) sum_i sum_t log pi(l_t) (R_t - b_t); all (M, T), reward and baseline carry no gradient."""
    total = log_pi.new_zeros(())
    for i in range(log_pi.shape[0]):
        for t in range(log_pi.shape[1]):
            total = total - log_pi[i, t] * (reward[i, t] - baseline[i, t]).detach()
    return total / log_pi.shape[0]


def naive_ram_loss(
    logits: Tensor, labels: Tensor, log_pi: Tensor, baseline: Tensor, weight: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hybrid loss: mean NLL of logits (M, K) + mean (R - b)^2 + weight * REINFORCE; R = 1 if argmax is right
    at every step, else 0. Returns (total, nll, baseline loss, REINFORCE)."""
    log_p = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    nll = -sum(log_p[i, int(labels[i])] for i in range(len(labels))) / len(labels)
    hit = (logits.argmax(dim=1) == labels).to(logits.dtype)
    reward = hit[:, None].expand_as(log_pi)
    fit = ((reward - baseline) ** 2).sum() / baseline.numel()
    policy = reinforce_loss(log_pi, reward, baseline)
    return nll + fit + weight * policy, nll, fit, policy


def naive_play(model: RAM, x: Tensor, locations: Tensor) -> Episode:
    """The equations at given locations (B, T, 2), put together from the functions above."""
    eye = model.glimpse
    layers = [eye.what, eye.where, eye.from_what, eye.from_where]
    weights = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
    core = [
        model.from_state.weight,
        model.from_state.bias,
        model.from_glimpse.weight,
        model.from_glimpse.bias,
    ]
    h = x.new_zeros(len(x), model.hidden_dim)
    log_probs, baselines = [], []
    for t in range(model.glimpses):
        mean = location_mean(h.detach(), model.locate.weight, model.locate.bias)
        log_probs.append(location_log_prob(locations[:, t], mean, model.std))
        baselines.append(linear(h.detach(), model.value.weight, model.value.bias)[:, 0])
        patches = glimpse_sensor(x, locations[:, t], eye.size, eye.scales)
        h = core_network(h, glimpse_network(patches, locations[:, t], *weights), *core)
    logits = linear(h, model.classify.weight, model.classify.bias)
    return Episode(logits, locations, torch.stack(log_probs, 1), torch.stack(baselines, 1))


def build(**sizes: int) -> tuple[RAM, Tensor]:
    """A small model with random weights in float64, and its picture."""
    model, (x,) = example(**{"B": 3, "H": 7, "W": 9, "g": 3, "k": 2, "T": 3, "n": 8, "K": 4, **sizes})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.double(), x.double().requires_grad_()


def somewhere(*shape: int) -> Tensor:
    """Locations all over the picture."""
    return 2 * torch.rand(*shape, 2, dtype=torch.float64) - 1


def gradients(loss: Tensor, model: RAM) -> dict[str, Tensor]:
    """Gradient of each parameter, zero where there is none."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize(("channels", "size", "scales"), [(1, 2, 1), (2, 4, 2), (1, 3, 3)])
def test_sensor_equals_a_naive_loop_over_pixels(
    channels: int, size: int, scales: int, measured: Measured
) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, channels, 7, 10, dtype=torch.float64, requires_grad=True)
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0]], dtype=torch.float64)
    location = torch.cat([corners, somewhere(2)])
    naive = glimpse_sensor(x, location, size, scales).unflatten(1, (scales, channels))
    measured.close(look(x, location, size, scales), naive)
    measured.gradients(look(x, location, size, scales), naive, [x])


@pytest.mark.parametrize("sizes", [{"T": 1}, {"T": 3, "k": 1}, {"T": 4, "B": 2, "g": 2}], ids=str)
def test_network_equals_the_naive_equations(sizes: dict[str, int], measured: Measured) -> None:
    model, x = build(**sizes)
    locations = model.train().play(x).locations
    episode, naive = model.play(x, locations), naive_play(model, x, locations)
    trained = [x, *(p for name, p in model.named_parameters() if not name.startswith(("locate", "value")))]
    for found, expected in zip(episode, naive, strict=True):
        measured.close(found, expected)
    measured.gradients(episode.logits, naive.logits, trained)
    measured.gradients(episode.log_prob, naive.log_prob, [*model.locate.parameters()])
    measured.gradients(episode.baseline, naive.baseline, [*model.value.parameters()])


def test_in_eval_mode_it_looks_at_the_mean_of_the_policy(measured: Measured) -> None:
    model, x = build()
    for parameter in model.locate.parameters():
        parameter.data *= 0.1  # so that no mean lies outside the picture
    locations = model.attention(x)
    highest = -math.log(2 * math.pi * model.std**2)  # log-density at the mean
    measured.close(naive_play(model, x, locations).log_prob, torch.full((3, 3), highest, dtype=x.dtype))
    measured.close(model(x), naive_play(model, x, locations).logits)


def test_hybrid_loss_and_its_gradients_equal_the_naive_ones(measured: Measured) -> None:
    model, x = build()
    label = torch.tensor([0, 1, 2])
    locations = model.train().play(x).locations
    loss, naive = (
        hybrid_loss(model.play(x, locations), label),
        naive_play(model, x, locations),
    )
    expected, *_ = naive_ram_loss(naive.logits, label, naive.log_prob, naive.baseline)
    measured.close(loss, expected)
    measured.gradients(loss, expected, [*model.parameters()])


def test_each_part_learns_from_one_term_alone(measured: Measured) -> None:
    model, x = build()
    label = model(x).argmax(1)
    label[0] += 1 if label[0] == 0 else -1  # two rewards of three
    naive = naive_play(model, x, model.train().play(x).locations)
    loss = hybrid_loss(model.play(x, naive.locations), label)
    _, *terms = naive_ram_loss(naive.logits, label, naive.log_prob, naive.baseline)
    entropy, fit, policy = (gradients(term, model) for term in terms)
    for name, gradient in gradients(loss, model).items():
        own = {"locate": policy, "value": fit}.get(name.split(".")[0], entropy)
        assert own[name].any() or name.endswith("h_0")
        measured.close(gradient, own[name])


def test_reinforce_follows_the_exact_gradient_of_the_reward(measured: Measured) -> None:
    model, x = build(B=1, T=1, H=4, W=6, g=3, k=1)
    model.std, x = 0.6, 3 * x.detach()
    nn.init.zeros_(model.glimpse.where.weight)  # what counts is the pixel, not the place within it
    bias = model.locate.bias
    bias.data = torch.tensor([0.5, -0.3], dtype=x.dtype)
    edges = [torch.linspace(-1, 1, side + 1, dtype=x.dtype)[1:] for side in (6, 4)]
    places = [
        F.pad(edge - 1 / len(edge), (0, 1), value=1.0) for edge in edges
    ]  # one in each pixel, one outside
    grid = torch.stack(torch.meshgrid(*places, indexing="ij"), -1).view(35, 1, 2)
    everywhere = x.expand(35, -1, -1, -1)
    model.classify.bias.data -= model.play(everywhere, grid).logits.mean(0)  # so that answers differ
    answers = model.play(everywhere, grid).logits.argmax(1)
    label = (answers.bincount() - 35 / 2).abs().argmin()  # right in about half of the places
    below = [(1 + torch.erf((e - m) / (model.std * 2**0.5))) / 2 for e, m in zip(edges, bias, strict=True)]
    share = [F.pad(F.pad(p, (1, 0)), (0, 1), value=1.0).diff() for p in below]  # of columns and rows in draws
    expected_reward = torch.einsum("i,j,ij->", *share, (answers == label).view(7, 5).to(x))
    (exact,) = torch.autograd.grad(-expected_reward, bias)
    draws, labels = x.expand(2000, -1, -1, -1), label.expand(2000)
    losses = (hybrid_loss(model.train().play(draws), labels) for _ in range(60))
    sampled = torch.stack([torch.autograd.grad(loss, bias)[0] for loss in losses])
    error = (sampled.mean(0) - exact) / (sampled.std(0) / len(sampled) ** 0.5)
    measured.value("expected reward", expected_reward.item(), above=0.2, below=0.8)
    measured.value("exact |gradient|", exact.norm().item(), above=0.05)
    measured.value("max |error| in standard errors", error.abs().max().item(), below=4)


def test_locations_are_drawn_with_the_spread_of_the_policy(measured: Measured) -> None:
    model, x = build(B=1, T=1)
    model.locate.bias.data = torch.tensor([0.1, -0.2], dtype=x.dtype)
    drawn = model.train().play(x.expand(40_000, -1, -1, -1)).locations[:, 0]
    off = (drawn.mean(0) - model.locate.bias) / (model.std / 200)  # in standard errors
    measured.value("standard deviation of a coordinate", drawn.std(0).mean().item(), equals=0.1, within=0.001)
    measured.value("max |mean error| in standard errors", off.abs().max().item(), below=4)


def test_sensor_sees_the_same_when_picture_and_location_move_together(measured: Measured) -> None:
    torch.manual_seed(0)
    x = torch.zeros(1, 1, 20, 30, dtype=torch.float64)
    x[..., 8:12, 10:16] = torch.randn(4, 6, dtype=torch.float64)
    location = torch.tensor([[-0.11, 0.03]], dtype=torch.float64)
    moved = location + torch.tensor([[2 * 4 / 30, 2 * -3 / 20]], dtype=torch.float64)
    measured.close(look(x.roll((-3, 4), (2, 3)), moved, 4, 2), look(x, location, 4, 2), tolerance=0)


def test_sharp_patch_equals_grid_sample_on_whole_pixels(measured: Measured) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 2, 8, 16, dtype=torch.float64)
    pixel = torch.stack([torch.randint(0, 17, (5,)), torch.randint(0, 9, (5,))], 1)
    extent = torch.tensor([16, 8], dtype=torch.float64)
    location = 2 * pixel / extent - 1
    offset = torch.arange(4, dtype=torch.float64) - 2 + 0.5
    square = torch.stack(torch.meshgrid(offset, offset, indexing="xy"), -1)  # (4, 4, 2), x first
    grid = location[:, None, None] + 2 * square / extent
    expected = F.grid_sample(x, grid, align_corners=False)
    measured.close(look(x, location, 4)[:, 0], expected)


def test_a_patch_as_large_as_the_picture_is_the_picture(measured: Measured) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    measured.close(look(x, torch.zeros(2, 2), 6)[:, 0], x, tolerance=0)


def test_pixels_that_were_not_looked_at_have_no_influence(measured: Measured) -> None:
    model, x = build(B=1, H=30, W=40, g=2, T=2)
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x)
    seen = torch.zeros(30, 40, dtype=torch.bool)
    for column, row in model.attention(x)[0].tolist():
        column, row = math.floor((column + 1) * 20), math.floor((row + 1) * 15)
        seen[max(row - 2, 0) : row + 2, max(column - 2, 0) : column + 2] = True
    measured.count(int(gradient[0, 0].bool().sum()), int(seen.sum()))
    noise = torch.randn(30, 40, dtype=x.dtype) * ~seen
    measured.close(model(x + noise), model(x), tolerance=0)


def test_counts_the_parameters_with_the_linear_location_network(measured: Measured) -> None:
    popular = 242_317  # kevinzakka's defaults; location network 256 - 128 - 2
    model = RAM(channels=1, num_classes=10, size=8, scales=1, hidden_dim=256)
    paper = popular - (256 * 128 + 128 + 128 * 2 + 2) + (256 * 2 + 2)
    measured.count(sum(p.numel() for p in model.parameters()), paper)


def test_draws_in_train_mode_and_is_deterministic_in_eval_mode() -> None:
    model, x = build()
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_a_location_outside_the_picture_is_moved_to_its_border() -> None:
    model, x = build(T=1)
    episode = model.play(x, torch.full((3, 1, 2), 1.5, dtype=x.dtype))
    assert episode.locations.unique().tolist() == [1.0]
    assert torch.equal(episode.logits, model.play(x, torch.ones(3, 1, 2, dtype=x.dtype)).logits)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"glimpses": 0}, "glimpses 0"),
        ({"hidden_dim": 7}, "hidden_dim 7 must be even and at least 2"),
        ({"std": 0.0}, "std 0.0 must be above 0"),
        ({"std": math.nan}, "std nan must be above 0"),
    ],
)
def test_refuses_sizes_that_cannot_work(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RAM(1, 10, **wrong)


def test_refuses_a_number_of_glimpses_that_cannot_be_counted() -> None:
    with pytest.raises(TypeError, match="float"):
        RAM(1, 10, glimpses=6.0)


@pytest.mark.parametrize("shape", [(3, 2), (3, 4, 2), (1, 3, 2), (3, 3, 1), (3, 3)])
def test_refuses_locations_of_another_shape(shape: tuple[int, ...]) -> None:
    model, x = build()
    with pytest.raises(ValueError, match=r"given .* must be \(B, T, 2\) = \(3, 3, 2\)"):
        model.play(x, torch.zeros(shape, dtype=x.dtype))


def test_refuses_pictures_and_targets_of_another_shape() -> None:
    model, x = build()
    with pytest.raises(ValueError, match=r"x .* must be"):
        model(x[0])
    with pytest.raises(ValueError, match="location"):
        look(x, torch.zeros(1, 2), 4)
    episode = model.play(x)
    for target in (torch.zeros(3, 4), torch.zeros(1).long(), torch.zeros(3, 1).long()):
        with pytest.raises(ValueError, match="target"):
            hybrid_loss(episode, target)
    with pytest.raises(ValueError, match="target"):
        hybrid_loss(model.play(x[:0]), torch.zeros(0).long())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_it_looks_at_the_pixels_of_the_locations(dtype: torch.dtype) -> None:
    model, _ = build(B=50, g=4, k=1)
    x = torch.arange(900).expand(50, 1, 4, 900).div(100).floor().double()  # stripes of 100 pixels
    locations = torch.stack([torch.linspace(-0.9, 0.9, 150), torch.zeros(150)], 1).view(50, 3, 2)
    expected = model.play(x, locations.double()).logits
    found = model.to(dtype).play(x.to(dtype), locations)
    assert torch.equal(found.locations, locations)
    off = (found.logits.double() - expected).abs().max() / expected.abs().max()
    assert off < 16 * torch.finfo(dtype).eps


def test_locations_in_half_precision_are_those_of_its_location_network() -> None:
    model, x = build(T=1)
    model.locate.bias.data = torch.tensor([0.7, -0.3], dtype=x.dtype)
    model, x = model.bfloat16(), x.bfloat16()
    episode = model.train().play(x)
    assert episode.locations.dtype == episode.log_prob.dtype == torch.float32
    off = (episode.locations[:, 0] - model.locate.bias.float()) / model.std
    expected = -off.square().sum(1) / 2 - math.log(2 * math.pi * model.std**2)
    inside = (episode.locations[:, 0].abs() < 1).all(1)
    torch.testing.assert_close(episode.log_prob[inside, 0], expected[inside])


def test_trains_under_data_parallel() -> None:
    model, (x,) = example(B=6)
    gradients = []
    with data_parallel(model.train()) as parallel:
        for network in (model, parallel):
            model.zero_grad()
            torch.manual_seed(0)
            episode = network(x, full=True)
            assert isinstance(episode, Episode)
            hybrid_loss(episode, torch.arange(6)).backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
    for alone, synchronised in zip(*gradients, strict=True):
        torch.testing.assert_close(synchronised, 2 * alone)
