"""What the network sees of a series, and what its answers mean: all of it causal, so that row t knows y[: t
+ 1] only.

At every cutoff the season is taken out, the level subtracted, and the rest measured in units of the series'
own spread. An answer of zero then means the base forecast: the last level, moving on by half of the
long-run slope (the idea of the Theta method, Assimakopoulos and Nikolopoulos 2000), with the season put
back. The network learns what is to be added to that, which is of the same size for every series, whatever
its units.

Shapes: B series, S steps of history, m the season length, W the window, H the horizon. All float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LEVEL_WEIGHT", "Scaled", "num_features", "scale", "seasonal_indices", "window_size"]

LEVEL_WEIGHT = 0.4  # of the newest value in the level, falling geometrically into the past
SEASON_DECAY = 0.8  # weight of a season against the one after it
SLOPE_SEASONS, SLOPE_STEPS = (
    10,
    128,
)  # the long-run slope looks back this many seasons, and at least these steps
SMALLEST_SPREAD = 1e-3  # at most, and this share of the usual error
SMALLEST_SHARE, SMALLEST_MOVEMENT = 0.1, 1e-9  # what moves less than this is constant, apart from rounding
PRIOR_STEPS = 1.0  # the typical spread counts as much as this many observed steps ...
# ... unless the series plainly moves less: by so many times, and more where few steps were seen
CONTRADICTION, FEW_STEPS = 10.0, 4.0
SMALLEST_LOGARITHM = -2.0  # of the spread, as the network sees it
WINDOW_BOUND, OTHER_BOUND = 8.0, 6.0  # a wild value must not throw the network out of what it has seen
NUM_SUMMARIES = 6


@dataclass(frozen=True, eq=False)
class Scaled:
    """inputs: (B, S, W + 6) what the network sees; base: (B, S, H) forecast that an answer of zero means;
    spread: (B, S).
    """

    inputs: Tensor
    base: Tensor
    spread: Tensor


def window_size(season_length: int) -> int:
    """How many of the latest values the network sees at once: a season, within reason."""
    return min(max(season_length, 12), 24)


def num_features(season_length: int) -> int:
    """Width of `Scaled.inputs`."""
    return window_size(season_length) + NUM_SUMMARIES


def scale(
    filled: Tensor, observed: Tensor, linear: Tensor, season_length: int, horizon: int, typical_step: float
) -> Scaled:
    """Inputs and base forecasts at every step.

    filled (B, S): learned units, without gaps; observed (B, S): bool, False where a value was filled in;
    linear (B,): bool, whether the learned units are not logarithms; typical_step: the spread to assume
    before any is seen, in logarithms.
    """
    steps = torch.arange(filled.shape[1])
    seasons = seasonal_indices(filled, observed, season_length)
    window, real = adjusted_window(filled, seasons)
    level = window @ level_weights(window.shape[-1])
    prior = torch.full_like(filled[:, 0], typical_step).masked_fill(linear, 1.0)
    spread = spread_of(window, real, level, prior)
    slope = long_slope(window[..., -1], max(SLOPE_SEASONS * season_length, SLOPE_STEPS))
    ahead = torch.arange(1, horizon + 1)
    future_season = at_phase(seasons, (steps[:, None] + ahead) % seasons.shape[-1])
    drift = 0.5 * slope[..., None] * (ahead - 1 + 1 / LEVEL_WEIGHT)
    summaries = [
        (12 * slope / spread).clamp(-OTHER_BOUND, OTHER_BOUND),
        (12 * recent_slope(window) / spread).clamp(-OTHER_BOUND, OTHER_BOUND),
        torch.where(
            linear[:, None], spread.log() / 2, ((spread.log() + 3) / 2).clamp(min=SMALLEST_LOGARITHM)
        ),
        (seasons.abs().mean(-1) / spread).clamp(max=OTHER_BOUND),
        torch.log((steps + 1.0) / 60).to(filled).expand_as(spread),
        (~observed).to(filled),
    ]
    shape = ((window - level[..., None]) / spread[..., None]).clamp(-WINDOW_BOUND, WINDOW_BOUND)
    inputs = torch.cat([shape, torch.stack(summaries, dim=-1)], dim=-1)
    return Scaled(inputs, level[..., None] + future_season + drift, spread)


def seasonal_indices(values: Tensor, observed: Tensor, season_length: int) -> Tensor:
    """How far each phase of the season lies from the level, as known at every step: (B, S) -> (B, S, m),
    phase = step % m.

    Classical decomposition: a value less the moving average of one season around it, averaged over the
    seasons (recent ones count more), then shrunk towards zero by how well the seasons agree (James and
    Stein 1961), so that noise is not taken for a season. Zero until every phase was seen once around a full
    moving average.
    """
    batch, steps = values.shape
    weights = moving_average_weights(season_length)
    reach = len(weights)
    if season_length < 2 or steps < reach:
        return values.new_zeros(batch, steps, max(season_length, 1))
    half = reach // 2
    count = steps - reach + 1
    deviation = values[:, half : half + count] - values.unfold(1, reach, 1) @ weights
    known = observed[:, half : half + count].to(values)
    deviation = deviation * known
    cycles = -(-count // season_length)
    moments = torch.stack([known, deviation, deviation**2])  # (3, B, count)
    moments = torch.nn.functional.pad(moments, (0, cycles * season_length - count))
    moments = moments.view(3, batch, cycles, season_length)
    cycle = torch.arange(cycles, dtype=torch.float64)
    age = cycle[:, None] - cycle
    decay = torch.where(age >= 0, SEASON_DECAY ** age.clamp(min=0), 0.0)
    moments = torch.nn.functional.pad(decay @ moments, (0, 0, 1, 0))  # row 0: nothing known yet
    slot = torch.arange(season_length)
    latest = torch.arange(steps)[:, None] - (reach - 1) - slot  # steps since the slot of cycle 0 was known
    row = (torch.div(latest, season_length, rounding_mode="floor") + 1).clamp(min=0)
    indices = shrunk_means(*moments[:, :, row, slot])
    return indices.roll(half, dims=-1)  # slot 0 is phase `half`


def shrunk_means(count: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """Means of m groups, centred, and drawn to zero unless they differ by more than their noise explains.
    All (..., m).
    """
    groups = count.shape[-1]
    mean = total / count.clamp(min=1e-9)
    mean = mean - mean.mean(-1, keepdim=True)
    number = count.sum(-1)
    within = (squares - total**2 / count.clamp(min=1e-9)).sum(-1).clamp(min=0)
    # With one or two seasons the noise within a phase is hardly known: a season of the whole variance is
    # added.
    whole = squares.sum(-1) / number.clamp(min=1e-9)
    noise = (within + groups * whole) / ((number - groups).clamp(min=0) + groups)
    between = (mean**2).sum(-1) / (groups - 1)
    share = (1 - noise / (between * count.mean(-1)).clamp(min=1e-30)).clamp(min=0)
    complete = (count > 0).all(-1)
    return mean * (share * complete)[..., None]


def moving_average_weights(season_length: int) -> Tensor:
    """Centred weights over exactly one season: m of them, or m + 1 with halved ends where m is even."""
    if season_length % 2:
        return torch.full((season_length,), 1.0 / season_length, dtype=torch.float64)
    weights = torch.full((season_length + 1,), 1.0 / season_length, dtype=torch.float64)
    weights[[0, -1]] /= 2
    return weights


def adjusted_window(values: Tensor, seasons: Tensor) -> tuple[Tensor, Tensor]:
    """The last W values, oldest first, less the season as known at the end of the window: (B, S, W), and
    which of them exist (S, W).

    What lies before the first observation repeats it.
    """
    steps, season_length = seasons.shape[1:]
    size = window_size(season_length)
    position = torch.arange(steps)[:, None] - torch.arange(size - 1, -1, -1)
    padded = torch.nn.functional.pad(values[:, None], (size - 1, 0), mode="replicate")[:, 0]
    window = padded.unfold(1, size, 1) - at_phase(seasons, position.clamp(min=0) % season_length)
    return window, position >= 0


def at_phase(seasons: Tensor, phase: Tensor) -> Tensor:
    """seasons (B, S, m) looked up at phase (S, K): (B, S, K)."""
    return torch.gather(seasons, 2, phase.expand(len(seasons), -1, -1))


def level_weights(size: int) -> Tensor:
    """Exponential smoothing's weights over a window, oldest first, adding up to one: (W,)."""
    weights = (1 - LEVEL_WEIGHT) ** torch.arange(size - 1, -1, -1, dtype=torch.float64)
    return weights / weights.sum()


def spread_of(window: Tensor, real: Tensor, level: Tensor, prior: Tensor) -> Tensor:
    """The usual size of an error of the base forecast, (B, S): half from the steps in the window, half
    from all errors of the level so far.
    """
    changes = window.diff(dim=-1).abs() * real[:, :-1]
    recent, number = changes.sum(-1), real[:, :-1].sum(-1)
    errors = (window[:, 1:, -1] - level[:, :-1]).abs()
    errors = torch.nn.functional.pad(errors, (1, 0)).cumsum(1)
    seen = torch.arange(window.shape[1]).to(window)
    guess = prior[:, None]
    spread = (with_prior(recent, number, guess) + with_prior(errors, seen, guess)) / 2
    movement = (recent / number.clamp(min=1) + errors / seen.clamp(min=1)) / 2
    smallest = (SMALLEST_SHARE * movement).clamp(SMALLEST_MOVEMENT, SMALLEST_SPREAD)
    return spread + smallest.masked_fill(movement < SMALLEST_MOVEMENT, SMALLEST_SPREAD)


def with_prior(total: Tensor, number: Tensor, prior: Tensor) -> Tensor:
    """Mean of `number` observed sizes that add up to `total`, together with a prior size.

    The prior is the movement of other series. It bridges the first steps, and weighs less, by the square, the
    more it exceeds what was seen: else a series that moves a thousandth of the others would never be seen to.
    A series that has not moved at all tells nothing, and keeps the prior.
    """
    mean = total / number.clamp(min=1)
    enough = CONTRADICTION * (1 + FEW_STEPS / number.clamp(min=1))
    weight = (enough * mean / prior.clamp(min=1e-300)).clamp(max=1.0) ** 2
    weight = PRIOR_STEPS * weight.masked_fill(mean < SMALLEST_MOVEMENT, 1.0)
    return (total + weight * prior) / (number + weight)


def recent_slope(window: Tensor) -> Tensor:
    """Least-squares slope over the window, (B, S, W) -> (B, S)."""
    position = torch.arange(window.shape[-1]).to(window)
    position = position - position.mean()
    return window @ (position / (position**2).sum())


def long_slope(values: Tensor, reach: int) -> Tensor:
    """Least-squares slope over the last `reach` steps, or all there are, at every step: (B, S) -> (B, S); 0
    for the first five.
    """
    steps = torch.arange(values.shape[1]).to(values)
    centred = values - values[:, :1]  # keeps the running sums small
    sums = torch.stack([centred, centred * steps]).cumsum(-1)
    sums = sums - torch.nn.functional.pad(sums, (reach, 0))[..., : values.shape[1]]
    number = (steps + 1).clamp(max=reach)
    middle = steps - (number - 1) / 2
    squares = number * (number**2 - 1) / 12
    slope = (sums[1] - middle * sums[0]) / squares.clamp(min=1.0)
    return torch.where(steps < 5, 0.0, slope)
