"""Random cells on the CPU kernels against the naive run: `python tests/trials/trial_random_cells.py`.

Each cell meets random calls, in float64 and float32: sizes, lengths, resets, directions, layers, projections,
recomputing, gradients span by span, initial states or none. Printed: how many cells and calls, and every wrong number
with the cell and the call.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from unittest import mock

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from cellwise import Cell
from cellwise.backends.compiled import backward_pass
from cellwise.nn import Recurrent
from cellwise.plan.backward import projects
from cellwise.testing import Case, poisoned_memory, results, strategies
from cellwise.testing.checks import naive_call
from cellwise.testing.compare import assert_close

# What a fault may come as: a wrong number is the AssertionError of a comparison.
FAULTS = (AssertionError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


class Projected(Recurrent):
    """Any cell with the projection of LSTMs."""

    def __init__(self, *args: object, proj_size: int, **options: object) -> None:
        self.proj_size = proj_size
        super().__init__(*args, **options)


@dataclass
class Tally:
    cells: int = 0
    calls: int = 0
    wrong: list[str] = field(default_factory=list)


@st.composite
def cases(draw: st.DrawFn, cell: Cell) -> Case:
    steps, batch = draw(st.sampled_from([1, 2, 3, 7, 12])), draw(st.sampled_from([1, 2, 3, 5, 11]))
    ragged, unbatched = draw(st.booleans()), batch == 1 and draw(st.booleans())
    rows = st.lists(st.integers(0, steps), min_size=batch, max_size=batch)
    hidden = draw(st.sampled_from([1, 2, 3, 5, 8, 9, 17, 33]))
    # A square is not made of others once the state is projected.
    can_project = projects(cell.graph) and hidden > 1 and not cell.graph.forms
    case = Case(
        cell,
        steps=steps,
        batch=batch,
        input_size=draw(st.sampled_from([1, 2, 3, 9, 17])),
        hidden_size=hidden,
        num_layers=draw(st.sampled_from([1, 1, 2])),
        bias=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        bidirectional=draw(st.booleans()),
        proj_size=draw(st.integers(1, hidden - 1)) if can_project and draw(st.booleans()) else 0,
        unbatched=unbatched,
        lengths=tuple(draw(rows)) if ragged else None,
        resets=draw(st.booleans()),
        initial=draw(st.booleans()),
        recompute=draw(st.booleans()),
        situation="drawn",
    )
    return case if case.is_possible else replace(case, num_layers=1, bidirectional=False)


def layer_of(case: Case, dtype: torch.dtype) -> Recurrent:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        options = {
            name: getattr(case, name) for name in ("num_layers", "bias", "batch_first", "bidirectional")
        }
        kind, more = (Projected, {"proj_size": case.proj_size}) if case.proj_size else (Recurrent, {})
        made = kind(case.cell, case.width, case.hidden_size, backend="cpu", **options, **more)
    made.recompute = case.recompute
    return made.to(dtype)


def compare(case: Case, span: int | None) -> list[str]:
    """What is wrong with this call, in float64 and in float32."""
    rows = backward_pass.span_rows if span is None else lambda *_: span
    problems = []
    backward_pass.backward_pass.cache_clear()  # which remembers the spans of each shape
    with mock.patch.object(backward_pass, "span_rows", rows):
        layer, arguments = layer_of(case, torch.float64), case.arguments()
        truth = results(layer, arguments, naive_call)
        try:
            assert_close(results(layer, arguments), truth, tolerance=1e-9)
        except FAULTS as error:
            problems.append(f"float64: {type(error).__name__}: {error}")
        layer, arguments = layer_of(case, torch.float32), case.arguments(torch.float32)
        single = results(layer, arguments, naive_call)
        try:
            found = results(layer, arguments)
            for name, wanted in truth.items():
                error, room = _distance(found[name], wanted), 20 * _distance(single[name], wanted) + 1e-4
                if not error <= room:
                    problems.append(f"float32: {name} {tuple(wanted.shape)}: off by {error:.3g} of its norm")
        except FAULTS as error:
            problems.append(f"float32: {type(error).__name__}: {error}")
    return problems


def _distance(found: Tensor, truth: Tensor) -> float:
    if not bool(truth.isfinite().all()):
        return 0.0 if torch.equal(found.isfinite(), truth.isfinite()) else float("inf")
    return float((found.double() - truth).norm() / (truth.norm() + 1e-3 * truth.numel() ** 0.5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines", type=int, default=10, help="the longest step")
    options = parser.parse_args()
    tally, start = Tally(), time.monotonic()
    torch.set_num_threads(1)

    @seed(options.seed)
    @settings(
        max_examples=options.cells,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data(), cell=strategies.cells(gradient=False, most_lines=options.lines))
    def walk(data: st.DataObject, cell: Cell) -> None:
        tally.cells += 1
        for _ in range(2):
            case, span = data.draw(cases(cell)), data.draw(st.sampled_from([None, None, 1, 4]))
            tally.calls += 1
            with poisoned_memory():
                problems = compare(case, span)
            if problems:
                tally.wrong.append(f"{cell.equations}\n  {case}, span {span}\n  " + "\n  ".join(problems))
                print(tally.wrong[-1], flush=True)
        if tally.cells % 100 == 0:
            print(f"{tally.cells} cells, {time.monotonic() - start:.0f} s", flush=True)

    walk()
    print(
        f"{tally.cells} cells, {tally.calls} calls, float64 and float32: {len(tally.wrong)} with a wrong number"
    )
    raise SystemExit(bool(tally.wrong))


if __name__ == "__main__":
    main()
