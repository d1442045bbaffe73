"""Batches: every cutoff once a round, with what came after it, and the same for the same seed."""

from itertools import islice

import numpy as np
import pytest
import torch
from panels import panel_of

from cellwise.tasks.forecasting.covariates import Covariates
from cellwise.tasks.forecasting.stretches import CONTEXT, mixup, scale_augment
from cellwise.tasks.forecasting.windows import BATCHES, WindowSampler

HORIZON = 3


def windows_of(panel, batch_size=8, seed=0, augment=False):
    return WindowSampler(
        panel,
        horizon=HORIZON,
        covariates=Covariates.measure(panel),
        typical_step=0.1,
        batch_size=batch_size,
        seed=seed,
        augment=augment,
    )


def all_values(batch):
    """Every tensor of a batch in one."""
    return torch.cat([part.double().nan_to_num().flatten() for part in vars(batch).values()])


def numbered(*lengths, **options):
    """Series i holds 1000 i + t, shifted below zero once, so that learned units are linear with a step near
    one."""
    return panel_of([np.r_[-1.0, 1000.0 * i + np.arange(1, n)] for i, n in enumerate(lengths)], **options)


def cutoffs_of(windows, batch):
    """Series and time of every row and step of the context, found by the values themselves."""
    values = {}
    for index, one in enumerate(windows.prepared):
        values |= {round(v, 6): (index, t) for t, v in enumerate(one.series.values.tolist())}
    found = []
    for row in range(len(batch.start)):
        for step in range(int(batch.length[row])):
            at = batch.filled[row, batch.start[row] + step].item()
            found.append((row, step, *values[round(at, 6)]))
    return found


@pytest.mark.parametrize("lengths", [(20,), (CONTEXT, CONTEXT + 1, 6), (500, 30, 129), (1000,)])
def test_every_cutoff_comes_once_in_a_round_with_its_own_future(lengths):
    windows = windows_of(numbered(*lengths))
    seen: dict[tuple[int, int], int] = {}
    for batch in windows.epoch(1):
        for row, step, series, time in cutoffs_of(windows, batch):
            seen[series, time] = seen.get((series, time), 0) + 1
            after = windows.prepared[series].series.values[time + 1 : time + 1 + HORIZON]
            future = batch.future[row, step].numpy()
            is_warmup = time < min(4, lengths[series] // 3)
            np.testing.assert_allclose(
                future[: len(after)], np.full(len(after), np.nan) if is_warmup else after
            )
            assert np.isnan(future[len(after) :]).all()
    assert seen == {(i, t): windows.rounds for i, n in enumerate(lengths) for t in range(n)}


def test_neighbouring_cutoffs_take_turns():
    starts = {batch.cutoffs[0].item() for batch in windows_of(numbered(40)).epoch(1)}
    assert starts == {0, 1}
    assert all((batch.cutoffs.diff() == 2).all() for batch in windows_of(numbered(40)).epoch(1))


def test_padding_has_no_future():
    batch = next(windows_of(numbered(40, 10)).epoch(1))
    short = int(batch.length.argmin())
    assert batch.future[short, batch.length[short] :].isnan().all()
    assert batch.filled.isfinite().all()


@pytest.mark.parametrize("augment", [False, True])
def test_an_epoch_is_a_function_of_seed_and_number(augment):
    panel = numbered(700, 40, 90)
    first, again = windows_of(panel, augment=augment), windows_of(panel, augment=augment)
    list(again.epoch(1))  # what was walked before does not matter
    for one, other in zip(first.epoch(5), again.epoch(5), strict=True):
        assert torch.equal(all_values(one), all_values(other))
    for seed, number in [(0, 2), (1, 1)]:
        different = [
            all_values(batch) for batch in windows_of(panel, seed=seed, augment=augment).epoch(number)
        ]
        same = [all_values(batch) for batch in first.epoch(1)]
        assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(same, different, strict=True))


@pytest.mark.parametrize(
    ("lengths", "batch_size"), [((10,), 64), ((500, 300), 2), ((129,) * 40, 16), ((7,) * 2000, 64)]
)
def test_length_is_the_number_of_batches(lengths, batch_size):
    windows = windows_of(numbered(*lengths), batch_size)
    assert len(list(windows.epoch(3))) == len(windows) > BATCHES / 2


def test_history_reaches_back_before_the_context():
    windows = windows_of(numbered(1000, season_length=12))
    for batch in windows.epoch(1):
        for row, step, _, time in cutoffs_of(windows, batch):
            assert step > 0 or batch.start[row] == min(time, 12 * 12)


def test_covariates_are_those_of_the_steps():
    lengths = (20, 140)
    known = [np.arange(n + 2, dtype=float)[:, None] for n in lengths]
    past = [10 * np.arange(n, dtype=float)[:, None] for n in lengths]
    panel = numbered(*lengths, known=known, past=past)
    windows, covariates = windows_of(panel), Covariates.measure(panel)
    for batch in islice(windows.epoch(1), 4):
        for row, step, series, time in cutoffs_of(windows, batch):
            wanted = covariates.known(known[series][time : time + 1 + HORIZON])[:, 0]
            np.testing.assert_allclose(batch.known[row, step : step + len(wanted), 0], wanted, atol=1e-5)
            np.testing.assert_allclose(
                batch.past[row, step], covariates.past(past[series][time : time + 1])[0], atol=1e-5
            )


def test_missing_values_are_no_targets_and_marked_unobserved():
    y = np.r_[-1.0, np.arange(1.0, 30.0)]
    y[10:13] = np.nan
    batch = next(windows_of(panel_of([y], season_length=1)).epoch(1))
    assert (~batch.observed[0]).nonzero()[:, 0].tolist() == [10, 11, 12]
    assert batch.future[0, 9].isnan().all()
    assert batch.future[0, 10].isnan().tolist() == [True, True, False]
    assert batch.filled[0, 10:13].tolist() == [batch.filled[0, 9]] * 3


def test_series_without_two_observations_are_left_out():
    nothing = np.full(10, np.nan)
    one = np.r_[nothing, 5.0]
    windows = windows_of(panel_of([nothing, one, np.arange(9.0)]))
    assert len(windows.prepared) == 1
    assert len(windows_of(panel_of([nothing]))) == 0


def test_past_covariates_repeat_their_last_known_value():
    covariates = Covariates((), (), (1.0,), (2.0,))
    np.testing.assert_allclose(covariates.past(np.array([[np.nan], [3.0], [np.nan]])), [[0.0], [1.0], [1.0]])


def test_covariates_that_never_vary_are_only_centred():
    panel = numbered(5, known=[np.full((5, 1), 7.0)])
    measured = Covariates.measure(panel)
    assert (measured.known_center, measured.known_size) == ((7.0,), (1.0,))


def test_late_stretches_know_nothing_of_what_lies_before():
    """A stretch that begins late is shorter; its history is cut, not its horizon."""
    batches = list(windows_of(numbered(100), augment=True).epoch(1))
    lengths = {batch.length[0].item() for batch in batches}
    assert 100 in lengths
    assert len(lengths) > 5
    assert min(lengths) >= 50
    assert all(batch.future[0, batch.length[0] - 2, 0].isfinite() for batch in batches)


def test_mixing_and_amplifying():
    one, other = (
        windows_of(numbered(30)).prepared[0].cut(0, 5, 20, HORIZON, warmup_steps=9) for _ in range(2)
    )
    other = scale_augment(other, -3.0)
    np.testing.assert_allclose(other.values, -3 * one.values)
    between = mixup(one, other, 0.25)
    np.testing.assert_allclose(between.values, (0.25 - 0.75 * 3) * one.values)
    np.testing.assert_allclose(between.filled, (0.25 - 0.75 * 3) * one.filled)
    assert (between.start, between.first, between.context) == (5, 4, 15)


def test_mixed_series_lie_between_two_of_a_kind():
    """Two that end together, or one and itself some seasons earlier."""
    generator = np.random.default_rng(0)
    positive = [1 + 9 * generator.random(n) for n in (40, 60)]  # their learned units: logarithms
    negative = [-1 - 9 * generator.random(n) for n in (40, 60)]
    windows = windows_of(panel_of(positive + negative, season_length=10), augment=True)
    counts = {True: 0, False: 0}
    for batch in windows.epoch(1):
        for row in range(len(batch.length)):
            length, linear = int(batch.length[row]), bool(batch.linear[row])
            found = batch.filled[row, :length].numpy()
            kind = [s.series.filled for s in windows.prepared if s.series.logarithmic != linear]
            pairs = [
                np.stack([one[-length:], other[len(other) - length - shift : len(other) - shift]], axis=1)
                for one in kind
                for other in kind
                for shift in (range(0, len(one) - length + 1, 10) if one is other else (0,))
                if min(len(one), len(other)) >= length
            ]
            fits = [np.linalg.lstsq(pair, found, rcond=None)[0] for pair in pairs]
            exact = [i for i, fit in enumerate(fits) if np.allclose(pairs[i] @ fit, found)]
            assert exact and min(fits[exact[0]]) > -1e-9
            counts[linear] += 1
    assert min(counts.values()) > 20


def test_a_single_series_is_mixed_with_itself_a_whole_number_of_seasons_away():
    y = np.random.default_rng(0).normal(size=700)
    known = np.arange(703)[:, None] / 100.0
    windows = windows_of(panel_of([y], season_length=7, known=[known]), augment=True)
    shifts = set()
    for batch in windows.epoch(1):
        for row in range(len(batch.length)):
            steps = batch.known[row, : batch.length[row], 0].double().diff()
            np.testing.assert_allclose(steps, steps[0], atol=1e-5)  # of neighbouring steps, wherever they lie
            window = batch.filled[row, batch.start[row] : batch.start[row] + batch.length[row]].numpy()
            if len(window) < 20:
                continue
            filled = windows.prepared[0].series.filled
            places = np.lib.stride_tricks.sliding_window_view(filled, len(window))
            corr = (places - places.mean(1, keepdims=True)) @ (window - window.mean())
            first, second = np.sort(np.argsort(corr / places.std(1))[-2:])
            fit, rest, *_ = np.linalg.lstsq(places[[first, second]].T, window, rcond=None)
            if rest.size and rest[0] < 1e-9 and min(fit) > 0.05:
                shifts.add(int(second - first))
    assert len(shifts) > 10
    assert all(shift % 7 == 0 for shift in shifts)
