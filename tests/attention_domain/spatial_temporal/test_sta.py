"""Proofs of STA."""

import pytest
import torch
from torch import Tensor

from snippets.attention_domain.spatial_temporal.sta import STA, inter_frame_regularisation, sample_frames
from tests.measure import Measured
from tests.resnet import parameters


def sta_energy(f: Tensor) -> Tensor:
    """g_n(h, w) = sum_d f_n(d,h,w)^2 / sum_{h,w} sum_d f_n^2; f (B, N, D, H, W) -> (B, N, H, W), each map
    sums to 1."""
    energy = (f**2).sum(dim=2)
    return energy / energy.sum(dim=(2, 3), keepdim=True)


def sta_scores(g: Tensor, parts: int) -> Tensor:
    """S(n, k) = s_nk / sum_n s_nk, s_nk = sum of g_n over horizontal stripe k (H / parts rows); (B, N, K)."""
    rows = g.shape[2] // parts
    assert rows * parts == g.shape[2]
    s = torch.stack([g[:, :, k * rows : (k + 1) * rows].sum(dim=(2, 3)) for k in range(parts)], dim=2)
    return s / s.sum(dim=1, keepdim=True)


def sta_regulariser(g: Tensor, i: int, j: int) -> Tensor:
    """Reg = ||g_i - g_j||_F for two frames, per sample (B,)."""
    return torch.sqrt(((g[:, i] - g[:, j]) ** 2).sum(dim=(1, 2)))


def naive_sta(f: Tensor, parts: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """F1: stripe k of frame argmax_n S(n, k); F2: stripe k of sum_n S(n, k) f_n; concat on channels, GAP.
    Returns (g, S, F1 (B, D, H, W), F2 (B, D, H, W), descriptor (B, 2D))."""
    g = sta_energy(f)
    s = sta_scores(g, parts)
    batch, frames, _, height, width = f.shape
    rows = height // parts
    hard, soft = [], []
    for b in range(batch):
        hard_parts, soft_parts = [], []
        for k in range(parts):
            stripes = [f[b, n, :, k * rows : (k + 1) * rows] for n in range(frames)]
            best = max(range(frames), key=lambda n: float(s[b, n, k].detach()))
            hard_parts.append(stripes[best])
            soft_parts.append(sum(s[b, n, k] * stripes[n] for n in range(frames)))
        hard.append(torch.cat(hard_parts, dim=1))
        soft.append(torch.cat(soft_parts, dim=1))
    f1, f2 = torch.stack(hard), torch.stack(soft)
    return g, s, f1, f2, torch.cat([f1, f2], dim=1).sum(dim=(2, 3)) / (height * width)


def clip(batch: int = 2, frames: int = 5) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, frames, 8, 5, dtype=torch.float64)


@pytest.mark.parametrize(("frames", "regions"), [(5, 4), (4, 2), (3, 1), (1, 8)])
def test_equals_naive_reference(measured: Measured, frames: int, regions: int) -> None:
    sta, x = STA(regions), clip(frames=frames).requires_grad_()
    maps, scores, _, _, descriptor = naive_sta(x.transpose(1, 2), regions)
    measured.close(sta.energy(x), maps)
    measured.close(sta.attention(x), scores)
    measured.close(sta(x), descriptor)
    measured.gradients(sta(x), descriptor, of=(x,))


def test_scores_of_a_stripe_sum_to_one_over_the_frames(measured: Measured) -> None:
    scores = STA(4).attention(clip())
    measured.value("max |Σ − 1|", (scores.sum(dim=1) - 1).abs().max().item(), below=1e-12)
    measured.value("Σ over stripes", scores.sum(dim=2).min().item(), below=0.8)


def test_order_of_frames_does_not_matter(measured: Measured) -> None:
    sta, x, order = STA(4), clip(), torch.tensor([3, 0, 4, 1, 2])
    measured.close(sta.attention(x[:, :, order]), sta.attention(x)[:, order])
    measured.close(sta(x[:, :, order]), sta(x))


def test_brightness_of_a_frame_does_not_change_the_scores(measured: Measured) -> None:
    gain = torch.tensor([0.1, 1, 2, 5, 30], dtype=torch.float64)[:, None, None]
    measured.close(STA(4).attention(gain * clip()), STA(4).attention(clip()))


def test_equal_frames_and_a_single_region_give_the_mean(measured: Measured) -> None:
    x = clip()
    equal = x[:, :, :1].expand_as(x)
    measured.close(STA(4).attention(equal), torch.full((2, 5, 4), 0.2, dtype=torch.float64))
    measured.close(STA(1).attention(x), torch.full((2, 5, 1), 0.2, dtype=torch.float64))
    measured.close(STA(1)(x)[:, 3:], x.mean(dim=(2, 3, 4)))


def test_single_frame_gives_its_mean_twice(measured: Measured) -> None:
    x = clip(frames=1)
    measured.close(STA(4)(x), x.mean(dim=(2, 3, 4)).repeat(1, 2))


def test_blank_stripe_gets_nothing_and_a_loud_one_everything(measured: Measured) -> None:
    x = clip()
    x[:, :, 2, 4:6] = 0
    measured.close(STA(4).attention(x)[:, 2, 2], torch.zeros(2, dtype=torch.float64), tolerance=0)
    x[:, :, 2, 4:6] = 50  # an occluder that the features respond to
    scores = STA(4).attention(x)
    measured.value("score of a loud occluder", scores[:, 2, 2].min().item(), above=0.45)
    assert (scores.argmax(dim=1)[:, 2] == 2).all()


def test_best_branch_reads_one_frame_per_stripe(measured: Measured) -> None:
    x = clip(batch=1)
    jacobian = torch.autograd.functional.jacobian(STA(4), x)[0, :, 0]  # (2 C, C, T, H, W)
    stripes = jacobian.abs().sum((1, 4)).unflatten(-1, (4, 2)).sum(-1)  # (2 C, T, K)
    measured.count(int(stripes[:3].sum(0).count_nonzero()), 4)
    measured.count(int(stripes[3:].sum(0).count_nonzero()), 5 * 4)


def test_regulariser_is_the_distance_of_two_maps(measured: Measured) -> None:
    maps = STA(4).energy(clip(frames=2)).requires_grad_()
    expected = sta_regulariser(maps, 0, 1).mean()
    measured.close(inter_frame_regularisation(maps), expected)
    measured.gradients(inter_frame_regularisation(maps), expected, of=(maps,))


def test_regulariser_draws_every_pair_of_frames(measured: Measured) -> None:
    torch.manual_seed(0)
    maps = STA(4).energy(clip(batch=1))
    distances = {round(inter_frame_regularisation(maps).item(), 9) for _ in range(200)}
    measured.count(len(distances), 10)
    assert distances == {round(sta_regulariser(maps, i, j).item(), 9) for i in range(5) for j in range(i)}


def test_sampling_takes_one_frame_from_each_part(measured: Measured) -> None:
    torch.manual_seed(0)
    drawn = torch.stack([sample_frames(20) for _ in range(400)])
    assert (drawn // 5 == torch.arange(4)).all()
    measured.count(len(drawn.unique()), 20)
    assert sample_frames(2).tolist() == [0, 0, 1, 1]


def test_has_no_parameters(measured: Measured) -> None:
    measured.count(parameters(STA(4)), 0)
    assert not STA(4).state_dict()


def test_frame_without_response_gets_nothing() -> None:
    x = clip()
    x[:, :, 1] = 0
    x.requires_grad_()
    scores = STA(4).attention(x)
    assert not scores[:, 1].any()
    STA(4)(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert not STA(4)(torch.zeros(1, 3, 5, 8, 5)).any()


def test_stripes_share_rows_where_k_does_not_divide_h() -> None:
    x = torch.zeros(1, 1, 1, 3, 1)
    x[0, 0, 0, 1] = 1
    assert STA(2)._stripes(x).tolist() == [[[[0.5, 0.5]]]]


@pytest.mark.parametrize("scale", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_scores_and_descriptor(dtype: torch.dtype, scale: float) -> None:
    """Features of the size in the paper, whose energies summed over a map leave float16."""
    torch.manual_seed(0)
    x = (scale * torch.randn(1, 2048, 4, 16, 8).relu()).to(dtype)
    sta = STA()
    for low, exact in ((sta.attention(x), sta.attention(x.double())), (sta(x), sta(x.double()))):
        assert low.dtype == dtype
        assert (low - exact).abs().max() <= torch.finfo(dtype).eps * exact.abs().max()
    assert (sta.energy(x).sum((2, 3)) - 1).abs().max() < 1e-5


def test_rounding_does_not_choose_another_frame() -> None:
    """Scores that are equal in float16 and not in float32."""
    x = torch.ones(1, 1, 2, 2, 1, dtype=torch.float16)
    x[0, 0, 1, 1] = 0.9995
    assert len(STA(2).attention(x)[0, :, 0].unique()) == 1
    assert STA(2)._scores(x)[0, :, 0].argmax() == 1
    torch.testing.assert_close(STA(2)(x), STA(2)(x.double()).half(), rtol=0, atol=0)


def test_an_empty_batch_gives_an_empty_result() -> None:
    assert STA(4)(clip()[:0]).shape == (0, 6)
    assert STA(4).attention(clip()[:0]).shape == (0, 5, 4)


def test_refuses_impossible_arguments() -> None:
    with pytest.raises(ValueError, match="regions 0"):
        STA(0)
    with pytest.raises(TypeError, match="integer"):
        STA(2.0)  # type: ignore[arg-type]
    for length, frames in ((0, 4), (100, 0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            sample_frames(length, frames)
    for fraction in (10.7, float("nan")):  # the last numbers would be fractions
        with pytest.raises(TypeError, match="integer"):
            sample_frames(fraction)  # type: ignore[arg-type]


def test_refuses_other_inputs() -> None:
    with pytest.raises(ValueError, match=r"must be \(B, C, T, H, W\)"):
        STA()(clip()[0])
    maps = STA().energy(clip())
    for other in (maps[0], maps[:, :1], maps[:0]):
        with pytest.raises(ValueError, match="with B > 0 and T > 1"):
            inter_frame_regularisation(other)
