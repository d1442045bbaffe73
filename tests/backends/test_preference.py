"""What "auto" takes where torch's operator and the kernels can both run a call, held against what was measured."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import cellwise
from cellwise import Recurrent
from cellwise.backends import cost_model, preference
from cellwise.backends.base import Workload
from cellwise.backends.cost_model import MODES, TERMS, Key, LayerSize, Model
from cellwise.runtime import dispatch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FILES = [BENCHMARKS / f"preference_rows{kind}.jsonl" for kind in ("", "_bfloat16")]
ROWS = [json.loads(line) for file in FILES for line in file.read_text().splitlines()]
KEYS = sorted(cost_model.models())


def rows_of(key: Key) -> list[dict[str, Any]]:
    wanted = [key.vectors, key.family, key.dtype, key.ragged]
    return [row for row in ROWS if [row[name] for name in ("vectors", "family", "dtype", "ragged")] == wanted]


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fit_preference

    yield fit_preference
    for name in ("fit_preference", "preference"):
        sys.modules.pop(name, None)


@pytest.fixture(params=[32, 64])
def vectors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(preference, "vector_bytes", lambda: request.param)
    dispatch._best.cache_clear()
    yield request.param
    dispatch._best.cache_clear()


def chosen(layer: torch.nn.Module, *shape: int, grad: bool = False, **given: Any) -> str | None:
    with torch.set_grad_enabled(grad):
        return cellwise.explain(layer, torch.zeros(*shape), **given).chosen


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["lstm", "gru", "rnn_tanh", "lstm_projected"])
@pytest.mark.parametrize("vectors", [32, 64])
def test_the_table_has_every_kind_of_call(vectors: int, family: str) -> None:
    dense = {Key(vectors, family, "float32", False, mode) for mode in MODES}
    ragged = {Key(vectors, family, "float32", True, mode) for mode in MODES}
    # A projected LSTM of ragged rows has a model where enough of them were measured.
    assert dense | (set() if family == "lstm_projected" else ragged) <= set(KEYS)


@pytest.mark.parametrize("key", [KEYS[0], KEYS[-1]], ids=str)
def test_the_table_is_what_the_rows_give(key: Key, fit: Any) -> None:
    shipped, rows = cost_model.models()[key], rows_of(key)
    found = fit.fitted(rows, key.mode)
    for row in rows:
        size = [fit.size_of(row)]
        assert shipped.ratio(size) == pytest.approx(found.ratio(size), rel=0.02)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_what_is_chosen_is_what_was_measured_faster(key: Key, fit: Any) -> None:
    model, rows = cost_model.models()[key], rows_of(key)
    measured = [row[key.mode][0] / row[key.mode][1] for row in rows]
    sizes = [[fit.size_of(row)] for row in rows]
    taken = [model.ratio(size) > preference.margin_of(model.uncertainty_at(size)) for size in sizes]
    got = [ratio if kernels else 1.0 for ratio, kernels in zip(measured, taken, strict=True)]
    best = [max(ratio, 1.0) for ratio in measured]
    # One row in ten or so is disturbed: the machine measured was in use.
    assert sum(ratio < 0.95 for ratio in got) <= max(1, len(rows) // 20)
    assert geometric_mean(got) > 0.99
    # Of a gain that is no more than the rows are uncertain, nothing has to be taken.
    assert geometric_mean(got) > geometric_mean(best) ** 0.5 or geometric_mean(best) < 1.1


@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_is_chosen_where_it_was_measured(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without AVX-512 BF16, or with AMX, leaves it to torch's operator; so does autocast in float16."""
    monkeypatch.setattr(preference, "multiplies_bfloat16", lambda: has)
    monkeypatch.setattr(preference, "vector_bytes", lambda: 64)
    dispatch._best.cache_clear()
    layer, x = Recurrent("gru", 64, 128), torch.zeros(100, 16, 64)
    taken = "cpu" if has else "native"
    with torch.autocast("cpu", torch.bfloat16):
        assert cellwise.explain(layer, x).chosen == taken
    with torch.autocast("cpu", torch.float16):
        assert cellwise.explain(layer, x).chosen == "native"
    assert cellwise.explain(layer.bfloat16(), x.bfloat16()).chosen == taken
    dispatch._best.cache_clear()


def geometric_mean(numbers: list[float]) -> float:
    return math.exp(sum(map(math.log, numbers)) / len(numbers))


def test_a_table_that_is_written_reads_the_same() -> None:
    models = dict(list(cost_model.models().items())[:3])
    assert cost_model.read(cost_model.write(models, {"by": "a test"})) == models


# --- the model ------------------------------------------------------------------------------------------------------


def a_model() -> Model:
    """Torch takes 1 us a step, the kernels 2 us."""
    factors = {side: [0.0] * len(TERMS[side](LayerSize(1, 1, 1, 1, 1))) for side in TERMS}
    factors["native"][1], factors["cpu"][1] = 1e-6, 2e-6
    return Model(
        {side: tuple(each) for side, each in factors.items()}, (0.0,) * 15, LayerSize(*[10**6] * 5), 0.1
    )


def test_the_time_of_a_stack_is_that_of_its_layers_and_directions() -> None:
    model, one, two = a_model(), LayerSize(10, 2, 20, 3, 4), LayerSize(10, 2, 20, 8, 4)
    assert model.ratio([one]) == model.ratio([one, one, two, two]) == pytest.approx(0.5)


@pytest.mark.parametrize("key", KEYS[::7], ids=str)
def test_threads_that_were_not_measured_are_never_thought_to_help_the_kernels_more_than_torch(
    key: Key,
) -> None:
    model = cost_model.models()[key]
    for B, H in ((1, 64), (16, 128), (256, 512)):
        size = [LayerSize(100, B, 100 * B, H, H)]
        assert model.ratio(size, 8) <= model.ratio(size, 2) == model.ratio(size, 1)
        assert preference.margin_of(0.1, 8) > preference.margin_of(0.1, 2) > preference.margin_of(0.1, 1)


def test_near_a_known_call_its_own_measurement_counts_most() -> None:
    call, near, far = (
        LayerSize(10, 2, 20, 3, 4),
        LayerSize(11, 2, 22, 3, 4),
        LayerSize(900, 64, 57600, 300, 400),
    )
    model = replace(a_model(), known=((cost_model.sizes_of(call), math.log(2)),))
    assert 0.5 < model.ratio([near]) < model.ratio([call]) < 1
    assert model.ratio([call]) == pytest.approx(0.5 * 2 ** (1 / 1.3))
    wide = replace(model, uncertainty=0.3)
    assert (
        0.2 > wide.uncertainty_at([near]) > wide.uncertainty_at([call]) == pytest.approx(cost_model._SPREAD)
    )
    assert wide.uncertainty_at([call, far]) == pytest.approx(0.3)
    assert model.ratio([far]) == pytest.approx(0.5)


def test_beyond_what_was_measured_the_polynomial_is_that_of_the_edge() -> None:
    model = replace(cost_model.models()[Key(64, "lstm", "float32", False, "infer")], known=())
    inside = LayerSize(*model.largest)
    assert model._unexplained(inside) == model._unexplained(LayerSize(*(10 * each for each in inside)))


# --- the choice -----------------------------------------------------------------------------------------------------


def test_ragged_rows_go_to_the_kernels(vectors: int) -> None:
    layer = cellwise.LSTM(64, 64)
    lengths = torch.arange(100, 116)
    for grad in (False, True):
        assert chosen(layer, 200, 16, 64, grad=grad, lengths=lengths) == "cpu"
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            torch.zeros(200, 16, 64), lengths, enforce_sorted=False
        )
        with torch.set_grad_enabled(grad):
            assert cellwise.explain(layer, packed).chosen == "cpu"


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_one_step_packs_nothing_on_either_way(kind: str, vectors: int) -> None:
    layer = getattr(cellwise, kind)(64, 256)
    for batch in (1, 8):
        assert chosen(layer, 1, batch, 64) == chosen(layer, 1, batch, 64, grad=True) == "cpu"


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_few_rows_that_are_no_whole_vectors_go_to_the_kernels(kind: str, vectors: int) -> None:
    for grad in (False, True):
        assert chosen(getattr(cellwise, kind)(37, 100), 3, 2, 37, grad=grad) == "cpu"
    assert chosen(cellwise.LSTM(64, 128, proj_size=64), 4, 4, 64) == "cpu"


def test_a_model_knows_what_kernels_do_for_few_rows() -> None:
    def last(size: LayerSize, lanes: int) -> tuple[float, ...]:
        """What is packed, forward and for the way back, whether the call takes the long way, whether rows are padded,
        and their units.
        """
        terms = cost_model.TERMS["cpu"](size, lanes=lanes)
        return *terms[9:11], *terms[12:]

    square, all_of_it = 128 * 128, 128 * 192
    assert last(LayerSize(1, 4, 4, 64, 128), 16) == (0, 0, False, False, 0)
    assert last(LayerSize(1, 4, 4, 64, 128), 0) == (all_of_it, square, True, False, 0)
    assert last(LayerSize(4, 32, 128, 64, 128), 16) == (all_of_it, 0, False, False, 0)
    assert last(LayerSize(4, 40, 160, 64, 128), 16) == (all_of_it, square, False, False, 0)
    assert last(LayerSize(4, 32, 120, 64, 128), 16) == (all_of_it, 0, True, False, 0)  # ragged
    assert last(LayerSize(1, 4, 4, 64, 100), 16) == (0, 100 * 100, False, False, 0)
    assert last(LayerSize(4, 80, 320, 64, 100), 16) == (100 * 164, 100 * 100, True, True, 320 * 128)
    assert cost_model.lanes_of(64, "float64") == cost_model.lanes_of(32, "float32") == 8
    assert cost_model.lanes_of(64, "bfloat16") == 0


def test_what_is_faster_depends_on_the_call(vectors: int) -> None:
    assert chosen(cellwise.LSTM(1, 128), 784, 64, 1, grad=True) == "cpu"
    gru = cellwise.GRU(64, 128)
    assert chosen(gru, 100, 16, 64) == chosen(gru, 100, 16, 64, grad=True) == "cpu"
    assert chosen(cellwise.GRU(1024, 256), 20, 1, 1024) == "cpu"  # a wide input, in blocks of steps


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_small_calls_go_to_the_kernels(kind: str, vectors: int) -> None:
    layer = getattr(cellwise, kind)(64, 128)
    assert chosen(layer, 1, 1, 64) == "cpu"
    for shape in ((4, 8, 64), (8, 16, 64)):
        for grad in (False, True):
            assert chosen(layer, *shape, grad=grad) == "cpu"


def test_in_evaluation_a_recorded_call_must_gain_with_and_without_a_backward_pass() -> None:
    sizes = (100, 16, 1600, False)
    assert preference._modes(Workload(*sizes, recorded=False, training=True, threads=1)) == ("infer",)
    assert preference._modes(Workload(*sizes, recorded=True, training=True, threads=1)) == ("train",)
    assert preference._modes(Workload(*sizes, recorded=True, training=False, threads=1)) == (
        "record",
        "train",
    )


def test_what_has_no_numbers_for_sizes_goes_to_the_kernels() -> None:
    from torch._subclasses import FakeTensorMode

    layer = Recurrent("gru", 3, 4)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        x = fake.from_tensor(torch.zeros(7, 5, 3))
        assert cellwise.explain(layer, x).chosen == "cpu"


def test_explain_names_the_call_and_the_ratio() -> None:
    said = cellwise.explain(cellwise.LSTM(650, 650), torch.zeros(35, 20, 650))
    assert said.chosen == "native"
    because = said.because
    assert because is not None
    assert because.startswith("by measurements ")
    assert "as fast as the kernels" in because
    assert because.endswith("for T=35, B=20, D=650, H=650 in training")
    layer = cellwise.GRU(64, 256)
    said = cellwise.explain(layer, torch.zeros(100, 32, 64))
    assert said.chosen == "cpu"
    assert "times as fast as torch's operator for T=100, B=32, D=64, H=256 in training" in str(said)


def test_sizes_of_nothing_choose_too() -> None:
    layer = cellwise.GRU(3, 4)
    assert layer(torch.zeros(7, 0, 3))[0].shape == (7, 0, 4)
    assert cellwise.explain(layer, torch.zeros(7, 2, 3), lengths=[0, 0]).chosen in ("native", "cpu")
