"""Does a cell do what its equations say, on every backend, in every way that a layer can be called?

>>> print(check_cell("mingru"))
MinGRU on cpu: gradients, agreement, stream, ragged, resets
MinGRU on reference: gradients, agreement, stream, ragged, resets
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from cellwise import cells
from cellwise.backends.registry import AUTO, BACKENDS
from cellwise.cells.base import Cell
from cellwise.graph.ops import OPS
from cellwise.nn.recurrent import RecurrentLayer, explain
from cellwise.plan import output_sizes
from cellwise.runtime.outputs import by_name
from cellwise.testing.cases import Arguments, Case, cases_of
from cellwise.testing.compare import Results, assert_close, call_layer, results
from cellwise.testing.naive import run_naively


@dataclass(frozen=True)
class Report:
    """What was checked, and what was not, with the reason. Printed, a line for each backend."""

    cell: str
    done: tuple[tuple[str, str], ...]  # backend, check
    refused: tuple[tuple[str, str, str], ...]  # backend, check, reason

    def __str__(self) -> str:
        lines = []
        for backend in dict.fromkeys(name for name, *_ in (*self.done, *self.refused)):
            done = ", ".join(check for name, check in self.done if name == backend)
            refused = [f"{check} not: {reason}" for name, check, reason in self.refused if name == backend]
            lines.append("; ".join((f"{self.cell} on {backend}: {done or 'nothing'}", *refused)))
        return "\n".join(lines)


def check_cell(cell: str | type[Cell] | Cell, backend: str = AUTO) -> Report:
    """Check a cell of your own, or a shipped one, in float64.

    - gradients: the derivative of every input, state and parameter against finite differences (torch's gradcheck).
    - agreement: the conformance cases against the naive run, values and gradients.
    - stream: step by step against the whole sequence.
    - ragged: rows of different lengths against each row run alone.
    - resets: a row with resets against its pieces run apart.
    - training: of a cell that draws masks, values and gradients under the same masks against the reference.

    Args:
        cell: a Cell class, an instance, or the name of a known one.
        backend: one by name; or "auto" for all that can run the cell.

    Raises:
        AssertionError: a check failed; the text names the case, the result and how far off it is.
        BackendError: the backend asked for cannot run this cell at all.
        CellError: the cell's equations are wrong.
    """
    made = cells.get(cell)
    plain = cases_of(made)[0]
    names = [backend]
    if backend == AUTO:
        given = plain.arguments()
        reasons = explain(plain.layer(), given.x, **given.beside).reasons
        names = [name for name, reason in reasons if reason is None]
    done, refused = [], []
    for name in names:
        plain.layer(name)(
            plain.arguments().x, **plain.arguments().beside
        )  # raises BackendError if it cannot run the cell at all
        for what, check in CHECKS.items():
            if check is check_training and made.training_graph is made.graph:
                continue
            reason = check(made, name)
            if reason is None:
                done.append((name, what))
            else:
                refused.append((name, what, reason))
    known = [each.name for each in BACKENDS]
    done.sort(key=lambda pair: known.index(pair[0]))
    return Report(type(made).__name__, tuple(done), tuple(refused))


def check_gradients(cell: Cell, backend: str) -> str | None:
    """Compare the derivatives of a layer's outputs and final states with finite differences."""
    if cell.graph.of(OPS["stop_gradient"]):
        return "stop_gradient makes the derivative another than that of the values, on purpose"
    case = replace(cases_of(cell)[0], steps=3, input_size=2, initial=True).fitting
    layer, arguments = case.layer(backend), case.arguments()
    parameters = dict(layer.named_parameters())
    counts = (len(arguments.states), len(arguments.beside), len(parameters))

    def run(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        rest = iter(others)
        states, beside, values = (tuple(itertools.islice(rest, count)) for count in counts)
        swapped = dict(zip(parameters, values, strict=True))
        state = states[0] if len(states) == 1 else states
        given = dict(zip(arguments.beside, beside, strict=True))
        output, final = torch.func.functional_call(layer, swapped, (x, state), given)
        return *_tuple(output), *_tuple(final)

    inputs = [arguments.x, *arguments.states, *arguments.beside.values()]
    inputs += [each.detach() for each in parameters.values()]
    gradcheck(run, [each.clone().requires_grad_() for each in inputs])
    return None


def check_agreement(cell: Cell, backend: str) -> str | None:
    """Walk the conformance cases of a cell that the backend takes: each agrees with the naive run."""
    for case in cases_of(cell):
        if refusal(case.layer(backend), case.arguments()) is None:
            check_case(case, backend)
    return None


def check_case(case: Case, backend: str) -> None:
    """Compare one conformance case on a backend with the naive run: output, final states, every gradient."""
    found = results(case.layer(backend), case.arguments())
    try:
        assert_close(found, _truth(replace(case, recompute=False)))
    except AssertionError as error:
        raise AssertionError(f"{case} on {backend}:\n{error}") from None


@lru_cache(maxsize=16)
def _truth(case: Case) -> Results:
    """The naive run of a case, which is slow. It is the same for every backend, and those come one after the other."""
    return results(case.layer("reference"), case.arguments(), naive_call)


def check_stream(cell: Cell, backend: str) -> str | None:
    """Compare a stream's steps and its last state with the whole sequence, for one and for several layers."""
    for layers in (1, 2):
        case = replace(cases_of(cell)[0], num_layers=layers, initial=False)
        if not case.is_possible:
            continue
        layer, x, beside = case.layer(backend), case.arguments().x, case.arguments().beside
        with torch.no_grad():
            whole, final = layer(x, **beside)
        stream = layer.stream(case.batch)
        now = [{name: value[t] for name, value in beside.items()} for t in range(len(x))]
        made = [_tuple(stream(each, **given)) for each, given in zip(x, now, strict=True)]
        steps = torch.cat([torch.stack(each) for each in zip(*made, strict=True)], -1)
        whole = torch.cat(_tuple(whole), -1)
        pairs = zip(_tuple(stream.state), _tuple(final), strict=True)
        found = {"output": steps, **{f"final {i}": a for i, (a, _) in enumerate(pairs)}}
        truth = {"output": whole, **{f"final {i}": b for i, b in enumerate(_tuple(final))}}
        assert_close(found, truth)
    return None


def check_ragged(cell: Cell, backend: str) -> str | None:
    """Compare rows of different lengths with each row cut to its length and run alone, without lengths."""
    lengths = (3, 7, 1, 5, 0)
    for both_ways in (False, True):
        case = replace(cases_of(cell)[0], batch=5, lengths=lengths, bidirectional=both_ways, initial=True)
        reason = _check_pieces(case, backend, [[(0, length)] for length in lengths])
        if reason is not None:
            return reason
    return None


def check_resets(cell: Cell, backend: str) -> str | None:
    """Compare a row with resets with its pieces run apart, in both directions."""
    for both_ways in (False, True):
        case = replace(cases_of(cell)[0], batch=3, resets=True, bidirectional=both_ways, initial=True)
        resets = case.arguments().resets
        assert resets is not None
        pieces = []
        for b in range(case.batch):
            starts = [0, *(t for t in range(1, case.steps) if resets[t, b])]
            pieces.append(list(zip(starts, [*starts[1:], case.steps], strict=True)))
        reason = _check_pieces(case, backend, pieces)
        if reason is not None:
            return reason
    return None


def check_training(cell: Cell, backend: str) -> str | None:
    """Compare a layer in training with the reference under the same masks: values and every gradient."""
    plain = replace(cases_of(cell)[0], initial=True)
    for case in (
        plain,
        replace(plain, batch=5, lengths=(3, 7, 1, 0, 5), bidirectional=True, num_layers=2),
        replace(plain, resets=True, batch_first=True, hidden_size=17).fitting,
    ):
        if not case.is_possible:
            continue
        reason = refusal(case.layer(backend).train(), case.arguments())
        if reason is not None:
            return reason
        found = []
        for name in (backend, "reference"):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                found.append(results(case.layer(name).train(), case.arguments()))
        assert_close(found[0], found[1])
    return None


def _by_output(outputs: list[Any], join: Callable[[list[Tensor]], Tensor]) -> Any:
    """Outputs of several calls joined; where each is several by name, one by one."""
    if isinstance(outputs[0], tuple):
        return type(outputs[0])(*(join(list(each)) for each in zip(*outputs, strict=True)))
    return join(outputs)


def _check_pieces(case: Case, backend: str, pieces: list[list[tuple[int, int]]]) -> str | None:
    """Compare a call with its pieces, a list of (start, end) for each row, run alone and put together again."""

    def apart(
        layer: nn.Module, arguments: Arguments, x: Tensor, states: tuple[Tensor, ...]
    ) -> tuple[Any, tuple[Tensor, ...]]:
        assert isinstance(layer, RecurrentLayer)
        columns, finals = [], []
        for b, row in enumerate(pieces):
            first = tuple(state[:, b : b + 1] for state in states)
            column, final = _row_in_pieces(layer, arguments, x[:, b : b + 1], first, b, row)
            columns.append(_by_output([column], lambda each: _lengthened(each[0], len(x))))
            finals.append(final)
        return _by_output(columns, lambda each: torch.cat(each, 1)), tuple(
            torch.cat(each, 1) for each in zip(*finals, strict=True)
        )

    layer, arguments = case.layer(backend), case.arguments()
    reason = refusal(layer, arguments)
    if reason is None:
        assert_close(results(layer, arguments), results(layer, arguments, apart))
    return reason


def _lengthened(column: Tensor, steps: int) -> Tensor:
    return torch.cat([column, column.new_zeros(steps - len(column), *column.shape[1:])])


def _row_in_pieces(
    layer: RecurrentLayer,
    arguments: Arguments,
    x: Tensor,
    states: tuple[Tensor, ...],
    b: int,
    row: list[tuple[int, int]],
) -> tuple[Any, tuple[Tensor, ...]]:
    """One row x (T, 1, D) as pieces. The forward direction begins in the first, the reverse one in the last."""
    begin = layer._first_states(1, states[0])
    cut_at_start = arguments.resets is not None and bool(arguments.resets[0, b])
    outputs, finals = [], list(states)
    for index, (start, end) in enumerate(row):
        if start == end:
            directions, names = 2 if layer.bidirectional else 1, layer.cell.graph.outputs
            sizes = tuple(directions * size for size in output_sizes(layer.cell.graph, layer.hidden_size))
            nothing = x.new_zeros(0, 1, sum(sizes))
            outputs.append(by_name(nothing, names, sizes) if names else nothing)
            continue
        forward = states if index == 0 and not cut_at_start else begin
        backward = states if index == len(row) - 1 else begin
        initial = tuple(
            torch.cat([f[:1], r[1:]]) if layer.bidirectional else f
            for f, r in zip(forward, backward, strict=True)
        )
        beside = {name: value[start:end, b : b + 1] for name, value in arguments.beside.items()}
        output, final = call_layer(layer, Arguments(x, beside=beside), x[start:end], initial)
        outputs.append(output)
        for i, new in enumerate(final):
            backward_end = new[1:] if index == 0 else finals[i][1:]
            finals[i] = torch.cat([new[:1], backward_end]) if layer.bidirectional else new
    return _by_output(outputs, torch.cat), tuple(finals)


def naive_call(
    layer: nn.Module, arguments: Arguments, x: Tensor, states: tuple[Tensor, ...]
) -> tuple[Any, tuple[Tensor, ...]]:
    assert isinstance(layer, RecurrentLayer)
    return run_naively(layer, x, states, arguments.lengths, arguments.resets, arguments.beside)


def refusal(layer: RecurrentLayer, arguments: Arguments) -> str | None:
    """Why the layer's backend cannot run such a call; None if it can."""
    x, lengths = arguments.x, arguments.lengths
    said = explain(layer, x, arguments.state, lengths=lengths, resets=arguments.resets, **arguments.beside)
    return dict(said.reasons).get(layer.backend) if layer.backend != AUTO else None


def _tuple(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


# Each returns None, or the reason why it could not be made.
CHECKS: dict[str, Callable[[Cell, str], str | None]] = {
    "gradients": check_gradients,
    "agreement": check_agreement,
    "stream": check_stream,
    "ragged": check_ragged,
    "resets": check_resets,
    "training": check_training,
}
