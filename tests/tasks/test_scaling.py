"""Scaling: against a plain loop, and blind to what comes after the cutoff."""

import numpy as np
import pytest
import torch

from cellwise.tasks.forecasting.scaling import (
    SEASON_DECAY,
    adjusted_window,
    level_weights,
    long_slope,
    num_features,
    scale,
    seasonal_indices,
    window_size,
)

SEASONS = [1, 2, 4, 7, 12]


def some_values(steps: int, season_length: int, seed: int = 0, noise: float = 0.3) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    time = np.arange(steps)
    season = np.sin(2 * np.pi * time / max(season_length, 2))
    walk = generator.normal(size=(3, steps)).cumsum(1) * 0.1
    return torch.from_numpy(5 + season + walk + noise * generator.normal(size=(3, steps)))


def scaled(values, season_length, observed=None, horizon=5, linear=False):
    observed = torch.ones(values.shape, dtype=torch.bool) if observed is None else observed
    kinds = torch.full((len(values),), linear)
    return scale(values, observed, kinds, season_length, horizon, 0.1)


@pytest.mark.parametrize("season_length", SEASONS)
def test_every_row_knows_only_what_came_before(season_length):
    values = some_values(60, season_length)
    whole = scaled(values, season_length)
    for cutoff in (0, 1, 11, 12, 13, 25, 40, 58):
        changed = values.clone()
        changed[:, cutoff + 1 :] = 1e3 * torch.randn(changed[:, cutoff + 1 :].shape, dtype=torch.float64)
        for after in (scaled(changed, season_length), scaled(values[:, : cutoff + 1], season_length)):
            for name in ("inputs", "base", "spread"):
                torch.testing.assert_close(
                    getattr(after, name)[:, cutoff], getattr(whole, name)[:, cutoff], rtol=1e-9, atol=1e-9
                )


def indices_by_loops(y: np.ndarray, observed: np.ndarray, m: int) -> np.ndarray:
    """The definition, once more, for one series and its last step."""
    steps, half = len(y), m // 2
    groups: list[list[tuple[float, float]]] = [[] for _ in range(m)]  # (age in seasons, deviation)
    for t in range(half, steps - half):
        around = y[t - half : t + half + 1].copy()
        weights = np.full(len(around), 1.0 / m)
        if m % 2 == 0:
            weights[[0, -1]] /= 2
        if observed[t]:
            groups[t % m].append((t, y[t] - around @ weights))
    latest = {p: [t for t in range(half, steps - half) if t % m == p] for p in range(m)}
    if not all(latest.values()):
        return np.zeros(m)
    count, total, squares = np.zeros(m), np.zeros(m), np.zeros(m)
    for p, group in enumerate(groups):
        for t, deviation in group:
            weight = SEASON_DECAY ** ((latest[p][-1] - t) // m)
            count[p] += weight
            total[p] += weight * deviation
            squares[p] += weight * deviation**2
    if not count.all():
        return np.zeros(m)
    mean = total / count
    mean -= mean.mean()
    within = (squares - total**2 / count).sum()
    noise = (within + m * squares.sum() / count.sum()) / (max(count.sum() - m, 0.0) + m)
    between = (mean**2).sum() / (m - 1)
    return mean * max(0.0, 1 - noise / (between * count.mean()))


@pytest.mark.parametrize("season_length", [2, 4, 7, 12])
@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_seasonal_indices_equal_their_definition(season_length, noise):
    values = some_values(61, season_length, noise=noise)
    observed = torch.from_numpy(np.random.default_rng(1).random(values.shape) > 0.1)
    found = seasonal_indices(values, observed, season_length)
    for t in range(61):
        for row in range(3):
            wanted = indices_by_loops(
                values[row, : t + 1].numpy(), observed[row, : t + 1].numpy(), season_length
            )
            np.testing.assert_allclose(found[row, t].numpy(), wanted, atol=1e-9)


def test_a_clear_season_is_found_and_noise_is_not_taken_for_one():
    pattern = torch.tensor([3.0, -1.0, 0.0, -2.0], dtype=torch.float64)
    clear = pattern.repeat(12)[None] + 100
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 48)))
    observed = torch.ones(200, 48, dtype=torch.bool)
    torch.testing.assert_close(seasonal_indices(clear, observed[:1], 4)[0, -1], pattern, rtol=0.1, atol=0.1)
    unshrunk = noise.view(200, 12, 4).mean(1)
    assert seasonal_indices(noise, observed, 4)[:, -1].abs().mean() < 0.6 * unshrunk.abs().mean()


def test_long_slope_is_least_squares_over_its_reach():
    values = some_values(50, 4)
    found = long_slope(values, 20)
    for t in range(5, 50):
        wanted = [
            np.polyfit(np.arange(min(t + 1, 20)), row[max(0, t - 19) : t + 1], 1)[0] for row in values.numpy()
        ]
        np.testing.assert_allclose(found[:, t].numpy(), wanted, rtol=1e-8, atol=1e-10)
    assert (found[:, :5] == 0).all()


@pytest.mark.parametrize("linear", [True, False])
def test_moving_the_series_moves_the_base_and_nothing_else(linear):
    values = some_values(40, 12)
    plain, moved = scaled(values, 12, linear=linear), scaled(values + 70, 12, linear=linear)
    torch.testing.assert_close(moved.base, plain.base + 70)
    torch.testing.assert_close(moved.spread, plain.spread)
    torch.testing.assert_close(moved.inputs, plain.inputs)


def test_the_base_carries_the_season_and_half_of_the_trend():
    time = torch.arange(120, dtype=torch.float64)
    season = torch.tensor([2.0, 0.0, -3.0, 1.0], dtype=torch.float64)
    base = scaled((0.5 * time + season.repeat(30))[None], 4, horizon=8).base[0, -1]
    yearly = base[4:] - base[:4]
    torch.testing.assert_close(
        yearly, torch.full((4,), 0.5 * 0.5 * 4, dtype=torch.float64), rtol=0.02, atol=0
    )
    torch.testing.assert_close(base.view(2, 4)[0].diff(), season.diff() + 0.25, rtol=0.05, atol=0.1)


def test_spread_starts_at_the_prior_and_settles_at_the_usual_error():
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 100)))
    spread = scaled(noise, 1, linear=True).spread
    torch.testing.assert_close(spread[:, 0], torch.full((50,), 1.001, dtype=torch.float64))
    assert 0.8 < spread[:, -1].mean() < 1.3
    assert (scaled(torch.full((1, 50), 3.0, dtype=torch.float64), 1).spread[0].diff() < 0).all()


@pytest.mark.parametrize("season_length", [1, 5, 12, 24, 52, 336])
def test_widths(season_length):
    values = some_values(30, season_length)
    assert scaled(values, season_length).inputs.shape == (3, 30, num_features(season_length))
    assert 12 <= window_size(season_length) <= 24


def lifted(share: float, steps: int = 200) -> torch.Tensor:
    """Logarithms of ordinary series, then moving by this share of what they did, at another level."""
    time = np.arange(steps)
    generator = np.random.default_rng(5)
    season = 0.1 * np.sin(2 * np.pi * time / 7) + 0.03 * generator.normal(size=(3, steps))
    return 7 * (share < 1) + share * torch.from_numpy(season)


@pytest.mark.parametrize("share", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_spread_follows_the_movement_not_the_level(share):
    ordinary, tight = scaled(lifted(1.0), 7), scaled(lifted(share), 7)
    ratio = tight.spread / ordinary.spread / share
    assert ratio[:, -1].max() < 1.1
    assert ratio[:, 60:].max() < 1.3
    assert ratio[:, 60:].min() > 0.7
    shape = slice(0, window_size(7))
    torch.testing.assert_close(tight.inputs[:, -1, shape], ordinary.inputs[:, -1, shape], rtol=0.1, atol=0.05)
    assert tight.inputs.abs().max() <= 8


def test_ordinary_series_have_the_spread_that_they_had():
    """The prior is doubted only where a series moves far less than it: else it counts as one step."""
    values = some_values(100, 1, noise=0.05)
    changes = adjusted_window(values, torch.zeros(3, 100, 1, dtype=torch.float64))[0]
    level = changes @ level_weights(changes.shape[-1])
    real = (torch.arange(100)[:, None] - torch.arange(11, -1, -1) >= 0)[:, :-1]
    recent = (changes.diff(dim=-1).abs() * real).sum(-1)
    errors = torch.nn.functional.pad((changes[:, 1:, -1] - level[:, :-1]).abs(), (1, 0)).cumsum(1)
    wanted = ((recent + 0.1) / (real.sum(-1) + 1) + (errors + 0.1) / (torch.arange(100) + 1)) / 2 + 1e-3
    torch.testing.assert_close(scaled(values, 1).spread, wanted, rtol=1e-12, atol=0)


def test_a_constant_keeps_the_prior_also_with_the_noise_of_rounding():
    constant = torch.full((1, 200), 0.1 + 0.2, dtype=torch.float64)
    noisy = constant * (1 + 1e-16 * torch.randn(1, 200, dtype=torch.float64))
    for values in (constant, noisy):
        spread = scaled(values, 7).spread
        assert 1e-3 < spread[0, -1] < 1e-2


def test_a_price_that_seldom_moves_keeps_a_spread():
    """Long without a change, then one of a tenth: the surprise stays within what the network sees."""
    values = torch.log(torch.where(torch.arange(120) < 100, 5.0, 5.5).double())[None]
    made = scaled(values, 7)
    assert (made.spread > 1e-3).all()
    assert (values.diff().abs() / made.spread[:, :-1]).max() < 60
