"""Cells against cells: the problems, the trainings, what is recorded of them, and how it is ranked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cellwise import Cell, cells
from cellwise.experiments.bakeoff.problems import PROBLEMS, BakeoffError
from cellwise.experiments.bakeoff.ranking import table_of
from cellwise.experiments.bakeoff.record import RUNS, Run, own_record, read_runs
from cellwise.experiments.bakeoff.study import BakeoffSettings, Job, compare_cells
from cellwise.experiments.bakeoff.training import Budget, train_one
from cellwise.experiments.sizes import nearest_size

RUN = Run(
    "recall", "gru", 0, 0.5, 10, 1.25, 8, 500, parameter_budget=500, update_budget=10, second_budget=None,
    learning_rate=0.01, definition="0" * 16, cellwise="0.7.0", processor="some, processor",
)  # fmt: skip
TINY = BakeoffSettings(problems=("adding",), parameters=200, updates=3)


class Wild(Cell):
    """A state that squares itself is no finite number after a few steps."""

    gates = ("n",)

    def step(self, x, h):
        return 100 * (x.n + h.n) * (x.n + h.n)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("cell", ["gru", "lstm-peephole", "lru", "minlstm"])
def test_parameters_are_those_of_the_network(name: str, cell: str) -> None:
    problem, size = PROBLEMS[name], 5
    network = problem.network(cells.get(cell), size, 0)
    assert problem.parameters(cells.get(cell))(size) == sum(each.numel() for each in network.parameters())


def test_sizes_are_nearest() -> None:
    count = PROBLEMS["digits"].parameters(cells.get("gru"))
    size = nearest_size(count, 5000)
    assert abs(count(size) - 5000) <= min(abs(count(size - 1) - 5000), abs(count(size + 1) - 5000))


def test_what_is_measured_is_not_learned_from() -> None:
    (x, labels), (held, wanted) = PROBLEMS["digits"].parts
    assert (x.shape, held.shape) == ((64, 1437, 1), (64, 360, 1)) and set(wanted.tolist()) == set(range(10))
    assert (float(x.min()), float(x.max())) == (-1, 1) and labels[:10].tolist() == list(range(10))
    (days, ahead), (later, wanted) = PROBLEMS["forecast"].parts
    assert days.shape[1:] == (5479 - 728 - 34, 3) and later.shape == (28, 104, 3)
    # What is to be forecast are the days after; the first is a week after the last seven.
    torch.testing.assert_close(ahead[0], days[-7:, 7, 0])
    torch.testing.assert_close(wanted[0], later[-7:, 1, 0])
    christmas = (days[:, :, 1] > 0).sum()
    assert christmas > 0 and PROBLEMS["forecast"].simple_score() == 1.0


def test_simple_methods_are_measured() -> None:
    found = {name: problem.simple_score() for name, problem in PROBLEMS.items()}
    assert found["recall"] == 7 / 8
    assert found["adding"] == pytest.approx(1 / 6, rel=0.1)
    assert 0.05 < found["digits"] < 0.3 and 2 < found["characters"] < 3.5


def test_a_training_is_that_of_its_seed() -> None:
    problem, gru = PROBLEMS["adding"], cells.get("gru")
    one, same, other = (train_one(problem, gru, 4, seed, Budget(4), 0.01) for seed in (0, 0, 1))
    assert one.score == same.score != other.score and one.updates == 4


def test_equal_time_is_processor_time() -> None:
    outcome = train_one(PROBLEMS["adding"], cells.get("gru"), 4, 0, Budget(seconds=0.4), 0.01)
    assert outcome.updates >= 50 and outcome.updates % 50 and outcome.score is not None
    assert 0.2 < outcome.seconds < 1.5


def test_a_training_that_diverges_has_no_score() -> None:
    assert train_one(PROBLEMS["adding"], cells.get(Wild), 4, 0, Budget(5), 0.01).score is None


def test_runs_come_back_from_their_file_and_half_a_line_does_not(tmp_path: Path) -> None:
    runs = [
        RUN,
        replace(RUN, seed=1, score=None),
        replace(RUN, update_budget=None, second_budget=0.5, cell="a,b"),
    ]
    with own_record(tmp_path) as record:
        for run in runs:
            record.add(run)
    path = tmp_path / RUNS
    assert read_runs(path) == runs
    with path.open("a") as file:
        file.write("recall,gru,2,0.")
    with own_record(tmp_path) as record:
        assert record.runs == runs
        record.add(replace(RUN, seed=2))
    assert read_runs(path) == [*runs, replace(RUN, seed=2)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("recall,gru", "it has 2 values, not 15"),
        ("recall,gru,0,nan,10,1,8,500,500,10,,0.01,0,0,p", "its score is 'nan'"),
        ("recall,gru,x,0.5,10,1,8,500,500,10,,0.01,0,0,p", "its seed is 'x'"),
        ("recall,gru,-1,0.5,10,1,8,500,500,10,,0.01,0,0,p", "its seed is '-1'"),
        ("recall,g\x1bu,0,0.5,10,1,8,500,500,10,,0.01,0,0,p", "its cell cannot be printed"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    with own_record(tmp_path) as record:
        record.add(RUN)
    with record.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BakeoffError, match=f"Line 3 of .* is no run: {said}"):
        read_runs(record.path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BakeoffError, match="is not empty and has no runs"), own_record(tmp_path):
        pass
    (tmp_path / RUNS).write_text("a,b\n1,2\n")
    with pytest.raises(BakeoffError, match="its columns are others"):
        read_runs(tmp_path / RUNS)


def test_ranks() -> None:
    def run(cell: str, problem: str, seed: int, score: float | None) -> Run:
        return replace(RUN, cell=cell, problem=problem, seed=seed, score=score)

    table = table_of([
        run("a", "recall", 0, 0.1), run("a", "recall", 1, 0.3), run("b", "recall", 0, 0.2), run("b", "recall", 1, 0.2),
        run("c", "recall", 0, 0.0), run("c", "recall", 1, None), run("d", "recall", 0, None),
        run("a", "adding", 0, 2.0), run("b", "adding", 0, 1.0), run("c", "adding", 0, 3.0),
    ])  # fmt: skip
    ranks = {
        each.cell: {name: found.rank for name, found in each.results.items()} for each in table.standings
    }
    # a and b have the same mean; what diverged in c counts as the worst of all, 0.3, in d all of it did.
    assert ranks == {
        "c": {"recall": 1.0, "adding": 3.0},
        "b": {"recall": 2.5, "adding": 1.0},
        "a": {"recall": 2.5, "adding": 2.0},
        "d": {"recall": 4.0},
    }
    assert [each.cell for each in table.standings] == ["b", "c", "a", "d"]  # d lacks a problem
    assert table.by_cell["a"].results["recall"].sample.mean == pytest.approx(0.2)
    assert (
        table.by_cell["c"].results["recall"].diverged == 1
        and table.by_cell["d"].results["recall"].sample is None
    )


def test_a_comparison_goes_on_and_refuses_other_settings(tmp_path: Path) -> None:
    gru, rnn = cells.get("gru"), cells.get("rnn")
    first = compare_cells([gru], TINY, tmp_path)
    more = compare_cells([rnn, gru], replace(TINY, seeds=2), tmp_path)
    assert [run.key for run in more.runs] == [
        ("adding", "gru", 0), ("adding", "rnn", 0), ("adding", "rnn", 1), ("adding", "gru", 1),
    ]  # fmt: skip
    assert more.runs[0] == first.runs[0] and read_runs(tmp_path / RUNS) == list(more.runs)
    for settings, said in (
        (replace(TINY, updates=4), "update budget 3, not 4"),
        (replace(TINY, seconds=1.0), "update budget 3, not none"),
        (replace(TINY, parameters=201), "parameter budget 200, not 201"),
        (replace(TINY, learning_rate=0.5), "learning rate 0.01, not 0.5"),
    ):
        with pytest.raises(BakeoffError, match=said):
            compare_cells([gru], settings, tmp_path)

    class Other(Cell):
        name = "gru"
        gates = ("n",)

        def step(self, x, h):
            return x.n + h.n

    with pytest.raises(BakeoffError, match="other equations of gru"):
        compare_cells([Other()], TINY, tmp_path)
    # Its runs are forgotten, those of other cells are not.
    anew = compare_cells([Other()], TINY, tmp_path, overwrite=True).runs
    assert [run.key for run in anew] == [("adding", "rnn", 0), ("adding", "rnn", 1), ("adding", "gru", 0)]
    assert read_runs(tmp_path / RUNS) == list(anew)


def test_a_cell_that_needs_more_than_x_is_left_out(tmp_path: Path) -> None:
    class Timed(Cell):
        inputs = ("t",)
        gates = ("n",)

        def step(self, x, h, t):
            return x.n + t * h.n

    found = compare_cells([cells.get("rnn"), Timed()], TINY, tmp_path)
    assert found.left_out == {"timed": "timed needs t beside x, which these problems do not have."}
    with pytest.raises(BakeoffError, match="timed needs t"):
        compare_cells([Timed()], TINY, tmp_path)


def test_equal_settings_expect_equal_runs() -> None:
    job = Job(PROBLEMS["adding"], cells.get("gru"), 0, TINY)
    assert job.expected == Job(PROBLEMS["adding"], cells.get("gru"), 0, TINY).expected
    assert job.expected.definition != Job(PROBLEMS["recall"], cells.get("gru"), 0, TINY).expected.definition
