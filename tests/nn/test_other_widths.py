"""States, outputs and gates of other widths than H: against plain torch loops that know no padding."""

from __future__ import annotations

import copy
import pickle
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import cellwise
from cellwise import (
    Cell,
    Initial,
    Recurrent,
    Scalar,
    Vector,
    amax,
    cumsum,
    exp,
    layer_norm,
    linear,
    mean,
    skew,
    tanh,
)
from cellwise.cells import SCRN
from cellwise.cells.stored import restore_cell, store_cell
from cellwise.errors import CellDefinitionError, CellOptionError, InputError, LayerError, ShapeError
from cellwise.graph.stored import restore, store
from cellwise.nn.definition import info_of
from cellwise.plan.cost import computed_cost, cost_of
from cellwise.tasks.errors import OptionError
from cellwise.tasks.member_cells import cells_of
from cellwise.testing import check_cell
from cellwise.understand import view
from cellwise.understand.complexity import Sizes, computed_beyond

T, B, D, H = 5, 3, 4, 6


class Slots(Cell):
    """A slow memory of its own size beside h, with all that counts units: norms, sums, a weight made of another."""

    gates = ("s", "n", "m", "k", "w", "p")
    states = ("h", "s", "c")
    outputs = ("h", "s", "p")
    inputs = ("dt",)
    slots: int = 3
    widths = {"s": "slots", "c": 1, "p": 2}  # noqa: RUF012
    gain, rate = Vector((0.5, 1.5)), Scalar(0.3)
    h0, s0 = Initial((-1.0, 1.0)), Initial((-1.0, 1.0))

    def step(self, x, h, s, c, dt):
        s = exp(-dt) * s + tanh(layer_norm(x.s + linear(h.s), self.gain)) + skew(s.w, 0.1)
        h = tanh(x.n + linear(s.m)) * mean(s) + exp(-dt) * h + self.rate * amax(s)
        c = 0.5 * c + linear(h.k)
        return (0.1 * h).p, h + mean(c), s, c


def _layer(cell: Any, **options: Any) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(cell, D, H, **{"dtype": torch.float64, "backend": "cpu", **options})


def _x() -> Tensor:
    return torch.randn(T, B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _scrn(p: dict[str, Tensor], end: str, x: Tensor, h: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Mikolov et al., on parameters in their true sizes."""
    context = p[f"weight_hh_m{end}"].shape[1]
    into_s, into_h = p[f"weight_ih{end}"].split([context, H])
    r, u = p[f"weight_hh{end}"].split(H)
    b, c = p[f"bias_hh{end}"].split(H)
    s = 0.05 * x @ into_s.t() + 0.95 * s
    h = torch.sigmoid(x @ into_h.t() + p[f"bias_ih{end}"] + h @ r.t() + b + s @ p[f"weight_hh_m{end}"].t())
    return h @ u.t() + c + s @ p[f"weight_hh_p{end}"].t(), h, s


def _stack(p: dict[str, Tensor], x: Tensor, h: Tensor, s: Tensor, lengths: Tensor, resets: Tensor) -> Any:
    """Two layers in two directions, row by row."""
    finals: list[list[Tensor]] = [[], []]
    for layer in (0, 1):
        sides = []
        for way, end in ((1, f"_l{layer}"), (-1, f"_l{layer}_reverse")):
            number = len(finals[0])
            rows, last = [], []
            for row in range(B):
                carried, outputs = (h[number, row], s[number, row]), {}
                for t in range(int(lengths[row]))[::way]:
                    if way > 0 and resets[t, row]:
                        carried = tuple(torch.zeros_like(each) for each in carried)
                    outputs[t], *new = _scrn(p, end, x[t, row], *carried)
                    carried = tuple(new)
                    if way < 0 and t and resets[t, row]:
                        carried = tuple(torch.zeros_like(each) for each in carried)
                rows.append(torch.stack([outputs.get(t, x.new_zeros(H)) for t in range(T)]))
                last.append(carried)
            sides.append(torch.stack(rows, 1))
            for final, each in zip(finals, zip(*last, strict=True), strict=True):
                final.append(torch.stack(each))
        x = torch.cat(sides, -1)
    return x, *(torch.stack(each) for each in finals)


@pytest.mark.parametrize("context", [2, 9])
def test_a_stack_is_a_plain_loop_with_lengths_resets_and_both_directions(context: int) -> None:
    layer = _layer(SCRN(context=context), num_layers=2, bidirectional=True)
    shapes = {name: tuple(each.shape) for name, each in layer.named_parameters()}
    assert shapes["weight_ih_l0"] == (context + H, D) and shapes["weight_ih_l1"] == (context + H, 2 * H)
    assert shapes["weight_hh_m_l0"] == (H, context) and shapes["weight_hh_l0"] == (2 * H, H)
    x, lengths = _x().requires_grad_(), torch.tensor([5, 2, 4])
    resets = torch.rand(T, B, generator=torch.Generator().manual_seed(2)) < 0.4
    h, s = (torch.randn(4, B, size, dtype=torch.float64, requires_grad=True) for size in (H, context))
    output, finals = layer(x, (h, s), lengths=lengths, resets=resets)
    parameters = dict(layer.named_parameters())
    wanted = _stack(parameters, x, h, s, lengths, resets)
    read = [x, h, s, *parameters.values()]
    sources = (output, *finals)
    seeds = [torch.randn_like(each) for each in sources]
    found = torch.autograd.grad(sources, read, seeds)
    for one, other in zip(
        (*sources, *found), (*wanted, *torch.autograd.grad(wanted, read, seeds)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    single = copy.deepcopy(layer).float()(x.float(), (h.float(), s.float()), lengths=lengths, resets=resets)
    torch.testing.assert_close(single[0].double(), output, rtol=1e-5, atol=1e-5)


def test_a_cell_with_all_kinds_is_checked() -> None:
    # More than the 3 units of h in most cases, fewer than the 17 in others.
    assert "gradients, agreement, stream, ragged, resets" in str(check_cell(Slots(slots=5), "cpu"))


def test_sizes_are_the_true_ones_wherever_they_are_seen() -> None:
    layer = _layer(Slots, bidirectional=True)
    dt = torch.rand(T, B, dtype=torch.float64)
    output, (h, s, c) = layer(_x(), dt=dt)
    assert [each.shape[-1] for each in output] == [2 * H, 6, 4]
    assert [each.shape for each in (h, s, c)] == [(2, B, H), (2, B, 3), (2, B, 1)]
    assert all(each.is_contiguous() for each in (h, s, c))
    assert layer.s0_l0.shape == layer.gain_l0.shape == (3,)
    assert layer.weight_hh_w_l0.shape == (3, 3) and layer.weight_hh_m_l0.shape == (H, 3)
    assert layer.weight_hh_l0.shape == (3 + 1 + 2, H) and layer.bias_hh_l0.shape == (3 + 2,)
    stream = _layer(Slots).stream(B)
    step = stream(_x()[0], dt=dt[0])
    assert step.p.shape == (B, 2) and stream.state[1].shape == (1, B, 3)
    packed = torch.nn.utils.rnn.pack_padded_sequence(_x(), torch.tensor([5, 4, 1]))
    several, _ = _layer(Slots)(
        packed, dt=torch.nn.utils.rnn.pack_padded_sequence(dt, torch.tensor([5, 4, 1]))
    )
    assert several.s.data.shape == (10, 3)
    with pytest.raises(InputError, match="one number a row, as it is used with values of several widths"):
        layer(_x(), dt=torch.rand(T, B, H, dtype=torch.float64))
    with pytest.raises(InputError, match=r"Expected hidden\[1\] size \(2, 3, 3\)"):
        layer(_x(), (h, h, c), dt=dt)


def test_masks_second_derivatives_and_programs_follow() -> None:
    class Masked(SCRN):
        def step(self, x, h, s):
            y, h, s = super().step(x, cellwise.dropout(h, 0.3), s)
            return y, h, cellwise.zoneout(s, 0.5 * s, 0.5)

    found = []
    for backend in ("cpu", "reference"):
        layer = _layer(Masked(context=2), backend=backend, weight_dropout=0.2)
        torch.manual_seed(4)
        output, _ = layer(_x())
        (first,) = torch.autograd.grad(output.square().sum(), [layer.weight_hh_m_l0], create_graph=True)
        found.append((output, first, *torch.autograd.grad(first.square().sum(), [layer.weight_ih_l0])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    layer = _layer(SCRN(context=2)).eval()
    exported = torch.export.export(layer, (_x(),)).module()
    torch.testing.assert_close(exported(_x())[0], layer(_x())[0])


def test_nothing_is_in_the_padding_that_is_not_in_the_value() -> None:
    """Zeros there would be divided by, and their NaN come back through every product."""

    class Divided(Cell):
        gates = ("s", "n")
        states = ("h", "s")
        widths = {"s": 2}  # noqa: RUF012
        scale = Vector((1.0, 2.0))

        def step(self, x, h, s):
            s = (s + exp(x.s)) / self.scale
            s = s / cellwise.sum(s) + cellwise.log(self.scale)
            return tanh(x.n + s.n), s

    layer = _layer(Divided)
    output, (_, s) = layer(_x())
    output.sum().backward()
    assert torch.isfinite(output).all() and torch.isfinite(s).all()
    assert all(torch.isfinite(each.grad).all() for each in layer.parameters())


def test_a_cell_without_widths_is_what_it_was() -> None:
    plain = cellwise.cells.get("scrn")
    assert plain.graph.widths == () and "widths" not in store(plain.graph)
    assert SCRN(context="H").graph.fingerprint == plain.graph.fingerprint
    layer = _layer(plain)
    info = info_of(*layer._definition())
    assert info.padding is None and info.stack.graph is plain.graph
    # Kernels of a cell that adds no units up are those of the cell without widths.
    wide = info_of(*_layer(SCRN(context=9))._definition()).stack
    assert wide.hidden_size == 9 and wide.graph.fingerprint == plain.graph.fingerprint


def test_it_is_stored_shown_and_counted() -> None:
    cell = Slots()
    assert restore(store(cell.graph)).fingerprint == cell.graph.fingerprint
    again = restore_cell(store_cell(cell))
    torch.testing.assert_close(
        _layer(again)(_x(), dt=_x()[..., 0])[0], _layer(cell)(_x(), dt=_x()[..., 0])[0]
    )
    assert pickle.loads(pickle.dumps(cell)).graph.widths == cell.graph.widths
    assert "s has 3 units\nc has 1 unit\np has 2 units" in view(cell, "equations")
    assert r"s_t &\in \mathbb{R}^3" in view(cell, "latex")
    assert "/ 3" in view(cell, "gradient")
    scrn = SCRN(context="H / 3")
    assert str(cost_of(scrn.graph).parameters) == "h(4d + 8h + 9)/3"
    assert "Kernels compute rows of 9, " in str(computed_beyond(SCRN(context=9), Sizes(hidden_size=H)))
    needed, (computed, width) = cost_of(scrn.graph), computed_cost(scrn.graph, H)
    assert width == H and computed.forward.products.at(b=1, t=1, d=D, h=width) == 2 * (2 * H * D + 4 * H * H)
    assert needed.forward.products.at(b=1, t=1, d=D, h=H) == 2 * ((H + 2) * D + 2 * H * H + 2 * H * 2)


def test_what_cannot_be_is_said_in_a_sentence() -> None:
    class Mixed(SCRN):
        def step(self, x, h, s):
            y, h, s = super().step(x, h, s)
            return y, h * tanh(s), s

    with pytest.raises(ShapeError, match=r"has 3 units.*\n.*return y, h \* tanh\(s\), s") as error:
        _ = Mixed(context=3).graph
    assert "A gate leads from one width to another" in str(error.value)
    with pytest.raises(CellOptionError, match=r"context='h' \(it takes a number of units"):
        _ = SCRN(context="h").graph
    with pytest.raises(LayerError, match=r"s of SCRN has H/4 units; got hidden_size=6, no multiple of 4"):
        Recurrent(SCRN(context="H / 4"), 2, 6)
    for widths, problem in (
        ({"q": 3}, "which is no state"),
        ({"s": 0}, "says that s has 0 units"),
        (3, "has widths = 3"),
    ):
        with pytest.raises(CellDefinitionError, match=problem):
            type("Wrong", (SCRN,), {"widths": widths, "step": SCRN.step})

    narrow = type("Narrow", (SCRN,), {"widths": {"y": 3}, "step": SCRN.step})
    assert _layer(narrow)(_x())[0].shape == (T, B, 3)
    with pytest.raises(
        OptionError, match="gives 3 units a step, and a task reads one output of hidden_size units"
    ):
        cells_of(narrow)

    class Raw(Cell):
        gates = ("s",)
        states = ("h", "s")
        widths = {"s": 2}  # noqa: RUF012

        def step(self, x, h, s):
            return x + h, s + x.s

    with pytest.raises(ShapeError, match="takes x as it is"):
        _ = Raw().graph


def test_sums_of_units_are_those_of_their_own_width() -> None:
    class Sums(Cell):
        gates = ("n", "s", "a")
        states = ("h", "s")
        widths: ClassVar = {"s": 3}

        def step(self, x, h, s):
            s = tanh(x.s + h.s + cumsum(s))
            return tanh(x.n + cumsum(h) + linear(s.a)), s

    layer = Recurrent(Sums, 2, 5, dtype=torch.float64)
    x, h, s = (torch.randn(1, *shape, dtype=torch.float64) for shape in ((4, 2), (4, 5), (4, 3)))
    of_x = x[0] @ layer.weight_ih_l0.t() + layer.bias_ih_l0
    new_s = torch.tanh(of_x[:, 5:] + h[0] @ layer.weight_hh_l0.t() + layer.bias_hh_l0 + s[0].cumsum(-1))
    wanted = torch.tanh(of_x[:, :5] + h[0].cumsum(-1) + new_s @ layer.weight_hh_a_l0.t())
    torch.testing.assert_close(layer(x, (h, s))[0][0], wanted, rtol=1e-12, atol=1e-12)
