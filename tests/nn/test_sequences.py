"""lengths, resets, initial states and the corner sizes, for any cell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import cellwise
from cellwise import Recurrent, cells
from cellwise.errors import InputError, LayerError
from cellwise.testing import Case, assert_close, results

BACKENDS = ("auto", "reference")
LENGTHS = (3, 7, 1, 0, 5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30], ids=str)
@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_what_lies_beyond_a_length_does_not_matter(
    name: str, garbage: float, batch_first: bool, backend: str
) -> None:
    case = Case(
        cells.get(name),
        batch=5,
        lengths=LENGTHS,
        num_layers=2,
        bidirectional=True,
        batch_first=batch_first,
        initial=True,
    )
    layer, clean, dirty = case.layer(backend), case.arguments(), case.arguments()
    for row, length in enumerate(LENGTHS):
        beyond: Any = (row, slice(length, None)) if batch_first else (slice(length, None), row)
        for each in (dirty.x, *dirty.beside.values()):
            each[beyond] = garbage
    found, truth = results(layer, dirty), results(layer, clean)
    assert all(torch.equal(found[name], truth[name]) for name in truth)
    for row, length in enumerate(LENGTHS):
        output, gradient = truth["output"], truth["gradient of x"]
        if batch_first:
            output, gradient = output.transpose(0, 1), gradient.transpose(0, 1)
        assert not output[length:, row].any()
        assert not gradient[length:, row].any()
        assert output[:length, row].any() or not length


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_lengths_are_packing_without_packing(name: str, backend: str) -> None:
    case = Case(
        cells.get(name), batch=5, lengths=(3, 7, 1, 5, 5), bidirectional=True, initial=True, num_layers=2
    )
    layer, given = case.layer(backend), case.arguments()
    packed = replace(given, packed=True)
    assert_close(results(layer, given), results(layer, packed), tolerance=1e-12)


@pytest.mark.parametrize(
    "given", [[3, 7, 1, 0, 5], (3, 7, 1, 0, 5), torch.tensor([3, 7, 1, 0, 5], dtype=torch.int32)]
)
def test_lengths_may_be_a_list_a_tuple_or_whole_numbers_of_any_kind(given: Any) -> None:
    case = Case(cells.get("gru"), batch=5, lengths=LENGTHS)
    layer, x = case.layer(), case.arguments().x
    torch.testing.assert_close(
        layer(x, lengths=given), layer(x, lengths=torch.tensor(LENGTHS)), rtol=0, atol=0
    )


@pytest.mark.parametrize("kind", [cellwise.RNN, cellwise.LSTM, cellwise.GRU], ids=lambda kind: kind.__name__)
def test_the_drop_in_layers_take_lengths_and_resets_too(kind: Any) -> None:
    layer = kind(2, 3, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 4, 2, dtype=torch.float64)
    output, _ = layer(x, lengths=[4, 2])
    packed = pack_padded_sequence(x, torch.tensor([4, 2]), batch_first=True)
    torch.testing.assert_close(output, pad_packed_sequence(layer(packed)[0], batch_first=True)[0])
    resets = torch.zeros(2, 4, dtype=torch.bool)
    resets[:, 2] = True
    pieces = torch.cat([layer(x[:, :2])[0], layer(x[:, 2:])[0]], dim=1)
    torch.testing.assert_close(layer(x, resets=resets)[0], pieces)


@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_a_reset_at_every_step_forgets_everything(name: str) -> None:
    case = Case(cells.get(name), batch=2, initial=True)
    layer, given = case.layer(), case.arguments()
    output, _ = layer(given.x, given.state, resets=torch.ones(7, 2, dtype=torch.bool))
    alone, _ = layer(given.x.reshape(1, 14, 5))
    torch.testing.assert_close(output, alone.reshape(7, 2, -1))


@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_resets_that_are_all_false_change_nothing(name: str) -> None:
    case = Case(cells.get(name), initial=True)
    layer, given = case.layer("reference"), case.arguments()
    none = torch.zeros(7, 2, dtype=torch.bool)
    assert_close(results(layer, replace(given, resets=none)), results(layer, given), tolerance=1e-14)


@pytest.mark.parametrize("name", ["lstm", "gru", "lstm-peephole"])
def test_no_gradient_crosses_a_reset(name: str) -> None:
    case = Case(cells.get(name), batch=1, steps=4, initial=True)
    layer, given = case.layer(), case.arguments()
    x = given.x.requires_grad_()
    resets = torch.tensor([[False], [False], [True], [False]])
    output, _ = layer(x, given.state, resets=resets)
    (gradient,) = torch.autograd.grad(output[3].sum(), x)
    assert gradient[0].abs().sum() == gradient[1].abs().sum() == 0
    assert gradient[2].abs().sum() > 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_a_batch_without_rows(name: str, backend: str) -> None:
    layer = Recurrent(name, 3, 4, num_layers=2, bidirectional=True, backend=backend)
    output, state = layer(torch.zeros(5, 0, 3))
    assert output.shape == (5, 0, 8)
    assert all(each.shape == (4, 0, 4) for each in (state if isinstance(state, tuple) else (state,)))
    assert layer(torch.zeros(5, 0, 3), lengths=[])[0].shape == (5, 0, 8)


@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_a_sequence_without_steps_is_one_clear_sentence(name: str) -> None:
    with pytest.raises(InputError, match="Expected sequence length to be larger than 0 in RNN"):
        Recurrent(name, 3, 4)(torch.zeros(0, 2, 3))


def test_a_state_of_a_row_without_steps_comes_back_as_it_was() -> None:
    layer = Recurrent("lstm", 2, 3)
    h, c = torch.randn(1, 3, 3), torch.randn(1, 3, 3)
    _, (new_h, new_c) = layer(torch.randn(4, 3, 2), (h, c), lengths=[0, 4, 0])
    assert torch.equal(new_h[:, [0, 2]], h[:, [0, 2]])
    assert torch.equal(new_c[:, [0, 2]], c[:, [0, 2]])
    assert not torch.equal(new_h[:, 1], h[:, 1])


# What is asked of a GRU layer (3, 4) with x (5, 2, 3); what the sentence says.
REFUSED: dict[str, tuple[Any, str]] = {
    "lengths-too-long": (
        lambda f, x: f(x, lengths=[6, 1]),
        "between 0 and the number of steps, 5; one of them is 6",
    ),
    "lengths-negative": (lambda f, x: f(x, lengths=[-1, 1]), "one of them is -1"),
    "lengths-too-many": (lambda f, x: f(x, lengths=[1, 1, 1]), r"shape \(2,\).*shape \(3,\)"),
    "lengths-not-whole": (lambda f, x: f(x, lengths=[1.5, 1]), "whole numbers.*float32"),
    "lengths-bool": (lambda f, x: f(x, lengths=torch.tensor([True, False])), "whole numbers.*bool"),
    "lengths-and-packed": (
        lambda f, x: f(pack_padded_sequence(x, torch.tensor([5, 1])), lengths=[5, 1]),
        "beside a PackedSequence",
    ),
    "resets-numbers": (lambda f, x: f(x, resets=torch.zeros(5, 2)), "bool tensor.*float32"),
    "resets-a-list": (lambda f, x: f(x, resets=[[False] * 2] * 5), "bool tensor.*list"),
    "resets-turned": (
        lambda f, x: f(x, resets=torch.zeros(2, 5, dtype=torch.bool)),
        r"shape \(T, B\) = \(5, 2\); they have shape \(2, 5\)",
    ),
    "input-an-array": (lambda f, x: f(x.numpy()), "takes a tensor or a PackedSequence; got an ndarray"),
    "two-states-for-one": (
        lambda f, x: f(x, (torch.zeros(1, 2, 4),) * 2),
        "one tensor as its state; got 2 values",
    ),
}


@pytest.mark.parametrize("layer", [Recurrent("gru", 3, 4), cellwise.GRU(3, 4)], ids=["Recurrent", "GRU"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_call_is_one_clear_sentence(name: str, layer: Any) -> None:
    call, says = REFUSED[name]
    with pytest.raises(InputError, match=says):
        call(layer, torch.zeros(5, 2, 3))


def test_a_single_state_for_two_is_refused() -> None:
    with pytest.raises(InputError, match="a tuple of 2 tensors as its state; got a Tensor"):
        Recurrent("lstm", 3, 4)(torch.zeros(5, 2, 3), torch.zeros(1, 2, 4))


# --- stream -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_a_stream_gives_what_the_whole_sequence_gives(name: str, layers: int, dtype: torch.dtype) -> None:
    layer = Recurrent(
        name, 2, 3, num_layers=layers, batch_first=True, backend="reference", dtype=dtype
    ).eval()
    x = torch.randn(4, 6, 2, dtype=dtype)
    whole, state = layer(x)
    stream = layer.stream(batch_size=4)
    steps = torch.stack([stream(x[:, t]) for t in range(6)], dim=1)
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(steps, whole, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(stream.state, state, rtol=tolerance, atol=tolerance)
    assert not steps.requires_grad


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("hidden", [3, 16, 33])
@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_a_stream_on_the_kernels_gives_what_the_reference_gives(name: str, hidden: int, batch: int) -> None:
    layer = Recurrent(name, 2, hidden, num_layers=2, dtype=torch.float64, backend="cpu").eval()
    x = torch.randn(5, batch, 2, dtype=torch.float64)
    stream = layer.stream(batch_size=batch)
    steps = torch.stack([stream(each) for each in x])
    layer.backend = "reference"
    whole, state = layer(x)
    torch.testing.assert_close(steps, whole.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(stream.state, _detached(state), rtol=1e-10, atol=1e-12)


def _detached(state: Any) -> Any:
    return tuple(each.detach() for each in state) if isinstance(state, tuple) else state.detach()


def test_a_stream_writes_where_it_is_told() -> None:
    layer = Recurrent("gru", 2, 16)
    stream, other = layer.stream(), layer.stream()
    x, out = torch.randn(4, 2), torch.empty(16)
    for each in x:
        assert stream(each, out=out) is out
        assert torch.equal(out, other(each))
    wrong: Any
    for wrong, got in (
        (torch.empty(15), r"got shape \(15,\)"),
        (torch.empty(16, dtype=torch.float64), "and torch.float64"),
        (torch.empty(32)[::2], "got not contiguous"),
        (torch.empty(16, requires_grad=True), "got with requires_grad"),
        ([0.0] * 16, "got a list"),
    ):
        with pytest.raises(InputError, match=f"out takes this step's result.*{got}"):
            stream(x[0], out=wrong)


def test_what_is_no_step_is_refused() -> None:
    layer: Any = Recurrent("gru", 2, 16)
    for wrong in ([0.0, 1.0], torch.zeros(2).numpy(), None):
        with pytest.raises(InputError, match=r"a step of this stream is a tensor; got an? "):
            layer.stream()(wrong)
    for wrong in (-1, 2.0, True):
        with pytest.raises(LayerError, match=f"batch_size is the number of rows of each step; got {wrong}"):
            layer.stream(wrong)
    with pytest.raises(InputError, match=r"Convert input: input.to\(torch.float32\)$"):
        layer(torch.ones(3, 1, 2, dtype=torch.int64))


def test_a_stream_sees_that_a_parameter_was_replaced() -> None:
    layer = Recurrent("lstm", 2, 16)
    stream, x = layer.stream(), torch.randn(2)
    stream(x)
    layer.weight_ih_l0 = torch.nn.Parameter(torch.randn(64, 2))
    before = stream.state
    found = stream(x)
    wanted, _ = layer(x[None], tuple(each[:, 0] for each in before))
    torch.testing.assert_close(found, wanted[0].detach())


def test_a_stream_of_one_takes_and_gives_single_steps() -> None:
    layer = cellwise.LSTM(2, 3, proj_size=1, num_layers=2)
    x = torch.randn(5, 2)
    stream = layer.stream()
    steps = torch.stack([stream(each) for each in x])
    torch.testing.assert_close(steps, layer(x)[0])
    assert steps.shape == (5, 1)


def test_a_stream_starts_anew_takes_a_state_and_sees_new_weights() -> None:
    layer = Recurrent("gru", 2, 3)
    stream = layer.stream()
    x = torch.randn(2)
    first, second = stream(x), stream(x)
    assert not torch.equal(first, second)
    stream.reset()
    assert torch.equal(stream(x), first)
    kept = stream.state
    assert torch.equal(stream(x), second)
    stream.state = kept
    assert torch.equal(stream(x), second)
    with torch.no_grad():
        layer.bias_ih_l0.add_(1)
    stream.state = kept
    assert not torch.equal(stream(x), second)


def test_a_stream_knows_no_dropout() -> None:
    layer = Recurrent("gru", 2, 3, num_layers=2, dropout=0.9).train()
    x = torch.randn(4, 2)
    stream = layer.stream()
    steps = torch.stack([stream(each) for each in x])
    torch.testing.assert_close(steps, layer.eval()(x)[0])


def test_what_cannot_be_streamed_is_refused() -> None:
    with pytest.raises(cellwise.CellwiseError, match="bidirectional layer cannot be streamed"):
        Recurrent("gru", 2, 3, bidirectional=True).stream()
    stream: Any = Recurrent("gru", 2, 3).stream(batch_size=4)
    wrong: Tensor
    for wrong in (torch.zeros(2), torch.zeros(3, 2), torch.zeros(4, 3), torch.zeros(1, 4, 2)):
        with pytest.raises(InputError, match=r"shape \(4, 2\); got"):
            stream(wrong)


@pytest.mark.parametrize("backend", ["native", "cpu", "reference"])
def test_final_states_share_no_memory_even_where_there_is_no_step(backend: str) -> None:
    layer = cellwise.LSTM(3, 4, num_layers=2)
    layer.backend = backend
    with torch.no_grad():
        _, (h, c) = layer(torch.randn(5, 2, 3), lengths=[0, 0])
        h += 1
    assert not c.any()
