"""The layer for any cell, and what a call of a layer runs on."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.nn.utils.rnn import PackedSequence

from cellwise import cells
from cellwise.cells.base import Cell, own_parameters
from cellwise.errors import InputError, LayerError
from cellwise.graph.expr import first_name
from cellwise.graph.forms import FORMS, apart_stem, stems_of
from cellwise.nn import plain
from cellwise.nn.checks import check_weight_dropout
from cellwise.nn.definition import all_specs, key_of, stack_for
from cellwise.nn.first_states import check_learned_initial, first_state
from cellwise.nn.layer import RecurrentLayer
from cellwise.plan import recurrent_columns, width_problem
from cellwise.runtime import dispatch
from cellwise.runtime.compiling import is_tracing
from cellwise.runtime.outputs import kind_of
from cellwise.runtime.sequences import Lengths

__all__ = ["Recurrent", "RecurrentLayer", "explain"]


class Recurrent(RecurrentLayer):
    """A recurrent layer of any cell, with the interface of torch.nn.GRU.

    Called as `layer(x, state=None, *, lengths=None, resets=None, **beside) -> (output, state)`:

    - x: (T, B, D), with `batch_first` (B, T, D), for one sequence (T, D), or a PackedSequence.
    - state: for each state of the cell (L * directions, B, H), without B for one sequence; a tensor for a cell of
      one state, a tuple of tensors for others. If None, zeros, or what is learned (`learned_initial`).
    - lengths: (B,) valid steps of each row, unsorted, from 0 to T. Beyond them nothing is computed, the output is
      zero, the final state is that of the last valid step, and the reverse direction starts there.
    - resets: (T, B), with `batch_first` (B, T), bool. The state of a row is zero before that step, or what is learned,
      whatever `state` was given; with `bidirectional` the boundary holds in both directions, so a row equals its
      pieces run apart.
    - beside: the inputs beside x of a cell that has some, by name: (T, B) or (T, B, 1), one number a row; or (T, B, H),
      one a unit; in the form of x, of its dtype. Every layer gets the same; the reverse direction reads each at its
      own step.
    - output: like x, with directions * H in place of D; of a cell with several outputs a named tuple of such, of which
      the next layer is given the first, and the last layer's are returned (in which torch's backward hooks of a module
      see no tensors; those of a tensor are called). state: as it is taken.

    Parameters are named, shaped and ordered as in torch.nn: `weight_ih_l{k}` (G*H, D), `weight_hh_l{k}` (G*H, H),
    `bias_ih_l{k}`, `bias_hh_l{k}` (G*H,), with only the rows of gates that the cell asks for, then the cell's own. The
    weight of a gate n that is made of others has these instead of rows: `weight_hh_n_l{k}` (`skew`, `symmetric_skew`,
    `block_diagonal`), `weight_hh_n_left_l{k}` and `weight_hh_n_right_l{k}` (`low_rank`). Of a cell that gives a state,
    gate or output another width than H (`Cell.widths`) all shapes are the true ones: M in place of H wherever M units
    are meant, and a gate n that is asked of M units has `weight_hh_n_l{k}` (H, M) instead of rows.
    They start uniform within 1 / sqrt(H) of zero, as in torch.nn.

    `layer.recompute = True` saves memory in training on a CPU: the backward pass computes each step again from the
    states before it, and the forward pass keeps no tape for it.

    Under torch.compile and torch.export each layer and direction is one operator, for all T and B if sizes are dynamic
    (those of `lengths`, `resets` and `state` with those of x; torch makes programs of their own for T = 1 and B = 1).
    Give `lengths`, or pack outside: torch's compiler does not go into `pack_padded_sequence`.

    Args:
        cell: a Cell class, an instance of one, or the name of a known cell.
        input_size: D.
        hidden_size: H.
        backend: "auto", or one by name; also an attribute that may be set later.
        weight_dropout: in training each recurrent weight is zero with this probability, for all steps of a call, and
            the others are divided by 1 minus it (DropConnect, as in AWD-LSTM, Merity et al. 2018).
        learned_initial: every state begins at a parameter, and not at zero: `h0_l{k}` (H,) for the state h, zero
            until it is trained. A cell may say so of its own states, `h0 = Initial()`.

    In training a cell that draws masks (`cellwise.dropout`) has new ones in each call, layer and direction, from
    torch's generator: `torch.manual_seed` makes them again, torch.utils.checkpoint and `recompute` keep them.

    Raises:
        LayerError, TypeError, ValueError: an argument that cannot be.
        UnknownCellError: no cell has this name.
        CellError: the cell's equations are wrong.

    >>> layer = Recurrent("lstm-peephole", 3, 4, num_layers=2)
    >>> output, (h, c) = layer(torch.zeros(7, 5, 3))
    >>> output.shape, h.shape
    (torch.Size([7, 5, 4]), torch.Size([2, 5, 4]))
    """

    proj_size = 0
    # Of the cell, in evaluation and in training; attributes of each layer, since every call asks for one.
    _key = _training_key = ""
    learned_initial = False

    def __init__(
        self,
        cell: str | type[Cell] | Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        backend: str = "auto",
        device: Any = None,
        dtype: Any = None,
        *,
        weight_dropout: float = 0.0,
        learned_initial: bool = False,
    ) -> None:
        super().__init__()
        self._cell = cells.get(cell)
        if _boolean("learned_initial", learned_initial):
            check_learned_initial(self._cell)
            self.learned_initial = True
        self._find_keys()
        self.input_size = _positive("input_size", input_size)
        self.hidden_size = _positive("hidden_size", hidden_size)
        self.num_layers = _positive("num_layers", num_layers)
        self.bias = _boolean("bias", bias)
        self.batch_first = _boolean("batch_first", batch_first)
        self.bidirectional = _boolean("bidirectional", bidirectional)
        self.dropout = _probability(dropout, num_layers)
        if check_weight_dropout(weight_dropout):
            self.weight_dropout = weight_dropout
        self.backend = backend
        self._check_widths()
        for name, shape in self._shapes():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _check_widths(self) -> None:
        """Raise LayerError if the cell asks for other sizes."""
        sizes = (self.input_size, self.hidden_size, self.num_layers, 2 if self.bidirectional else 1)
        for graph in (self._cell.graph, self._cell.training_graph):
            problem = width_problem(graph, *sizes)
            if problem is not None:
                raise LayerError(problem)

    def _shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        return all_specs(self._definition())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._find_keys()  # they are of one process

    def _find_keys(self) -> None:
        cell, learned = self._cell, self.learned_initial
        if len(cell.outputs) > 1:
            kind_of(cell.outputs)
        self._key, self._training_key = key_of(cell, False, learned), key_of(cell, True, learned)
        self._begins = learned or bool(cell.learned_first)

    @property
    def cell(self) -> Cell:
        return self._cell

    def reset_parameters(self) -> None:
        """Draw all weights anew: uniform within 1 / sqrt(H) of zero, own parameters as the cell says.

        What weights are made of starts within the bound of its form (`cellwise.graph.forms`).
        """
        own: dict[str, Any] = dict.fromkeys(map(first_name, self._cell.states), 0.0)
        own |= {parameter.name: parameter.initial for parameter in own_parameters(type(self._cell))}
        graph = self._cell.graph
        columns = recurrent_columns(graph, self.hidden_size)
        bounds = {
            stem: FORMS[form.kind].bound(form.number, columns[gate] if kind == "hh" else self.hidden_size)
            for (kind, gate), form in graph.forms.items()
            for stem in stems_of(kind, gate, form)
        }
        bounds |= {apart_stem(gate): 1.0 / math.sqrt(columns[gate]) for gate in graph.apart("hh")}
        for name, _ in self._shapes():
            stem = name.rpartition("_l")[0]
            initial = own.get(stem)
            bound = bounds.get(stem, 1.0 / math.sqrt(self.hidden_size))
            low, high = initial if isinstance(initial, tuple) else (-bound, bound)
            if isinstance(initial, (int, float)):
                init.constant_(getattr(self, name), initial)
            else:
                init.uniform_(getattr(self, name), low, high)

    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Lengths | None = None,
        resets: Tensor | None = None,
        **beside: Any,
    ) -> tuple[Any, Any]:
        """Run over a batch of sequences; shapes as in the class's description.

        Raises:
            InputError: an argument does not fit the layer.
            BackendError: the backend asked for by name cannot run this.
        """
        if state is None and self._begins:
            state = first_state(self, x)
        if not is_tracing():
            found = plain.call(self, x, state, lengths, resets, beside)
            if found is not None:
                return found
        return self._run(x, state, lengths, resets, beside)

    def _slow_forward(self, *args: Any, **kwargs: Any) -> Any:
        """What torch calls in the place of `forward` while it traces: torch.onnx.export gives a model that is a layer
        alone all arguments by place, those that go by name too.
        """
        if len(args) == 4 and torch.onnx.is_in_onnx_export():
            x, state, lengths, resets = args
            return super()._slow_forward(x, state, lengths=lengths, resets=resets, **kwargs)
        return super()._slow_forward(*args, **kwargs)

    def extra_repr(self) -> str:
        return f"{self._cell.name}, {super().extra_repr()}"


def explain(
    layer: nn.Module,
    x: Tensor | PackedSequence,
    state: Any = None,
    *,
    lengths: Lengths | None = None,
    resets: Tensor | None = None,
    **beside: Any,
) -> dispatch.Explanation:
    """Which backend would run this call of a layer, and why not the others. Nothing is run.

    >>> print(explain(Recurrent("indrnn", 3, 4), torch.zeros(7, 5, 3)))
    backend='auto' runs on: cpu
      native     cannot: torch has no operator for the equations of IndRNN
      cpu        chosen: fused kernels, forward and backward, compiled by LLVM for this processor
      cuda       cannot: the input is on the device cpu, these kernels run on an NVIDIA GPU
      reference  could: interprets the equations step by step in plain torch; anything, anywhere, slowly

    Raises:
        InputError: an argument does not fit the layer, or it is no layer of cellwise.
    """
    if not isinstance(layer, RecurrentLayer):
        raise InputError(
            f"explain takes a layer of cellwise; got {type(layer).__name__}. Swap it first: cellwise.convert(model)."
        )
    chosen, form, info, dtype, parts, explanation, *_ = layer._examined(x, state, lengths, resets, beside)
    if chosen is None:
        return explanation
    batch = form.sequences
    stack, resetting = stack_for(info, resets is not None)
    context = dispatch.context_of(batch.data.device, dtype, resetting, False, layer.recompute)
    how = chosen.backend.detail(stack, context, batch.steps, batch.batch)
    cut = f"in {parts} parts, one after another, as its heads allow" if parts > 1 else None
    return replace(explanation, detail="; ".join(filter(None, (how, cut))) or None)


def _positive(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} should be of type int, got: {type(value).__name__}")
    if value <= 0:
        raise LayerError(f"{name} must be greater than zero")
    return value


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} should be of type bool, got: {type(value).__name__}")
    return value


def _probability(dropout: Any, num_layers: int) -> float:
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
        raise LayerError(
            f"dropout should be a number in range [0, 1], the probability of an element being zeroed; got {dropout!r}"
        )
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            f"dropout={dropout} has no effect with num_layers=1: it stands between layers only", stacklevel=3
        )
    return float(dropout)
