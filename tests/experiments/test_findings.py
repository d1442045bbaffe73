"""What is said follows from the numbers, also where they say the opposite of what is usually told."""

from dataclasses import replace

from cellwise.experiments.findings import findings
from cellwise.experiments.memory import MemorySettings, MemoryStudy, Trial
from cellwise.experiments.vanishing_gradients import Curve, GradientStudy, StudySettings, TrainingSummary

VANISHING, GATES, DIFFERENCE, CLIPPING = range(4)


def curve_of(cell, rate, **options):
    middle = tuple(rate**lag for lag in range(51))
    return Curve(cell, "as drawn", middle, middle, middle, rate, **options)


def gradients(rates, *more):
    """A study whose curves fall exactly by these rates."""
    return GradientStudy(
        StudySettings(length=50),
        tuple(rates),
        (*(curve_of(cell, rate) for cell, rate in rates.items()), *more),
        {cell: ("f keeps c",) if cell == "lstm" else () for cell in rates},
        dict.fromkeys(rates, 100),
    )


def said(question, **studies):
    return " ".join(findings(**studies)[question].sentences)


def test_the_measured_numbers_are_given():
    text = said(VANISHING, gradients=gradients({"rnn": 0.8, "lstm": 1.2}))
    assert "multiplies the derivative of the last states by 0.800 (rnn) and 1.200 (lstm)" in text
    assert f"after 50 steps {0.8**50:.1e} and {1.2**50:.1e} of it is left" in text


def test_what_training_changes_is_said_of_the_cells_that_are_asked_about():
    training = TrainingSummary(2, 3, 200.0, 0.25, (1.0,))
    blocks = {"h by h": (0.0,) * 51, "c by c": (0.5,) * 51}
    trained = [
        curve_of("rnn", 0.5, training=training),
        curve_of("lstm", 0.99, training=training, blocks=blocks),
        curve_of("gru", 0.98, training=replace(training, solved=3, updates=1200.0)),
        curve_of("lstm", 0.9, training=replace(training, solved=1), clipped=False),
        replace(curve_of("lstm", 0.95), start="forget bias"),
    ]
    study = gradients({"rnn": 0.9, "lstm": 0.9, "gru": 0.9}, *trained)
    assert (
        "learned by 2 of 3 rnn, 2 of 3 lstm and 3 of 3 gru networks, which trained for 200, 200 and 1,200 updates on "
        "average; then 8.9e-16, 0.61 and 0.36 of the derivative is left after 50 steps."
    ) in said(VANISHING, gradients=study)
    assert (
        "learned by 2 of 3 lstm and 3 of 3 gru networks, which trained for 200 and 1,200 updates on average; then 0.61 "
        "and 0.36 of the derivative is left after 50 steps."
    ) in said(DIFFERENCE, gradients=study)
    text = said(GATES, gradients=study)
    assert "By the equations, f keeps c in lstm." in text
    assert (
        "by 1 towards keeping leaves 0.077 (lstm) of the derivative after 50 steps, instead of 5.2e-03."
        in text
    )
    assert (
        "In the trained lstm networks the derivative is, state by state, of c by c 0.5 and of h by h nothing."
        in text
    )
    assert said(CLIPPING, gradients=study) == (
        "The gradient was larger than 1 in 25% (lstm) of the updates. Clipped there, 2 of 3 networks learned the "
        "adding problem; unclipped, 1 of 3."
    )


def test_a_cell_that_was_not_measured_is_named():
    assert "gru was not measured in this run" in said(DIFFERENCE, gradients=gradients({"lstm": 0.5}))
    assert "lstm and gru were not measured in this run" in said(DIFFERENCE, gradients=gradients({"rnn": 0.5}))


def memory(lags, ended="done"):
    """A study in which each cell learned recall up to a lag, and then failed unless the lags were over."""
    tried = (4, 8, 16, 32)
    trials = []
    for cell, longest in lags.items():
        for lag in tried:
            solved = longest is not None and lag <= longest
            trials.append(
                Trial("recall", lag, cell, (solved,), (1.0 if solved else 0.25,), (100 + lag,), 1.0)
            )
            if not solved:
                break
    settings = MemorySettings(tasks=("recall",), lags=tried, seeds=1)
    sizes = dict.fromkeys(lags, 32)
    return MemoryStudy(settings, tuple(lags), sizes, sizes, tuple(trials), ended)


def test_lags_are_told_of_the_cells_that_are_asked_about():
    study = memory({"rnn": 8, "lstm": None, "lstm+1": 32, "gru": 16})
    within = "Longest lags learned within 1,000 updates by the one seed, in recall"
    assert said(VANISHING, memory=study) == (
        f"{within}: rnn 8, lstm none (the shortest was 4), lstm+1 32 or more, gru 16."
    )
    assert said(GATES, memory=study) == f"{within}: rnn 8, lstm none (the shortest was 4), lstm+1 32 or more."
    assert said(DIFFERENCE, memory=study) == (
        f"{within}: lstm none (the shortest was 4), lstm+1 32 or more, gru 16."
    )


def test_a_search_cut_short_is_open_to_above():
    whole = memory({"rnn": 32, "lstm": 16})
    trials = tuple(trial for trial in whole.trials if trial.cell == "lstm" or trial.lag < 8)
    cut = replace(whole, trials=trials, ended="time")
    assert "rnn 4 or more, lstm 16." in said(GATES, memory=cut)
    assert (
        said(DIFFERENCE, memory=replace(whole, trials=(), ended="time"))
        == "gru was not measured in this run."
    )


def test_seeds_that_failed_are_told():
    study = memory({"rnn": 8, "lstm": 8})
    trials = [replace(each, solved=(True, False)) if each.lag == 8 else each for each in study.trials]
    study = replace(study, settings=replace(study.settings, seeds=2))
    assert "updates by any of 2 seeds, in recall: all 8 (1 of 2)." in said(
        GATES, memory=replace(study, trials=tuple(trials))
    )
