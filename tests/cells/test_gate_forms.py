"""Weights of gates that are made of others: skew, low_rank, block_diagonal."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import cellwise
from cellwise import (
    Cell,
    Recurrent,
    amax,
    block_diagonal,
    cumsum,
    linear,
    low_rank,
    sigmoid,
    skew,
    softmax,
    tanh,
    uniform,
)
from cellwise.errors import CellDefinitionError, LayerError, ShapeError
from cellwise.experiments.initialization import orthogonal_
from cellwise.graph.stored import restore, store
from cellwise.graph.text import listing
from cellwise.graph.verify import GraphError
from cellwise.nn.biases import filled
from cellwise.nn.definition import info_of
from cellwise.plan.cost import cost_of
from cellwise.plan.polynomial import b, d, h, t
from cellwise.testing import Case
from cellwise.testing.checks import check_case
from cellwise.understand.backward_equations import gradient_text
from cellwise.understand.catalogue import parameter_formula
from cellwise.understand.latex import latex
from cellwise.understand.trace.recording import record

D, H = 3, 4


class Formed(Cell):
    """One gate of each form, and one with a weight as it is learned."""

    gates = ("a", "s", "r", "k")

    def step(self, x, h):
        turned = skew(linear(h.s), 0.25)
        pressed = low_rank(x.r, 2) + low_rank((0.5 * h).r, 1 + 1)
        return sigmoid(x.a + h.a) * tanh(x.s + turned) + tanh(pressed) * block_diagonal(h.k, 2)


def _layer(**options: Any) -> Recurrent:
    torch.manual_seed(1)
    return Recurrent(Formed, D, H, **options)


def _made(layer: Recurrent) -> dict[str, Tensor]:
    info = info_of(*layer._definition())
    return dict(filled(layer._weights(info.names), info.filling)[0].by_stem)


def test_the_parameters_are_what_the_weights_are_made_of() -> None:
    assert {name: tuple(value.shape) for name, value in _layer().named_parameters()} == {
        "weight_ih_l0": (2 * H, D),
        "weight_ih_r_left_l0": (H, 2),
        "weight_ih_r_right_l0": (2, D),
        "weight_hh_l0": (H, H),
        "weight_hh_s_l0": (H, H),
        "weight_hh_r_left_l0": (H, 2),
        "weight_hh_r_right_l0": (2, H),
        "weight_hh_k_l0": (2, 2, 2),
        "bias_ih_l0": (3 * H,),
        "bias_hh_l0": (3 * H,),
    }


def test_the_weights_are_those_of_the_equations() -> None:
    layer = _layer()
    p = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
    a, s, r, k = _made(layer)["weight_hh"].split(H)
    assert torch.equal(a, p["weight_hh"])
    torch.testing.assert_close(s + s.t(), -0.5 * torch.eye(H))
    torch.testing.assert_close(r, p["weight_hh_r_left"] @ p["weight_hh_r_right"])
    assert torch.equal(k, torch.block_diag(*p["weight_hh_k"]))
    inputs = _made(layer)["weight_ih"].split(H)
    torch.testing.assert_close(inputs[2], p["weight_ih_r_left"] @ p["weight_ih_r_right"])


def test_layers_agree_with_the_naive_run() -> None:
    case = Case(
        Formed(),
        steps=3,
        hidden_size=H,
        num_layers=2,
        bidirectional=True,
        lengths=(3, 1),
        initial=True,
        resets=True,
    )
    for backend in ("cpu", "reference"):
        check_case(case, backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_and_the_plain_way_compute_the_same(dtype: torch.dtype) -> None:
    layer = _layer().to(dtype)
    x = torch.randn(5, 2, D, dtype=dtype)
    assert cellwise.explain(layer, x).chosen == "cpu"
    with torch.no_grad():
        wanted = _layer(backend="reference").double()(x.double())[0]
        for _ in range(2):  # the second time by the short way of plain calls
            found = layer(x)[0]
            torch.testing.assert_close(
                found.double(), wanted, rtol=0, atol=0.05 if dtype == torch.bfloat16 else 1e-6
            )
        layer.weight_hh_s_l0.zero_()
        assert not torch.equal(layer(x)[0], found), "the weight is made again in each call"


def test_streams_traces_and_dropped_weights_take_what_is_made() -> None:
    layer = _layer(dtype=torch.float64).eval()
    x = torch.randn(4, D, dtype=torch.float64)
    with torch.no_grad():
        whole = layer(x)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recurrent, "_stream_step", None)  # by compiled steps
        stream = layer.stream()
        assert torch.equal(torch.stack([stream(each) for each in x]), whole)
        for each in layer.parameters():
            each.data.mul_(1.5)  # which only reading tells, of each that weights are made of
            stream.reset()
            assert torch.equal(stream(x[0]), layer(x[:1])[0][0])
            each.data.div_(1.5)
    whole = layer(x)[0]
    torch.testing.assert_close(record(layer, x).output, whole)
    layer.train().weight_dropout = 0.999999
    state = torch.ones(1, H, dtype=torch.float64)
    torch.testing.assert_close(
        layer(x, state)[0], layer(x)[0], msg="all ways from a state go through its weights"
    )


def test_what_is_drawn_varies_as_a_whole_weight_does() -> None:
    class Low(Cell):
        gates = ("n",)

        def step(self, x, h):
            return tanh(x.n + low_rank(h.n, 8))

    class Heads(Cell):
        gates = ("n",)

        def step(self, x, h):
            return tanh(x.n + block_diagonal(h.n, 4))

    torch.manual_seed(2)
    wanted = 1 / math.sqrt(3 * 256)
    assert _made(Recurrent(Low, 2, 256))["weight_hh"].std().item() == pytest.approx(wanted, rel=0.05)
    heads = Recurrent(Heads, 2, 256)
    assert heads.weight_hh_n_l0.std().item() == pytest.approx(1 / math.sqrt(3 * 64), rel=0.05)
    assert orthogonal_(heads)
    for block in heads.weight_hh_n_l0:
        torch.testing.assert_close(block @ block.t(), torch.eye(64), rtol=0, atol=1e-5)


def test_the_views_tell_what_is_computed() -> None:
    cell = Formed()
    assert cell.equations.splitlines()[-4:] == [
        "W_ir = L_ir R_ir, of rank 2",
        "W_hs = A_hs − A_hsᵀ − 0.25 I",
        "W_hr = L_hr R_hr, of rank 2",
        "W_hk = diag(B_hk1, …, B_hk2)",
    ]
    assert r"W_{hs} &= A_{hs} - A_{hs}^\top - 0.25\, I" in latex(cell.graph)
    assert "δA_hs = δW_hs − δW_hsᵀ" in gradient_text(cell.graph).splitlines()
    assert "project k (block_diagonal=2)" in listing(cell.graph)
    assert parameter_formula(cell) == "2HD + 5H²/2 + 2D + 12H"

    counted, whole = cost_of(cell.graph), 2 * b * t * h * (3 * d + 4 * h)
    assert counted.parameters.at(d=D, h=H) == sum(p.numel() for p in _layer().parameters())
    assert counted.forward.products == whole + 4 * h * (d + h), "made once, then whole at each step"
    assert counted.training_memory["weights made of others"] == h * d + 3 * h * h


class Summed(Cell):
    """Sums of units of a value of x, of one of the state and of random numbers, through one triangle."""

    gates = ("n",)

    def step(self, x, h):
        return tanh(x.n + cumsum(h) - 0.5 * cumsum(softmax(x.n + h.n)) + 0.1 * cumsum(h * uniform()))


def test_sums_of_units_up_to_each_are_those_of_torch() -> None:
    torch.manual_seed(0)
    layer = Recurrent(Summed, D, H, dtype=torch.float64)
    assert [name for name, _ in layer.named_parameters()] == [
        f"{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    x, h = torch.randn(1, 2, D, dtype=torch.float64), torch.randn(2, H, dtype=torch.float64)
    torch.manual_seed(3)
    found = layer(x, h[None])[0][0]
    torch.manual_seed(3)
    drawn = torch.rand(2, H).double()
    n = x[0] @ layer.weight_ih_l0.t() + layer.bias_ih_l0
    rest = torch.softmax(n + h @ layer.weight_hh_l0.t() + layer.bias_hh_l0, -1)
    wanted = torch.tanh(n + h.cumsum(-1) - 0.5 * rest.cumsum(-1) + 0.1 * (h * drawn).cumsum(-1))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_what_is_not_learned_is_neither_dropped_nor_shown_as_a_gate() -> None:
    class Sums(Cell):
        gates = ("n",)

        def step(self, x, h):
            return tanh(x.n + h.n) + cumsum(h)

    cell, layer = Sums(), Recurrent(Sums, D, H, weight_dropout=0.5)
    state = torch.ones(1, H)
    layer.weight_hh_l0.data.zero_()
    steps = torch.stack([layer.train()(torch.zeros(1, D), state)[0] for _ in range(3)])
    assert torch.equal(steps, steps[:1].expand_as(steps)), "a triangle lost ones"
    assert cell.equations == "h' = tanh(W_in x + b_in + W_hn h + b_hn) + cumsum(h)"
    assert r"\operatorname{cumsum}(h_{t-1})" in latex(cell.graph)
    told = gradient_text(cell.graph)
    assert "W_hcumsum = 1 up to each unit, 0 beyond it" in told and "δW_hcumsum" not in told
    assert parameter_formula(cell) == "HD + H² + 2H"
    assert restore(store(cell.graph)).fingerprint == cell.graph.fingerprint
    assert cell.gates == ("n",)


def test_its_text_is_the_same_cell_and_a_damaged_one_is_none() -> None:
    graph = Formed().graph
    text = store(graph)
    assert restore(text).fingerprint == graph.fingerprint
    assert restore(text).forms == graph.forms
    for damage in ("skew=nan", "skew=1", "skew=0.25 low_rank=2", "low_rank=0", "shear=0.25"):
        with pytest.raises(GraphError):
            restore(text.replace("skew=0.25", damage))


@pytest.mark.parametrize(
    ("step", "error", "said"),
    [
        (lambda self, x, h: tanh(x.n + h.n + skew(h.n)), CellDefinitionError, "made in two ways"),
        (lambda self, x, h: tanh(x.n + skew(low_rank(h.n, 2))), ShapeError, "already, by low_rank"),
        (lambda self, x, h: skew(tanh(x.n + h.n)), ShapeError, "which is no gate"),
        (lambda self, x, h: tanh(x.n + h.n) * cumsum(2.0), ShapeError, "which has no units"),
        (lambda self, x, h: tanh(x.n + h.n) * cumsum(amax(h)), ShapeError, "which has no units"),
        (lambda self, x, h: tanh(x.n + h.cumsum) + cumsum(h), ShapeError, "something of its own cumsum"),
        (lambda self, x, h: tanh(x.n + low_rank(h.n, 0)), ShapeError, "rank of low_rank is 0"),
        (
            lambda self, x, h: tanh(x.n + block_diagonal(h.n, 2.0)),
            ShapeError,
            "heads of block_diagonal is 2.0",
        ),
        (lambda self, x, h: tanh(x.n + skew(h.n, "1")), ShapeError, "diagonal of skew is '1'"),
        (
            lambda self, x, h: tanh(low_rank(h.n, 2) + skew((h * x.n).n_left)),
            CellDefinitionError,
            "would call weight_hh_n_left",
        ),
    ],
)
def test_what_cannot_be_is_refused(step: Any, error: type[Exception], said: str) -> None:
    gates = {"n_left": ("n", "n_left"), "cumsum": ("n", "cumsum")}.get(said[-6:], ("n",))
    made = type("Mine", (Cell,), {"gates": gates, "step": step})()
    with pytest.raises(error, match=said):
        _ = made.graph


def test_sizes_that_a_form_has_not_are_refused() -> None:
    with pytest.raises(
        LayerError, match=r"gate i of SLSTM has shape \(5, 5\).*2 blocks, of which 5 is no multiple"
    ):
        Recurrent(cellwise.cells.SLSTM(heads=2), 3, 5)

    class Turned(Cell):
        gates = ("n",)

        def step(self, x, h):
            return tanh(skew(x.n) + h.n)

    with pytest.raises(LayerError, match=r"shape \(5, 3\), and is made of a square"):
        Recurrent(Turned, 3, 5)
    Recurrent(Turned, 5, 5)
    for function in (skew, lambda gate: low_rank(gate, 2), lambda gate: block_diagonal(gate, 2)):
        with pytest.raises(TypeError, match="inside a Cell"):
            function(torch.zeros(2))
