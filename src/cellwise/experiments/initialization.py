"""Ways to start a layer: what people do to its first weights so that gradients reach further. In place."""

from __future__ import annotations

import torch
from torch import nn

from cellwise.graph.forms import BLOCKS
from cellwise.graph.widths import widths_of
from cellwise.nn import Recurrent
from cellwise.understand.gates import carry_gates

__all__ = ["add_forget_bias", "gate_rows", "orthogonal_"]


def add_forget_bias(layer: Recurrent, bias: float) -> bool:
    """Add `bias` to the gates that keep the old state, so that they keep more of it; a gate that replaces gets less.

    For the LSTM the forget gate's bias (Gers, Schmidhuber and Cummins 2000; Jozefowicz et al. 2015); for other cells
    the gates that `carry_gates` finds. Returns False, and changes nothing, where there is none or no bias.

    >>> layer = Recurrent("mingru", 2, 3)
    >>> before = layer.bias_ih_l0.detach().clone()
    >>> add_forget_bias(layer, 1.0), [round(each, 3) for each in (layer.bias_ih_l0 - before).tolist()]
    (True, [-1.0, -1.0, -1.0, 0.0, 0.0, 0.0])
    """
    gates = carry_gates(layer.cell.graph)
    if not gates or not layer.bias:
        return False
    for gate in dict.fromkeys((each.gate, each.sign) for each in gates):
        graph = layer.cell.graph
        stem, biases = (
            ("ih", graph.input_biases) if gate[0] in graph.input_biases else ("hh", graph.state_biases)
        )
        with torch.no_grad():
            getattr(layer, f"bias_{stem}_l0")[_rows(layer, biases, gate[0])] += gate[1] * bias
    return True


def orthogonal_(layer: Recurrent) -> bool:
    """Draw the recurrent rows of every gate as an orthogonal matrix (Saxe, McClelland and Ganguli 2014).

    Of a gate whose weight has blocks, each block; other weights that are made of others stay as they are. Returns
    False, and changes nothing, for a cell without recurrent matrices.
    """
    graph = layer.cell.graph
    drawn = [
        layer.get_parameter("weight_hh_l0")[gate_rows(layer, "hh", gate)] for gate in graph.row_gates("hh")
    ]
    for (kind, gate), form in graph.forms.items():
        if (kind, form.kind) == ("hh", BLOCKS):
            drawn += layer.get_parameter(f"weight_hh_{gate}_l0").unbind()
    for block in drawn:
        with torch.no_grad():
            block.copy_(nn.init.orthogonal_(torch.empty_like(block)))
    return bool(drawn)


def gate_rows(layer: Recurrent, stem: str, gate: str) -> slice:
    """The rows of a gate in `weight_ih` (stem "ih") or `weight_hh` ("hh")."""
    return _rows(layer, layer.cell.graph.row_gates(stem), gate)


def _rows(layer: Recurrent, gates: tuple[str, ...], gate: str) -> slice:
    units = widths_of(layer.cell.graph).gates
    sizes = [units[each].at(layer.hidden_size) for each in gates]
    begin = sum(sizes[: gates.index(gate)])
    return slice(begin, begin + sizes[gates.index(gate)])
