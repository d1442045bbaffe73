"""Every backend walks the one list of cases, and random cells, against the naive run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import Phase, given, settings
from spans import spans_of

from cellwise import Cell, cells
from cellwise.backends.registry import BACKENDS
from cellwise.errors import BackendError, UnknownBackendError
from cellwise.nn import Recurrent, explain
from cellwise.testing import CASES, Case, assert_as_good, assert_close, results, strategies
from cellwise.testing.checks import (
    check_case,
    check_gradients,
    check_ragged,
    check_resets,
    check_stream,
    refusal,
)

ALL = [backend.name for backend in BACKENDS]
NAMES = [name for name in ALL if name != "cuda"]  # which tests/gpu walks, on a device and in emulation
# Cells that torch has an operator for.
STANDARD = {"rnn", "lstm", "gru"}


def expected_refusal(backend: str, case: Case) -> str | None:
    """What a backend may say to a case. A backend that says more than this is a failure, not a skip."""
    if backend != "native":
        return None
    if case.cell.name not in STANDARD or (case.learned and case.resets):
        name = f"{type(case.cell).__name__}{'_with_resets' * (case.learned and case.resets)}"
        return f"torch has no operator for the equations of {name}"
    return "torch's operators know no resets" if case.resets else None


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_case_agrees_with_the_naive_run(case: Case, backend: str) -> None:
    reason = expected_refusal(backend, case)
    arguments = case.arguments()
    assert refusal(case.layer(backend), arguments) == reason
    if reason is None:
        check_case(case, backend)
    else:
        with pytest.raises(BackendError, match=reason):
            case.layer(backend)(arguments.x, lengths=arguments.lengths, resets=arguments.resets)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_case_agrees_where_the_kernels_recompute_its_steps(case: Case) -> None:
    check_case(replace(case, recompute=True), "cpu")


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_a_case_agrees_where_gradients_are_taken_span_by_span(case: Case, recompute: bool) -> None:
    with spans_of(4):
        check_case(replace(case, recompute=recompute), "cpu")


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_only_the_kernels_can_recompute(backend: str) -> None:
    layer, x = Recurrent("lstm", 650, 650), torch.zeros(35, 20, 650)
    assert explain(layer, x).chosen == "native"
    layer.recompute = True
    assert explain(layer, x).chosen == "cpu"
    layer.backend = backend
    with pytest.raises(BackendError, match="recompute"):
        layer(x)
    with torch.no_grad():  # nothing would be kept
        layer(x)
    layer.backend = "auto"
    with pytest.raises(
        BackendError,
        match=r"native: .*recompute.*; cpu: .*float16.*; cuda: .*; reference: .*Those that can: none",
    ):
        layer.half()(x.half())


# In float32, our own against torch's operator, which the cases have where native takes them.
OURS = [name for name in NAMES if name != "native"]
SINGLE = [case for case in CASES if expected_refusal("native", case) is None]


@pytest.mark.parametrize("backend", OURS)
@pytest.mark.parametrize("case", SINGLE, ids=str)
def test_float32_is_at_most_twice_as_far_from_the_truth_as_torch(case: Case, backend: str) -> None:
    if expected_refusal(backend, case) is not None:
        return  # the refusal itself is tested above
    truth = results(case.layer("reference", torch.float64), case.arguments(torch.float64))
    torchs = results(case.layer("native", torch.float32), case.arguments(torch.float32))
    found = results(case.layer(backend, torch.float32), case.arguments(torch.float32))
    assert all(value.dtype == torch.float32 for value in found.values())
    assert_as_good(found, torchs, truth)


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("case", SINGLE[::7], ids=str)
def test_the_same_input_gives_the_same_bits(case: Case, backend: str) -> None:
    if expected_refusal(backend, case) is not None:
        return
    one = results(case.layer(backend), case.arguments())
    again = results(case.layer(backend), case.arguments())
    assert all(torch.equal(one[name], again[name]) for name in one)


@given(cell=strategies.cells())
def test_random_cells(cell: Cell) -> None:
    for check in (check_gradients, check_ragged, check_resets, check_stream):
        assert check(cell, "reference") is None


# Fewer, since each is compiled; its derivative is symbolic, so that finite differences are the judge here.
@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(cell=strategies.cells())
def test_random_cells_compiled(cell: Cell) -> None:
    for check in (check_gradients, check_ragged, check_resets):
        assert check(cell, "cpu") is None


@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(cell=strategies.cells(gradient=False))
def test_random_cells_agree_with_the_naive_run(cell: Cell) -> None:
    both_ways = Case(cell, steps=3, bidirectional=True, lengths=(3, 1), initial=True, resets=True)
    for case in (Case(cell, steps=4, batch=3), both_ways):
        check_case(case, "reference")
    check_case(both_ways, "cpu")


# --- the choice ----------------------------------------------------------------------------------------------------


def test_auto_takes_what_was_measured_faster_then_the_first_that_can() -> None:
    # tests/backends/test_preference.py has what was measured
    x = torch.zeros(7, 5, 3)
    assert explain(Recurrent("gru", 3, 64), torch.zeros(100, 5, 3)).chosen == "cpu"
    assert explain(Recurrent("lstm", 3, 4), x).chosen == "cpu"
    assert explain(Recurrent("lstm", 650, 650), torch.zeros(35, 20, 650)).chosen == "native"
    assert explain(Recurrent("gru", 3, 4).half(), x.half()).chosen == "native"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert explain(Recurrent("lstm", 3, 4), x).chosen == "native"
    assert explain(Recurrent("mingru", 3, 4), x).chosen == "cpu"
    assert explain(Recurrent("mingru", 3, 4, dtype=torch.float16), x.half()).chosen == "reference"
    assert explain(Recurrent("mingru", 3, 4, dtype=torch.bfloat16), x.bfloat16()).chosen == "cpu"
    resets = torch.zeros(7, 5, dtype=torch.bool)
    assert explain(Recurrent("gru", 3, 4), x, resets=resets).chosen == "cpu"


def test_a_cell_is_recognised_by_its_equations() -> None:
    from cellwise import sigmoid, tanh

    class MyOwn(Cell):
        gates = ("reset", "update", "new")
        states = ("memory",)

        def step(self, x, memory):
            keep = sigmoid(memory.update + x.update)
            candidate = tanh(x.new + memory.new * sigmoid(x.reset + memory.reset))
            return memory * keep + (1 - keep) * candidate

    layer = Recurrent(MyOwn, 3, 4, dtype=torch.float64)
    x = torch.randn(7, 5, 3, dtype=torch.float64)
    layer.backend = "native"
    native = layer(x)
    layer.backend = "reference"
    torch.testing.assert_close(layer(x), native, rtol=1e-12, atol=1e-14)


SUMMARIES = {backend.name: backend.summary for backend in BACKENDS}


@pytest.mark.parametrize("name", ["gru", "mingru"])
def test_explain_says_which_and_why(name: str) -> None:
    said = explain(Recurrent(name, 3, 4), torch.zeros(7, 5, 3))
    first, *lines = str(said).splitlines()
    assert first == f"backend='auto' runs on: {said.chosen}"
    assert [line.split()[0] for line in lines] == ALL
    by_name = dict(zip(ALL, lines, strict=True))
    assert said.chosen is not None
    verdict = f"chosen: {SUMMARIES[said.chosen]}"
    if said.because:
        verdict += f"; {said.because}"
    assert by_name[said.chosen].endswith(verdict)
    assert (said.because is not None) == (name == "gru"), "nothing was measured where torch has no operator"
    if name == "mingru":
        assert by_name["native"].endswith("cannot: torch has no operator for the equations of MinGRU")
    assert ("chosen: " if said.chosen == "reference" else "could: ") + SUMMARIES["reference"] in by_name[
        "reference"
    ]


def test_explain_of_a_backend_that_cannot() -> None:
    text = str(explain(Recurrent("mingru", 3, 4, backend="native"), torch.zeros(7, 5, 3)))
    assert text.splitlines()[0] == "backend='native' runs on: nothing, it raises BackendError"


def test_a_backend_asked_for_by_name_that_cannot_raises_its_reason() -> None:
    layer = Recurrent("mingru", 3, 4, backend="native")
    with pytest.raises(BackendError) as raised:
        layer(torch.zeros(7, 5, 3))
    assert str(raised.value) == (
        "The backend 'native' was asked for and cannot run this MinGRU layer: torch has no operator for the equations "
        "of MinGRU. Those that can: 'auto', 'cpu', 'reference'."
    )
    layer.backend = "auto"
    layer(torch.zeros(7, 5, 3))


def test_an_unknown_backend_is_refused_when_it_is_set() -> None:
    with pytest.raises(UnknownBackendError, match="'gpu'; there are: auto, native, cpu, cuda, reference"):
        Recurrent("gru", 3, 4, backend="gpu")
    layer = Recurrent("gru", 3, 4)
    with pytest.raises(UnknownBackendError):
        layer.backend = "fast"
    assert layer.backend == "auto"


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_nan_and_infinity_travel_as_in_torch(name: str) -> None:
    case = Case(cells.get(name), steps=5, batch=4, initial=True)
    arguments = case.arguments()
    arguments.x[1, 0, 2] = float("nan")
    arguments.x[2, 1, 0] = float("inf")
    arguments.x[2, 2, 1] = -float("inf")
    truth = results(case.layer("native"), arguments)
    assert truth["output"].isnan().any(dim=(0, 2)).tolist() == [True, False, False, False]
    assert truth["gradient of weight_ih_l0"].isnan().any()
    for backend in OURS:
        assert_close(results(case.layer(backend), arguments), truth)


def test_infinity_stays_infinity_in_a_relu_network() -> None:
    case = Case(cells.RNN(nonlinearity="relu"), steps=3, batch=2)
    arguments = case.arguments()
    arguments.x[0, 0, 0] = float("inf")
    truth = results(case.layer("native"), arguments)
    found = results(case.layer("reference"), arguments)
    assert truth["output"].isinf().any()
    for each in ("output", "final h"):
        assert_close({each: found[each]}, {each: truth[each]})
