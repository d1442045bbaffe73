"""The table's numbers are the formulas at the sizes; fits find what is put in; the figure shows what was measured."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest
import torch

import cellwise
from cellwise import cells
from cellwise.understand.complexity import QUANTITIES, ComplexityError, Sizes, complexity, values
from cellwise.understand.figures import FigureError, in_style
from cellwise.understand.scaling import (
    FIELDS,
    PASSES,
    Curve,
    Fit,
    Scaling,
    crossing,
    exponent_of_growth,
    measure,
    ranges,
    slope,
)
from cellwise.understand.scaling_plot import draw_scaling

SMALL = Sizes(input_size=5, hidden_size=8, layers=2, batch=8, length=8)


@pytest.fixture(scope="module")
def scaling() -> Scaling:
    return measure([cells.get("rnn"), cells.get("mingru")], SMALL, repeats=2)


def test_a_table_holds_every_quantity_of_every_cell_at_the_sizes() -> None:
    costs = [complexity(name, SMALL.layers) for name in cells.FAMILIAR]
    table = dict(values(costs, SMALL, bytes_per_number=8))
    assert list(table) == [*(q.name for q in QUANTITIES), "depth, forward", "depth, backward"]
    layers = [cellwise.Recurrent(name, 5, 8, num_layers=2) for name in cells.FAMILIAR]
    assert table["parameters"] == tuple(sum(p.numel() for p in layer.parameters()) for layer in layers)
    held = [sum(p.nbytes for p in layer.double().parameters()) for layer in layers]
    for cost, inference, weights in zip(costs, table["memory, inference"], held, strict=True):
        rest = cost.inference_memory.total - cost.inference_memory["weights"]
        assert inference == weights + 8 * rest.at(**SMALL.letters)
    assert table["depth, forward"] == tuple(cost.forward_depth.at(8) for cost in costs)


def test_twice_the_length_is_twice_the_work() -> None:
    costs = [complexity(name) for name in cells.FAMILIAR]
    once, twice = (dict(values(costs, dataclasses.replace(Sizes(), length=n))) for n in (64, 128))
    for name in ("forward, products", "forward, pointwise", "backward, products", "backward, pointwise"):
        assert twice[name] == tuple(2 * n for n in once[name])
    assert once["parameters"] == twice["parameters"]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"hidden_size": 0}, "hidden size must be at least 1; got 0"),
        ({"input_size": -1}, "input size must be at least 1; got -1"),
        ({"layers": 0}, "layers must be at least 1; got 0"),
        ({"batch": 0}, "batch must be at least 1; got 0"),
        ({"length": -3}, "length must be at least 1; got -3"),
    ],
)
def test_a_size_that_cannot_be_is_refused(sizes: dict[str, int], said: str) -> None:
    with pytest.raises(ComplexityError, match=said):
        Sizes(**sizes)


def test_no_layers_have_no_cost() -> None:
    with pytest.raises(ComplexityError, match="layers must be at least 1"):
        complexity("gru", layers=0)


# --- growth -----------------------------------------------------------------------------------------------------


def test_ranges_are_halves_down_from_the_largest() -> None:
    assert ranges(Sizes(length=1000, batch=8, hidden_size=33)) == {
        "t": (31, 62, 125, 250, 500, 1000),
        "b": (1, 2, 4, 8),
        "h": (1, 2, 4, 8, 16, 33),
    }


@pytest.mark.parametrize("field", FIELDS.values())
def test_a_range_that_is_too_small_for_a_slope_is_refused(field: str) -> None:
    small = dataclasses.replace(Sizes(), **{field: 7})
    with pytest.raises(ComplexityError, match=f"largest {field.replace('_', ' ')} must be at least 8; got 7"):
        ranges(small)


def test_fits_find_what_is_put_in() -> None:
    sizes = (4, 8, 16, 32, 64, 128)
    assert slope(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    # A fixed cost pulls the slope down, and is seen through.
    with_fixed = [100 + n for n in sizes]
    assert slope(sizes, with_fixed) < 0.3
    assert exponent_of_growth(sizes, with_fixed) == pytest.approx(1, abs=0.011)
    # Less than nothing is no fixed cost: then it is the best power alone.
    seconds = [n - 3 for n in sizes]

    def error(power: float) -> float:
        terms = [n**power / y for n, y in zip(sizes, seconds, strict=True)]
        factor = sum(terms) / sum(term * term for term in terms)
        return sum((factor * term - 1) ** 2 for term in terms)

    assert exponent_of_growth(sizes, seconds) == min((p / 100 for p in range(30, 301)), key=error)
    assert crossing(sizes, [20 * n + 0.5 * n * n for n in sizes]) == pytest.approx(40)
    assert crossing(sizes, [20 * n for n in sizes]) is None, "no square"
    assert crossing(sizes, [20 * n * n for n in sizes]) is None, "nothing but a square"


def curve(seconds: list[tuple[float, ...]]) -> Curve:
    sizes = (4, 8, 16, 32)
    return Curve("rnn", "forward", "t", sizes, tuple(seconds), sizes, (1, 0))


@pytest.mark.parametrize(
    ("low", "high", "said"), [(1.0, 1.05, "yes"), (1.5, 1.6, "no"), (0.5, 1.7, "unsure"), (0.7, 0.8, "no")]
)
def test_linear_is_said_only_as_surely_as_the_repeats_agree(low: float, high: float, said: str) -> None:
    assert curve([(n**low, n ** ((low + high) / 2), n**high) for n in (4, 8, 16, 32)]).linear == said


def test_the_spread_is_that_of_the_repeats() -> None:
    fit = Fit.of([1.0, 3.0, 2.0])
    assert (fit.middle, fit.low, fit.high) == (2.0, 1.0, 3.0)
    assert str(fit) == "2.00 (1.00 to 3.00)"


def test_every_size_is_measured_in_every_pass(scaling: Scaling) -> None:
    assert len(scaling.curves) == 2 * len(PASSES) * len(FIELDS)
    for each in scaling.curves:
        assert each.sizes == (1, 2, 4, 8)
        assert all(len(repeats) == 2 and min(repeats) > 0 for repeats in each.seconds)
        cost = complexity(each.cell, SMALL.layers)
        total = cost.forward.total + (cost.backward.total if each.work == "training step" else 0)
        numbers = [total.at(**(SMALL.letters | {each.letter: size})) for size in each.sizes]
        assert list(each.operations) == numbers
        linear, square = each.terms
        fixed = numbers[0] - linear - square
        assert [fixed + linear * n + square * n * n for n in each.sizes] == numbers
        if each.letter != "h":
            assert each.predicted_exponent == pytest.approx(1)
            assert each.predicted_crossing is None
    # All sizes that are the largest in their range are one and the same measurement.
    ends = {each.seconds[-1] for each in scaling.curves if (each.cell, each.work) == ("rnn", "forward")}
    assert len(ends) == 1


def test_where_the_square_takes_over_by_the_count() -> None:
    # Two layers of an RNN: 2 (d + 3h) for products and 8 for the rest per unit, forward.
    (found,) = measure([cells.get("rnn")], SMALL, 1).of("forward", "h")
    assert found.predicted_crossing == pytest.approx((2 * 5 + 8) / 6)


def test_the_threads_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    torch.set_num_threads(2)
    measure([cells.get("rnn")], SMALL, 1, report=lambda line: seen.append(torch.get_num_threads()))
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2
    state = torch.get_rng_state()

    def fail(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure([cells.get("rnn")], SMALL, 1, report=fail)
    assert torch.get_num_threads() == 2
    assert torch.equal(state, torch.get_rng_state())


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ComplexityError, match="at least one repeat"):
        measure([cells.get("rnn")], SMALL, repeats=0)
    with pytest.raises(ComplexityError, match="called rnn"):
        measure([cells.get("rnn"), cells.get("rnn")], SMALL)


# --- the figure -------------------------------------------------------------------------------------------------


def test_the_figure_shows_what_was_measured(scaling: Scaling) -> None:
    figure = draw_scaling(scaling)
    panels = figure.axes
    assert len(panels) == len(PASSES) * len(FIELDS)
    assert "training step, by hidden size h" in panels[-1].get_title(loc="left")
    dots = [line for line in panels[0].lines if line.get_marker() == "o"]
    drawn = {tuple(line.get_ydata()) for line in dots}
    assert drawn == {tuple(1000 * n for n in each.medians) for each in scaling.of("forward", "t")}
    # The counted line meets the last dot.
    for line in panels[0].lines:
        if line.get_linestyle() != "None" and len(line.get_xdata()) == 4:
            assert any(line.get_ydata()[-1] == pytest.approx(each[-1]) for each in drawn)
    written = [text.get_text() for text in figure.legends[0].get_texts()]
    assert written == [*(f"{cell} ({backend})" for cell, backend in scaling.backends), "h² takes over"]


def test_without_matplotlib_there_is_one_sentence(scaling: Scaling, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(FigureError, match=r"needs matplotlib, .*: pip install matplotlib"):
        draw_scaling(scaling)
    with pytest.raises(FigureError):
        in_style()
