"""Large outputs, which the caller has without a copy, and which the backward pass reads."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import pytest
import torch
import torch.nn.functional as F
from test_in_place import CHANGES, LAYOUTS, after, pair
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from torch_pairs import CLASSES

import cellwise
from cellwise import Cell, Recurrent, tanh
from cellwise.backends.compiled import handed_out

STEPS, BATCH, SIZE = (
    17,
    16,
    128,
)  # more rows than a small call has, and more bytes than are copied without a thought


class Pushed(Cell):
    """A state made of the output, which its weights are multiplied by and no equation's derivative reads."""

    gates = ("a", "b")
    states = ("h",)
    output = "y"

    def step(self, x: Any, h: Any) -> Any:
        y = x.a + h.a
        return y, tanh(x.b + y.b)


@pytest.fixture(autouse=True)
def _nobody_wrote_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handed_out, "_WRITTEN", WeakKeyDictionary())


def inputs(batch: int = BATCH, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(STEPS, batch, 3, dtype=dtype)


def is_shared(output: Tensor, saved: int = 0) -> bool:
    """Whether what was saved for the backward pass lies where the output does."""
    found: Any = output.grad_fn
    return found.saved_tensors[saved].data_ptr() == output.data_ptr()


def recurrent(cell: str, backend: str = "cpu", **options: Any) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(cell, 3, SIZE, backend=backend, dtype=torch.float64, **options)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("layout", ["whole", "batch first", "two layers", "both ways"])
@pytest.mark.parametrize("kind", CLASSES)
def test_gradients_are_those_of_torch(kind: str, layout: str, change: str) -> None:
    theirs, ours = pair(kind, LAYOUTS[layout] | {"hidden_size": SIZE})
    for _ in range(3):  # shared and written to, then copied
        x = inputs()
        wanted = after(theirs, x, CHANGES[change])
        torch.testing.assert_close(after(ours, x, CHANGES[change]), wanted)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_copy_is_made_from_the_second_call_of_a_caller_that_writes_on(kind: str) -> None:
    layer = CLASSES[kind][1](3, SIZE, backend="cpu").double()
    for _ in range(2):
        output, _ = layer(inputs())
        assert is_shared(output)
        output.sum().backward()
    output, _ = layer(inputs())
    F.relu(output, inplace=True).sum().backward()
    for batch in (BATCH, BATCH + 1):  # batches of another form, too
        assert not is_shared(layer(inputs(batch))[0])
    other = CLASSES[kind][1](5, SIZE, backend="cpu").double()
    output, _ = other(torch.randn(STEPS, BATCH, 5, dtype=torch.float64))
    assert is_shared(output)


def test_small_outputs_are_copied() -> None:
    layer = cellwise.LSTM(3, 32, backend="cpu").double()
    output, _ = layer(torch.randn(STEPS, 20, 3, dtype=torch.float64))
    assert output.nbytes < handed_out._LARGE and not is_shared(output)


@pytest.mark.parametrize("kind", CLASSES)
def test_gradients_are_the_same_bits_whether_an_output_was_written_to_or_not(kind: str) -> None:
    layer = CLASSES[kind][1](3, SIZE, backend="cpu")
    x, weights = inputs(2 * BATCH, torch.float32), list(layer.parameters())
    at_output = torch.randn(STEPS, 2 * BATCH, SIZE)
    found = []
    for is_written in (False, True):
        output, _ = layer(x)
        assert is_shared(output)
        if is_written:
            output.detach().zero_()
        found.append(torch.autograd.grad(output, weights, at_output))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("kind", CLASSES)
def test_packed_and_with_lengths(kind: str) -> None:
    theirs, ours = pair(kind, {"hidden_size": SIZE})
    x = inputs(24)
    lengths = torch.cat([torch.full((18,), STEPS), torch.arange(6) + 9])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    wanted = after(theirs, packed, CHANGES["relu"])
    assert is_shared(ours(packed)[0].data)
    torch.testing.assert_close(after(ours, packed, CHANGES["relu"]), wanted)
    output, _ = ours(x, lengths=lengths)
    F.relu(output, inplace=True).sum().backward()


@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.parametrize("shape", [(5, 2), (STEPS, BATCH)])
@pytest.mark.parametrize("size", [5, 16, SIZE])
def test_an_output_that_is_an_operand_alone(size: int, shape: tuple[int, int], is_written: bool) -> None:
    x = torch.randn(*shape, 3, dtype=torch.float64)
    found = []
    for backend in ("cpu", "reference"):
        torch.manual_seed(0)
        layer = Recurrent(Pushed(), 3, size, backend=backend, dtype=torch.float64)
        output, _ = layer(x)
        output = output.mul_(2) if is_written else 2 * output
        found.append(torch.autograd.grad(output.sin().sum(), list(layer.parameters())))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("cell", ["lstm-peephole", "gru", "sru", "lstm"])
def test_what_is_kept_in_other_ways(cell: str, recompute: bool, resets: bool) -> None:
    x = inputs()
    marks = torch.arange(STEPS * BATCH).reshape(STEPS, BATCH) % 7 == 0 if resets else None
    found = []
    for backend in ("cpu", "reference"):
        layer = recurrent(cell, backend)
        layer.recompute = recompute and backend == "cpu"
        output, _ = layer(x, resets=marks)
        output.mul_(2)
        found.append(torch.autograd.grad(output.sin().sum(), list(layer.parameters())))
    torch.testing.assert_close(found[0], found[1])


def test_an_output_that_no_backward_pass_reads_is_neither_copied_nor_saved() -> None:
    layer = recurrent("lstm")
    marks = torch.zeros(STEPS, BATCH, dtype=torch.bool)
    output, _ = layer(inputs(), resets=marks)
    (saved, *_) = output.grad_fn.saved_tensors  # type: ignore[union-attr]
    assert saved.untyped_storage().nbytes() == output.element_size()
    wanted = torch.autograd.grad(output.mul(2).sum(), list(layer.parameters()), retain_graph=True)
    found = torch.autograd.grad(output.mul_(2).sum(), list(layer.parameters()))
    assert all(map(torch.equal, found, wanted)) and not handed_out._WRITTEN


def test_derivatives_of_derivatives_and_a_second_backward_pass() -> None:
    x = inputs()
    found = []
    for backend in ("cpu", "reference"):
        layer, own = recurrent("gru", backend), x.clone().requires_grad_()
        loss = layer(own)[0].mul_(2).sin().sum()
        loss.backward(retain_graph=True)
        (first,) = torch.autograd.grad(loss, own, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), own)
        found.append([own.grad, first.detach(), second])
    torch.testing.assert_close(found[0], found[1])


def test_hooks_get_a_copy() -> None:
    layer = recurrent("lstm")
    packed: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor.data_ptr())
        return tensor

    x = inputs()
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output, _ = layer(x)
    assert output.data_ptr() not in packed
    output.mul_(2)
    wanted = torch.autograd.grad(layer(x)[0].mul(2).sum(), list(layer.parameters()))
    torch.testing.assert_close(torch.autograd.grad(output.sum(), list(layer.parameters())), wanted)


def test_checkpoints_that_write_to_outputs() -> None:
    layer, x = recurrent("lstm"), inputs().requires_grad_()

    def block(given: Tensor) -> Tensor:
        return F.relu(layer(given)[0], inplace=True)

    wanted = torch.autograd.grad(block(x).sum(), x)
    torch.testing.assert_close(
        torch.autograd.grad(checkpoint(block, x, use_reentrant=False).sum(), x), wanted
    )


def test_changed_inputs_are_an_error_still() -> None:
    layer, x = recurrent("lstm"), inputs()
    output, _ = layer(x)
    output.mul_(2)
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_a_count_of_writes_holds_no_memory() -> None:
    tensor = torch.zeros(1000)
    writes = handed_out.Writes(tensor)
    assert writes._witness.untyped_storage().nbytes() == 0 and not writes.are_some
    tensor.view(10, 100)[3, 5:] = 1
    assert writes.are_some
