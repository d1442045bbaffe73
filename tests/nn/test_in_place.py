"""What is done in place to outputs and final states before the backward pass, as with torch.nn on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch_pairs import CLASSES

from cellwise import Recurrent

Change = Callable[[Tensor, Tensor], Any]
CHANGES: dict[str, Change] = {
    "relu": lambda output, h: F.relu(output, inplace=True),
    "dropout": lambda output, h: F.dropout(output, 0.5, inplace=True),
    "first step": lambda output, h: output.__setitem__(0, 0),
    "last unit": lambda output, h: output[..., -1].fill_(2),
    "transposed": lambda output, h: output.transpose(0, 1).mul_(2),
    "without gradients": lambda output, h: output.detach().zero_(),
    "state": lambda output, h: h.mul_(2),
    "first of state": lambda output, h: h.__setitem__(0, 0),
}
# Outputs in whole vectors lie as the kernels keep them, others are copied out.
LAYOUTS: dict[str, dict[str, Any]] = {
    "whole": {"hidden_size": 64},
    "odd": {"hidden_size": 5},
    "batch first": {"hidden_size": 64, "batch_first": True},
    "two layers": {"hidden_size": 64, "num_layers": 2},
    "both ways": {"hidden_size": 64, "bidirectional": True},
}


def after(layer: Any, x: Any, change: Change) -> list[Tensor]:
    """Gradients of a call whose results are changed."""
    output, state = layer(x)
    output = output.data if isinstance(output, PackedSequence) else output
    h = state[0] if isinstance(state, tuple) else state
    torch.manual_seed(1)
    change(output, h)
    return list(torch.autograd.grad(output.sin().sum() + h.sin().sum(), list(layer.parameters())))


def pair(kind: str, options: dict[str, Any]) -> tuple[Any, Any]:
    theirs, ours = CLASSES[kind][0](3, **options), CLASSES[kind][1](3, **options, backend="cpu")
    ours.load_state_dict(theirs.state_dict())
    return theirs.double(), ours.double()  # torch's LSTM allows all this in float64 only


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", CLASSES)
def test_gradients_are_those_of_torch(kind: str, layout: str, change: str) -> None:
    theirs, ours = pair(kind, LAYOUTS[layout])
    for batch in (1, 2):
        x = torch.randn(5, batch, 3, dtype=torch.float64)
        wanted = after(theirs, x, CHANGES[change])
        torch.testing.assert_close(after(ours, x, CHANGES[change]), wanted)


@pytest.mark.parametrize("kind", CLASSES)
def test_packed_unbatched_and_with_lengths(kind: str) -> None:
    theirs, ours = pair(kind, LAYOUTS["whole"])
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    for given in (x[:, 0], *(pack_padded_sequence(x, torch.tensor(each)) for each in ([5, 2], [5, 5]))):
        torch.testing.assert_close(after(ours, given, CHANGES["relu"]), after(theirs, given, CHANGES["relu"]))
    output, _ = ours(x, lengths=[5, 2])
    F.relu(output, inplace=True).sum().backward()


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_cell_that_keeps_its_outputs_in_other_ways(recompute: bool, resets: bool) -> None:
    found = []
    for backend in ("cpu", "reference"):
        torch.manual_seed(0)
        layer = Recurrent("lstm-peephole", 3, 64, backend=backend, dtype=torch.float64)
        layer.recompute = recompute and backend == "cpu"
        x = torch.randn(5, 2, 3, dtype=torch.float64)
        marks = torch.arange(10).reshape(5, 2) % 3 == 0 if resets else None
        output, _ = layer(x, resets=marks)
        output.mul_(2)
        found.append(torch.autograd.grad(output.sin().sum(), list(layer.parameters())))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("backend", ["auto", "native", "cpu"])
@pytest.mark.parametrize("kind", CLASSES)
def test_states_are_detached_in_place_between_pieces_of_a_sequence(
    kind: str, backend: str, gradients: bool
) -> None:
    layer = CLASSES[kind][1](3, 64, backend=backend)
    state = None
    with torch.set_grad_enabled(gradients):
        for _ in range(2):
            output, state = layer(torch.randn(5, 2, 3), state)
            if gradients:
                output.sum().backward()
            for each in state if isinstance(state, tuple) else (state,):
                each.detach_()
    assert not output.requires_grad or gradients
