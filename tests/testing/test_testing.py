"""The tools can fail: a wrong number, a missing gradient or a broken backend turns them red."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis.internal.conjecture import providers
from torch import Tensor

import cellwise
from cellwise import (
    Cell,
    Initial,
    Recurrent,
    block_diagonal,
    cells,
    dropout,
    exp,
    layer_norm,
    linear,
    low_rank,
    relu,
    sigmoid,
    skew,
    stop_gradient,
    tanh,
)
from cellwise.backends.base import Call, LayerSpec, Result
from cellwise.backends.reference import Reference
from cellwise.backends.registry import BACKENDS
from cellwise.errors import BackendError, CellwiseError
from cellwise.graph.interpret import evaluate
from cellwise.testing import (
    CASES,
    Arguments,
    Case,
    assert_as_good,
    assert_close,
    cases_of,
    check_cell,
    poisoned_memory,
    results,
)
from cellwise.testing.cases import PROJECTED, SHIPPED, SITUATIONS
from cellwise.testing.checks import CHECKS
from cellwise.testing.compare import difference


def test_case_names_are_unique_and_readable() -> None:
    names = [str(case) for case in CASES]
    assert len(set(names)) == len(names)
    assert "gru-ragged-with-empty-rows" in names
    assert "rnn-relu-plain" in names
    plain = [case for case in CASES if not case.learned]
    assert len(plain) == len(SHIPPED) * len([each for each in SITUATIONS if not each.learned]) + len(
        PROJECTED
    )


def test_the_list_holds_what_it_must() -> None:
    """Odd sizes, short and empty sequences, and every option, so that nobody thins the list by accident."""
    assert {case.hidden_size for case in CASES} >= {1, 3, 17}
    assert {case.batch for case in CASES} >= {0, 1, 2, 5}
    assert {case.steps for case in CASES} >= {1, 2, 7}
    assert {0, 1} <= {length for case in CASES for length in case.lengths or ()}
    for option in ("bidirectional", "batch_first", "unbatched", "packed", "resets", "initial", "proj_size"):
        assert any(getattr(case, option) for case in CASES), option
    assert any(not case.bias for case in CASES)
    assert max(case.num_layers for case in CASES) == 3


def test_a_case_has_the_same_numbers_every_time_and_in_every_dtype() -> None:
    case = replace(cases_of("lstm")[0], initial=True, resets=True)
    torch.manual_seed(0)
    first, layer = case.arguments(), case.layer()
    torch.manual_seed(1)
    second = case.arguments(torch.float32)
    assert torch.equal(first.x, second.x.double())
    assert torch.equal(first.states[1], second.states[1].double())
    assert first.resets is not None and second.resets is not None
    assert torch.equal(first.resets, second.resets)
    for a, b in zip(layer.parameters(), case.layer(dtype=torch.float32).parameters(), strict=True):
        assert torch.equal(a, b.double())


def test_results_name_everything() -> None:
    case = Case(cells.get("lstm"), initial=True)
    assert sorted(results(case.layer(), case.arguments())) == [
        "final c",
        "final h",
        "gradient of bias_hh_l0",
        "gradient of bias_ih_l0",
        "gradient of initial c",
        "gradient of initial h",
        "gradient of weight_hh_l0",
        "gradient of weight_ih_l0",
        "gradient of x",
        "output",
    ]


def test_results_of_a_packed_call_are_those_of_lengths() -> None:
    case = Case(cells.get("gru"), batch=3, lengths=(2, 7, 5), initial=True)
    assert_close(
        results(case.layer(), replace(case.arguments(), packed=True)), results(case.layer(), case.arguments())
    )


@pytest.mark.parametrize("name", ["output", "final h", "gradient of x", "gradient of weight_hh_l0"])
def test_close_sees_a_wrong_number_and_names_it(name: str) -> None:
    case = Case(cells.get("gru"), initial=True)
    truth = results(case.layer(), case.arguments())
    wrong = dict(truth)
    wrong[name] = truth[name].clone()
    wrong[name].view(-1)[0] += 1e-9 * truth[name].abs().max()
    with pytest.raises(AssertionError, match=f"^{name} .*: off by"):
        assert_close(wrong, truth)
    assert_close(truth, truth)


def test_close_wants_the_same_names_shapes_and_dtypes() -> None:
    one = {"output": torch.zeros(2)}
    for other in (
        {"out": torch.zeros(2)},
        {"output": torch.zeros(3)},
        {"output": torch.zeros(2, dtype=torch.int)},
    ):
        with pytest.raises(AssertionError):
            assert_close(other, one)


@pytest.mark.parametrize(
    ("found", "truth", "wanted"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([float("nan")], [float("nan")], 0.0),
        ([float("nan")], [0.0], float("inf")),
        ([0.0], [float("nan")], float("inf")),
        ([float("inf")], [float("inf")], 0.0),
        ([float("inf")], [-float("inf")], float("inf")),
        ([1.0], [float("inf")], float("inf")),
        ([], [], 0.0),
    ],
)
def test_difference(found: list[float], truth: list[float], wanted: float) -> None:
    assert difference(torch.tensor(found), torch.tensor(truth)) == wanted


def test_as_good_is_a_factor_of_torchs_own_error() -> None:
    truth = {"output": torch.zeros(100, dtype=torch.float64)}
    torchs = {"output": torch.full((100,), 1e-3)}
    assert_as_good({"output": torch.full((100,), 1.9e-3)}, torchs, truth)
    with pytest.raises(AssertionError, match="torch's"):
        assert_as_good({"output": torch.full((100,), 2.1e-3)}, torchs, truth)
    with pytest.raises(AssertionError):
        assert_as_good({"output": torch.full((100,), float("nan"))}, torchs, truth)


@pytest.mark.parametrize(("count", "units", "good"), [(1, 8, True), (1, 32, False), (10_000, 32, False)])
def test_as_good_leaves_room_for_luck_where_few_numbers_are_compared(
    count: int, units: int, good: bool
) -> None:
    truth, exact = {"output": torch.ones(count, dtype=torch.float64)}, {"output": torch.ones(count)}
    found = {"output": torch.ones(count)}
    found["output"][0] += units * torch.finfo(torch.float32).eps
    if good:
        assert_as_good(found, exact, truth)
    else:
        with pytest.raises(AssertionError, match="torch's 0"):
            assert_as_good(found, exact, truth)


def test_memory_is_poisoned_in_tests_and_only_there() -> None:
    assert torch.empty(3).isnan().all()
    assert torch.empty(3, dtype=torch.float64).new_empty(2).isnan().all()
    settings: Any = torch.utils.deterministic
    torch.use_deterministic_algorithms(False)
    settings.fill_uninitialized_memory = False
    with poisoned_memory():
        assert torch.empty_like(torch.zeros(5)).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()
    assert not settings.fill_uninitialized_memory


# --- check_cell -----------------------------------------------------------------------------------------------------


def test_check_cell_of_all_backends() -> None:
    lines = str(check_cell("rnn")).splitlines()
    on_a_cpu = [backend for backend in BACKENDS if backend.name != "cuda"]
    assert len(lines) == len(on_a_cpu)
    for line, backend in zip(lines, on_a_cpu, strict=True):
        if backend.name == "native":
            done = "gradients, agreement, stream, ragged; resets not: torch's operators know no resets"
        else:
            done = "gradients, agreement, stream, ragged, resets"
        assert line == f"RNN on {backend.name}: {done}"


def test_check_cell_says_what_it_cannot_check() -> None:
    class Stopped(Cell):
        gates = ("n",)

        def step(self, x, h):
            return tanh(x.n + stop_gradient(h.n))

    report = check_cell(Stopped, backend="reference")
    assert [name for _, name in report.done] == ["agreement", "stream", "ragged", "resets"]
    assert [refused[:2] for refused in report.refused] == [("reference", "gradients")]


def test_check_cell_raises_what_a_backend_says_when_asked_for_by_name() -> None:
    with pytest.raises(BackendError, match="no operator"):
        check_cell("mingru", backend="native")


def test_check_cell_raises_the_error_of_a_wrong_cell() -> None:
    class Wrong(Cell):
        gates = ("n",)

        def step(self, x, h):
            return tanh(x.m)

    with pytest.raises(CellwiseError, match="'m'"):
        check_cell(Wrong)


def _broken(change: Callable[[LayerSpec, Call], tuple[LayerSpec, Call]] | None, after: Any = None) -> Any:
    def run(self: Reference, stack: LayerSpec, call: Call) -> Result:
        if change is not None:
            stack, call = change(stack, call)
        output, finals = Reference.honest(self, stack, call)  # type: ignore[attr-defined]
        return after(output, finals, call) if after else (output, finals)

    return run


def _no_resets(stack: LayerSpec, call: Call) -> tuple[LayerSpec, Call]:
    return stack, replace(call, sequences=replace(call.sequences, resets=None))


def _no_states(stack: LayerSpec, call: Call) -> tuple[LayerSpec, Call]:
    return stack, replace(call, states=tuple(torch.zeros_like(state) for state in call.states))


def _detached_input(stack: LayerSpec, call: Call) -> tuple[LayerSpec, Call]:
    return stack, replace(call, sequences=replace(call.sequences, data=call.sequences.data.detach()))


def _scaled(output: Tensor, finals: tuple[Tensor, ...], call: Call) -> Result:
    return output * (1 + 1e-8), finals


def _last_state_of_the_batch(output: Tensor, finals: tuple[Tensor, ...], call: Call) -> Result:
    if call.sequences.is_dense or not output.shape[0]:
        return output, finals
    return output, (finals[0].flip(1), *finals[1:])


# What is broken in a backend, and the check that must notice.
BROKEN: dict[str, tuple[Any, str]] = {
    "resets-ignored": (_broken(_no_resets), "resets"),
    "initial-state-ignored": (_broken(_no_states), "agreement"),
    "initial-state-lost-in-stream": (_broken(_no_states), "stream"),
    "input-detached": (_broken(_detached_input), "gradients"),
    "off-by-a-little": (_broken(None, _scaled), "agreement"),
    "final-states-in-the-wrong-order": (_broken(None, _last_state_of_the_batch), "ragged"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_backend_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, check = BROKEN[name]
    monkeypatch.setattr(Reference, "honest", Reference.run, raising=False)
    monkeypatch.setattr(Reference, "run", run)
    with pytest.raises((AssertionError, RuntimeError)):
        CHECKS[check](cells.get("gru"), "reference")


def test_an_op_that_the_loop_gets_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(nodes: Any, values: Any) -> None:
        nodes = list(nodes)
        evaluate(nodes, values)
        for node in nodes:
            if node.op.name == "relu":
                values[node] = values[node].abs() + 1e-3

    monkeypatch.setattr("cellwise.backends.reference.loop.evaluate", wrong)

    class Kinked(Cell):
        gates = ("n",)

        def step(self, x, h):
            return relu(x.n + h.n)

    with pytest.raises(AssertionError, match=r"kinked-plain on reference:\noutput"):
        check_cell(Kinked, backend="reference")


def test_arguments_name_their_states() -> None:
    h = torch.zeros(1, 2, 3)
    assert Arguments(h).states == ()
    assert Arguments(h, h).states == (h,)
    assert Arguments(h, (h, h)).states == (h, h)


def test_a_layer_reads_as_the_naive_run_of_one_step() -> None:
    layer = Recurrent("rnn", 1, 1, dtype=torch.float64)
    x = torch.tensor([[[0.3]]], dtype=torch.float64)
    by_hand = torch.tanh(0.3 * layer.weight_ih_l0 + layer.bias_ih_l0 + layer.bias_hh_l0)
    torch.testing.assert_close(layer(x)[0].reshape(1, 1), by_hand.reshape(1, 1), rtol=1e-12, atol=0)


def test_every_new_thing_of_a_cell_goes_with_the_others() -> None:
    class All(Cell):
        """Values beside x, x itself, weights that are made of others, a norm, a mask, a first state, three outputs."""

        gates = ("z", "r", "n")
        states = ("h", "c")
        inputs = ("dt",)
        outputs = ("h", "z", "a")
        h0 = Initial()

        def step(self, x, h, c, dt):
            z = sigmoid(x.z + block_diagonal(h.z, 2))
            r = sigmoid(layer_norm(x.r + low_rank(h.r, 2)))
            n = dropout(tanh(x.n + r * linear(skew(h.n, 0.1))), 0.2)
            h = z * h + (1 - z) * n * exp(-abs(dt))
            return z, cellwise.sum(n) + 0 * h, h, c * r + x

    report = check_cell(All, "cpu")
    assert {check for _, check in report.done} >= {
        "gradients",
        "agreement",
        "stream",
        "ragged",
        "resets",
        "training",
    }


def test_what_hypothesis_draws_does_not_depend_on_what_was_imported() -> None:
    drawn_from = providers.HypothesisProvider(None)._local_constants
    assert all(not drawn_from.set_for_type(kind) for kind in ("integer", "float", "bytes", "string"))
