"""The tasks ask what they say, and the search finds the longest lag, stops when told, and keeps what it has."""

import itertools
import json
from dataclasses import asdict

import pytest
import torch

from cellwise import Cell, cells, tanh
from cellwise.experiments.memory import Contender, MemorySettings, MemoryStudy, study_memory
from cellwise.experiments.memory_tasks import TASKS, MemoryTaskError, task_of
from cellwise.experiments.training import MemoryNetwork, MemoryTraining, learn
from cellwise.understand.figures import rebuild

RECALL, ADDING, PARITY = TASKS["recall"], TASKS["adding"], TASKS["parity"]


def draw(task, lag, count, seed=0):
    return task.draw(lag, count, torch.Generator().manual_seed(seed))


# --- the tasks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [2, 3, 9])
def test_recall_asks_for_each_symbol_exactly_lag_steps_later(lag):
    x, targets = draw(RECALL, lag, 5)
    assert x.shape == (lag + 2, 5, 5)
    for row in range(5):
        for place in range(2):
            symbols = x[:, row, :4]
            assert symbols[place].tolist() == [float(k == targets[place, row]) for k in range(4)]
            assert x[place + lag, row, 4] == 1  # the mark that asks for it
        # Nothing else is shown: as many ones as there are symbols and marks.
        assert x[:, row].sum() == 4


def test_recall_counts_symbols_in_their_order():
    targets = torch.tensor([[0, 1], [2, 3]])
    outputs = torch.zeros(6, 2, 4)
    for place, row in itertools.product(range(2), range(2)):
        outputs[4 + place, row, targets[place, row]] = 1.0
    assert RECALL.right(outputs, targets) == 1.0
    assert RECALL.right(outputs, targets.flip(0)) == 0.0
    outputs[4, 0] = torch.tensor([0.0, 9.0, 0.0, 0.0])
    assert RECALL.right(outputs, targets) == 0.75


def test_adding_asks_for_the_sum_of_the_two_marked_numbers():
    x, targets = draw(ADDING, 10, 50)
    assert x.shape == (10, 50, 2)
    assert (x[..., 0] >= 0).all() and (x[..., 0] < 1).all()
    marks = x[..., 1]
    assert set(marks.unique().tolist()) == {0.0, 1.0}
    assert (marks[:5].sum(0) == 1).all() and (marks[5:].sum(0) == 1).all()
    torch.testing.assert_close((x[..., 0] * marks).sum(0), targets)


def test_adding_counts_answers_within_the_tolerance_at_the_last_step():
    targets = torch.tensor([1.0, 0.5, 1.7])
    outputs = torch.full((4, 3, 1), 99.0)
    outputs[-1, :, 0] = targets + torch.tensor([0.19, -0.19, 0.21])
    assert ADDING.right(outputs, targets) == pytest.approx(2 / 3)


def test_parity_asks_whether_the_ones_so_far_are_odd():
    x, targets = draw(PARITY, 6, 40)
    assert x.shape == (6, 40, 1) and set(x.unique().tolist()) == {-1.0, 1.0}
    for row in range(40):
        ones = 0
        for t in range(6):
            ones += int(x[t, row, 0] == 1)
            assert targets[t, row] == ones % 2


def test_parity_counts_the_last_step_alone():
    targets = torch.tensor([[0, 1], [1, 0]])
    outputs = torch.zeros(2, 2, 2)
    outputs[0, :, 0] = 1.0  # half wrong, and of no account
    outputs[1, 0, 1] = outputs[1, 1, 1] = 1.0
    assert PARITY.right(outputs, targets) == 0.5


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_chance_is_what_the_best_constant_answer_reaches(task):
    """Measured on many sequences: no constant answer is right more often, and one is right that often."""
    lag, count = 6, 40_000
    x, targets = draw(task, lag, count)
    shares = []
    for answer in (
        torch.eye(task.output_size) if task.output_size > 1 else torch.linspace(0, 2, 41).reshape(-1, 1)
    ):
        outputs = answer.expand(len(x), count, task.output_size)
        shares.append(task.right(outputs, targets))
    assert max(shares) == pytest.approx(task.chance, abs=0.01)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_loss_of_perfect_answers_is_nothing(task):
    x, targets = draw(task, 5, 3)
    outputs = torch.zeros(len(x), 3, task.output_size)
    if task is ADDING:
        outputs[-1, :, 0] = targets
    else:
        answered = torch.nn.functional.one_hot(targets, task.output_size).float()
        outputs[-len(targets) :] = 50 * answered
    assert task.loss(outputs, targets) < 1e-6
    assert task.loss(torch.zeros_like(outputs), targets) > 0.1
    assert task.right(outputs, targets) == 1.0


def test_an_unknown_task_is_said():
    with pytest.raises(
        MemoryTaskError, match="no task called 'copying'; there are: recall, adding, parity, and all"
    ):
        task_of("copying")


# --- learning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("task", [RECALL, PARITY], ids=["recall", "parity"])
def test_a_short_lag_is_learned(cell, task):
    network = MemoryNetwork(cell, task, 16)
    learned = learn(network, task, 4, MemoryTraining(updates=400))
    assert learned.solved and learned.right >= 0.95
    assert learned.updates == len(learned.gradients) < 400  # it stopped when it was solved
    # What it says of itself holds on sequences that neither training nor its own judge has seen.
    with torch.no_grad():
        x, targets = draw(task, 4, 2000, seed=77)
        assert task.right(network(x), targets) > 0.9


def test_what_cannot_be_learned_stays_at_chance():
    """Without a recurrent part in its equations a cell cannot know what was shown."""

    class Blind(Cell):
        gates = ("n",)

        def step(self, x, h):
            return tanh(x.n)

    learned = learn(MemoryNetwork(Blind, RECALL, 16), RECALL, 4, MemoryTraining(updates=150))
    assert not learned.solved
    assert learned.right == pytest.approx(RECALL.chance, abs=0.08)
    assert learned.updates == 150


def test_equal_seeds_train_equally_on_every_backend_and_leave_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    done = [
        learn(
            MemoryNetwork("gru", ADDING, 8, seed, backend=backend),
            ADDING,
            5,
            MemoryTraining(updates=30, seed=seed),
        )
        for seed, backend in ((1, "cpu"), (1, "cpu"), (2, "cpu"), (1, "reference"))
    ]
    assert torch.equal(torch.rand(1), expected)
    assert done[0] == done[1]
    assert done[0].gradients != done[2].gradients
    assert done[0].gradients == pytest.approx(done[3].gradients, rel=1e-2)


def test_the_norms_are_those_of_the_whole_gradient_before_clipping():
    network = MemoryNetwork("gru", ADDING, 6)
    x, targets = draw(ADDING, 5, 64, seed=1_000_033)  # the first batch of the first epoch
    ADDING.loss(network(x), targets).backward()
    expected = torch.cat([p.grad.flatten() for p in network.parameters()]).norm()
    network.zero_grad()
    learned = learn(network, ADDING, 5, MemoryTraining(updates=3, clip=1e-3))
    assert learned.gradients[0] == pytest.approx(float(expected), rel=1e-5)
    assert len(learned.gradients) == learned.updates == 3
    # Nothing of the measuring is left in the network.
    assert not any(parameter._post_accumulate_grad_hooks for parameter in network.parameters())


def test_clipping_limits_the_update_but_not_what_is_told():
    free = learn(MemoryNetwork("rnn", ADDING, 8), ADDING, 5, MemoryTraining(updates=20, clip=None))
    tight = learn(MemoryNetwork("rnn", ADDING, 8), ADDING, 5, MemoryTraining(updates=20, clip=1e-3))
    assert free.gradients[0] == tight.gradients[0] > 1e-3
    assert free.gradients != tight.gradients


def test_a_loss_that_is_not_finite_ends_the_training():
    class Doubling(Cell):
        gates = ("n",)

        def step(self, x, h):
            return x.n + 1e30 * h

    learned = learn(MemoryNetwork(Doubling, PARITY, 4), PARITY, 6, MemoryTraining(updates=20))
    assert learned.diverged and not learned.solved
    assert learned.updates == 1


# --- the search -------------------------------------------------------------------------------------------------

SMALL = {"tasks": ("parity",), "lags": (2, 4), "updates": 300, "hidden_size": 12, "minutes": None}


@pytest.fixture(scope="module")
def study():
    contenders = [
        Contender(cells.get("gru")),
        Contender(cells.get("lstm"), 1.0),
        Contender(cells.get("mingru")),
    ]
    return study_memory(contenders, MemorySettings(**SMALL, seeds=1))


def test_the_search_finds_who_can_remember(study):
    assert study.cells == ("gru", "lstm+1", "mingru")
    assert study.longest("parity", "gru") == study.longest("parity", "lstm+1") == 4
    assert study.at_end_of_lags("parity", "gru")
    assert study.ended == "done"


def test_a_study_survives_its_file(study):
    assert rebuild(MemoryStudy, json.loads(json.dumps(asdict(study)))) == study


def test_after_a_lag_that_no_seed_learned_no_longer_one_is_tried(monkeypatch):
    tried = []

    def learn_up_to(limits):
        def pretend(network, task, lag, settings, report):
            cell = network.recurrent.cell.name
            tried.append((cell, lag, settings.seed))
            solved = lag <= limits[cell] + 4 * settings.seed
            from cellwise.experiments.training import TrialResult

            return TrialResult(solved, 10 + settings.seed, float(solved), (1.0,))

        return pretend

    monkeypatch.setattr("cellwise.experiments.memory.learn", learn_up_to({"gru": 4, "rnn": 2}))
    settings = MemorySettings(tasks=("parity",), lags=(2, 4, 8, 16), seeds=2, minutes=None)
    study = study_memory([Contender(cells.get("gru")), Contender(cells.get("rnn"))], settings)
    assert study.longest("parity", "gru") == 8  # one of the two seeds reached it
    assert study.find("parity", "gru")[2].solvers == 1
    assert study.find("parity", "gru")[2].typical_updates == 11
    assert study.longest("parity", "rnn") == 4
    assert ("rnn", 8, 1) in tried and ("rnn", 16, 0) not in tried and ("gru", 16, 1) in tried
    assert not study.cut_short("parity", "rnn") and not study.at_end_of_lags("parity", "rnn")


@pytest.mark.parametrize(("interrupt", "ended"), [(KeyboardInterrupt, "stopped"), (None, "time")])
def test_what_is_finished_is_kept(monkeypatch, interrupt, ended):
    done = []

    class Impatient:
        def update(self, what, updates, right):
            if len(done) == 1 and interrupt is not None:
                raise interrupt

        def trial(self, trial):
            done.append(trial)
            if interrupt is None:  # an hour goes by
                import time

                now = time.monotonic()
                monkeypatch.setattr("cellwise.experiments.memory.time.monotonic", lambda: now + 3600)

    settings = MemorySettings(**{**SMALL, "minutes": 5.0}, seeds=1)
    study = study_memory([Contender(cells.get("gru")), Contender(cells.get("rnn"))], settings, Impatient())
    assert study.ended == ended
    assert study.trials == tuple(done) and len(done) == 1
    assert study.cut_short("parity", "gru") and study.cut_short("parity", "rnn")
    assert study.longest("parity", "rnn") is None


def test_the_same_number_of_parameters_is_as_near_as_whole_units_allow():
    settings = MemorySettings(**SMALL, same="parameters")
    contenders = [Contender(cells.get(name)) for name in ("rnn", "lstm", "gru")]
    study = study_memory(
        contenders, MemorySettings(**{**SMALL, "updates": 1, "lags": (2,)}, same="parameters")
    )
    assert study.hidden_sizes["gru"] == settings.hidden_size
    assert study.hidden_sizes["rnn"] > 12 > study.hidden_sizes["lstm"]
    for name in ("rnn", "lstm"):
        network = MemoryNetwork(name, RECALL, study.hidden_sizes[name])
        count = sum(p.numel() for p in network.recurrent.parameters())
        assert count == study.parameters[name]
        assert count == pytest.approx(study.parameters["gru"], rel=0.1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lags": (4, 2)}, "lags must grow from one to the next; got 4, 2"),
        ({"lags": (1, 2)}, "lags of the task recall begin at 2; got 1"),
        ({"lags": ()}, "begin at 2; got none"),
        ({"updates": 0}, "updates must be at least 1; got 0"),
        ({"seeds": 0}, "seeds must be at least 1; got 0"),
        ({"tasks": ("copying",)}, "no task called 'copying'"),
        ({"same": "size"}, "either units or parameters; got 'size'"),
        ({"minutes": -1.0}, "minutes must be more than 0; got -1"),
    ],
)
def test_settings_that_cannot_be_are_said(options, said):
    with pytest.raises(MemoryTaskError, match=said):
        MemorySettings(**options)


def test_a_bias_needs_a_gate_that_keeps():
    assert str(Contender(cells.get("lstm"), 1.0)) == "lstm+1"
    assert str(Contender(cells.get("lstm"), -0.5)) == "lstm-0.5"
    with pytest.raises(MemoryTaskError, match=r"'rnn\+1' asks for a bias .* rnn has no such gate"):
        Contender(cells.get("rnn"), 1.0)
