"""torch.compile(fullgraph=True): no graph break, and the numbers and gradients of the plain call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import cellwise
from cellwise import Cell, Recurrent, Scalar, tanh

LAYERS: dict[str, Any] = {
    "any-cell": lambda: Recurrent("mingru", 3, 4, num_layers=2, bidirectional=True),
    "gru": lambda: cellwise.GRU(3, 4, num_layers=2),
    "lstm-both-ways": lambda: cellwise.LSTM(3, 4, bidirectional=True),
    "rnn-relu": lambda: cellwise.RNN(3, 4, nonlinearity="relu", backend="cpu"),
    "reference": lambda: cellwise.GRU(3, 4, backend="reference"),
    "native": lambda: cellwise.GRU(3, 4, backend="native"),
}
CALLS: dict[str, dict[str, Any]] = {
    "dense": {},
    "lengths": {"lengths": torch.tensor([0, 2, 5])},
    "lengths-as-list": {"lengths": [3, 1, 4]},
    "resets": {"resets": torch.rand(5, 3, generator=torch.Generator().manual_seed(1)) < 0.4},
}
CALLS["both"] = CALLS["lengths"] | CALLS["resets"]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.compiler.reset()


class Model(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.layer = layer

    def forward(self, x: Tensor, **options: Any) -> Any:
        return self.layer(self.first(x).relu(), **options)


def everything(run: Any, model: nn.Module, x: Tensor, options: dict[str, Any]) -> list[Tensor]:
    output, state = run(x, **options)
    finals = state if isinstance(state, tuple) else (state,)
    total = output.square().sum() + sum(each.sin().sum() for each in finals)
    return [output, *finals, *torch.autograd.grad(total, [x, *model.parameters()])]


def compare(layer: nn.Module, options: dict[str, Any], dynamic: bool | None = None) -> None:
    model, x = Model(layer), torch.randn(5, 3, 3, requires_grad=True)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    wanted = everything(model, model, x, options)
    torch.testing.assert_close(everything(compiled, model, x, options), wanted)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, **options), model(x, **options))


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_dense_batch_in_one_graph(name: str, dynamic: bool | None) -> None:
    compare(LAYERS[name](), {}, dynamic)


@pytest.mark.parametrize("call", list(CALLS)[1:])
@pytest.mark.parametrize("name", ["any-cell", "lstm-both-ways"])
def test_ragged_batches_and_resets_in_one_graph(name: str, call: str) -> None:
    compare(LAYERS[name](), CALLS[call])


def test_other_lengths_need_no_other_program() -> None:
    layer = cellwise.GRU(3, 4, bidirectional=True, batch_first=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        x = torch.randn(3, 5, 3)
        for lengths in ([5, 5, 5], [0, 0, 0], [1, 4, 0]):
            given = torch.tensor(lengths)
            torch.testing.assert_close(compiled(x, lengths=given), layer(x, lengths=given))


def test_other_batch_sizes_and_steps_need_no_other_program() -> None:
    layer = Recurrent("indrnn", 3, 4)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for steps, batch in ((5, 3), (7, 4)):  # the second of another size makes sizes dynamic
        compiled(torch.randn(steps, batch, 3))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for steps, batch in ((6, 2), (9, 7), (4, 30)):
            x = torch.randn(steps, batch, 3)
            torch.testing.assert_close(compiled(x), layer(x))


SIZES = ((6, 5), (7, 4), (9, 7), (4, 30))
PER_SIZE: dict[str, Any] = {
    "dense": lambda steps, batch: {},
    "lengths": lambda steps, batch: {"lengths": torch.arange(batch) % (steps + 1)},
    "resets": lambda steps, batch: {"resets": torch.arange(steps * batch).view(steps, batch) % 3 == 0},
    "state": lambda steps, batch: {"state": torch.ones(2, batch, 4)},
}


@pytest.mark.parametrize("call", PER_SIZE)
def test_one_program_for_all_sizes_where_they_are_dynamic(call: str) -> None:
    layer = Recurrent("mingru", 3, 4, bidirectional=True)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for steps, batch in SIZES:
            x, given = torch.randn(steps, batch, 3), PER_SIZE[call](steps, batch)
            torch.testing.assert_close(compiled(x, **given), layer(x, **given))


@pytest.mark.parametrize("call", PER_SIZE)
def test_one_program_for_all_sizes_where_they_are_marked(call: str) -> None:
    dynamic = {"x": (0, 1), "lengths": (0,), "resets": (0, 1), "state": (1,)}
    layer = Recurrent("mingru", 3, 4, bidirectional=True)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for steps, batch in SIZES:
            given = {"x": torch.randn(steps, batch, 3)} | PER_SIZE[call](steps, batch)
            for name, tensor in given.items():
                torch._dynamo.mark_dynamic(tensor, dynamic[name])
            torch.testing.assert_close(compiled(**given), layer(**given))


def test_what_a_layer_is_may_change_though_its_numbers_are_dynamic() -> None:
    layer = cellwise.GRU(3, 4, num_layers=2, dropout=0.5)
    settings = {"allow_unspec_int_on_nn_module": True, "assume_static_by_default": False}
    with torch._dynamo.config.patch(settings):
        compiled, x = torch.compile(layer, backend="aot_eager", fullgraph=True), torch.randn(5, 2, 3)
        for dropout in (0.5, 1.0, 0.0):
            layer.dropout = dropout
            torch.manual_seed(1)
            wanted = layer(x)
            torch.manual_seed(1)
            torch.testing.assert_close(compiled(x), wanted)


def test_other_layers_need_no_other_program() -> None:
    layer, x = cellwise.GRU(3, 4), torch.randn(5, 2, 3)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    compiled(x)
    Recurrent("indrnn", 3, 5)(x)
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled(x)


def test_a_length_that_cannot_be_is_named_when_the_program_runs() -> None:
    layer = cellwise.GRU(3, 4)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(5, 2, 3)
    compiled(x, lengths=torch.tensor([5, 1]))
    with pytest.raises(cellwise.errors.InputError, match="one of them is 6"):
        compiled(x, lengths=torch.tensor([6, 1]))


def test_auto_takes_the_kernels_where_torch_would_unroll() -> None:
    operators = []

    def collect(graph: Any, inputs: Any) -> Any:
        operators.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    torch.compile(cellwise.LSTM(3, 4), backend=collect, fullgraph=True)(torch.randn(5, 2, 3))
    assert "cellwise.direction.default" in operators
    assert not any("lstm" in each for each in operators)


def test_steps_may_be_recomputed_in_a_compiled_program() -> None:
    layer = cellwise.LSTM(3, 4, bidirectional=True, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 3, 3, dtype=torch.float64, requires_grad=True)

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(compiled(x)[0].square().sum(), [x, *layer.parameters()])

    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    wanted = gradients()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        compiled(x)
    before, kept[:] = sum(kept), []
    layer.recompute = True
    assert all(torch.equal(a, b) for a, b in zip(gradients(), wanted, strict=True))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        compiled(x)
    assert sum(kept) < before


_OF_ANOTHER_PROCESS = """
import sys, torch, cellwise

program = torch.export.load(sys.argv[1]).module()
x, lengths, wanted = torch.load(sys.argv[2], weights_only=True)
assert "llvmlite" not in sys.modules
assert torch.equal(program(x, lengths=lengths)[0], wanted)
assert program(x[:4, :2], lengths=torch.tensor([4, 0]))[0].shape == (4, 2, 10)
"""


def test_a_layer_may_be_exported_before_anything_else() -> None:
    """Cells are first read while torch's tensors stand for others."""
    words = "import torch, cellwise; layer = cellwise.Recurrent('mingru', 3, 4)"
    words += "; torch.export.export(layer, (torch.randn(5, 2, 3),))"
    done = subprocess.run([sys.executable, "-c", words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_exported_program_runs_in_another_process(tmp_path: Path) -> None:
    layer = Recurrent("lstm-peephole", 3, 5, bidirectional=True)
    x, lengths = torch.randn(6, 4, 3), torch.tensor([6, 2, 3, 1])
    steps, batch = torch.export.Dim("T", min=1, max=1000), torch.export.Dim("B", min=1, max=1000)
    sizes = {"x": {0: steps, 1: batch}, "lengths": {0: batch}}
    program = torch.export.export(layer, (x,), {"lengths": lengths}, dynamic_shapes=sizes)
    torch.export.save(program, tmp_path / "layer.pt2")
    with torch.no_grad():
        torch.save((x, lengths, layer(x, lengths=lengths)[0]), tmp_path / "numbers.pt")
    names = [str(tmp_path / name) for name in ("layer.pt2", "numbers.pt")]
    done = subprocess.run(
        [sys.executable, "-c", _OF_ANOTHER_PROCESS, *names], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_torchs_own_layers_are_refused_as_ever() -> None:
    with pytest.raises(torch._dynamo.exc.Unsupported, match="RNN, GRU, or LSTM"):
        torch.compile(nn.GRU(3, 4), backend="aot_eager", fullgraph=True)(torch.randn(5, 2, 3))
    assert torch._dynamo.config.allow_rnn is False


def test_converted_and_parametrized_layers_in_one_graph() -> None:
    compare(cellwise.convert(nn.LSTM(3, 4)), {})
    layer = cellwise.GRU(3, 4)
    nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    compare(layer, {})


def test_importing_cellwise_does_not_load_the_compiler() -> None:
    program = "import sys, cellwise; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- Inductor, the compiler that torch.compile takes where none is named -----------------------------------------


def _cpp_compiler() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


class Leaky(Cell):
    """A cell of a user's own, with a number and a state beside its output."""

    gates = ("n",)
    states = ("h", "c")
    leak = Scalar(0.5)

    def step(self, x, h, c):  # type: ignore[no-untyped-def]
        c = self.leak * c + tanh(x.n + h.n)
        return tanh(c), c


# Each of these is compiled, which takes seconds: name -> layer, call, dynamic.
INDUCTOR: dict[str, tuple[Any, str, bool | None]] = {
    "lstm-two-layers-both-ways": (
        lambda: cellwise.LSTM(3, 4, num_layers=2, bidirectional=True),
        "dense",
        None,
    ),
    "lstm-projected": (lambda: cellwise.LSTM(3, 4, proj_size=2, backend="cpu"), "dense", True),
    "gru-in-whole-vectors": (lambda: cellwise.GRU(3, 16, batch_first=True), "lengths-as-list", None),
    "rnn": (lambda: cellwise.RNN(3, 4, num_layers=2, backend="cpu"), "resets", None),
    "of-ones-own": (lambda: Recurrent(Leaky, 3, 4), "lengths", True),
}


@pytest.mark.skipif(not _cpp_compiler(), reason="Inductor compiles with a C++ compiler, and there is none")
@pytest.mark.parametrize("name", INDUCTOR)
def test_inductor(name: str) -> None:
    make, call, dynamic = INDUCTOR[name]
    model, options = Model(make()), CALLS[call]
    sizes = (5, 3, 3) if not model.layer.batch_first else (3, 5, 3)
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic)
    kept = []
    for _ in range(3):
        # Memory of an earlier run that is used again too early would show here.
        x = torch.randn(sizes, requires_grad=True)
        kept.append((everything(compiled, model, x, options), everything(model, model, x, options)))
    for found, wanted in kept:
        torch.testing.assert_close(found, wanted)
        assert [each.stride() for each in found[:2]] == [each.stride() for each in wanted[:2]]


@pytest.mark.skipif(not _cpp_compiler(), reason="Inductor compiles with a C++ compiler, and there is none")
@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode])
def test_inductor_on_states_of_the_callers_without_gradients(grad: Any) -> None:
    layer, x = cellwise.LSTM(3, 4), torch.randn(5, 2, 3)
    compiled = torch.compile(layer, fullgraph=True)
    with grad():
        state = (torch.randn(1, 2, 4), torch.randn(1, 2, 4))
        given = tuple(each.clone() for each in state)
        torch.testing.assert_close(compiled(x, given), layer(x, state))
        assert all(map(torch.equal, given, state))


def packed(*lengths: int) -> PackedSequence:
    x = torch.randn(7, len(lengths), 3, generator=torch.Generator().manual_seed(1))
    return pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)


@pytest.mark.parametrize("fullgraph", [True, False])
def test_a_packed_sequence_in_and_out(fullgraph: bool) -> None:
    model = cellwise.LSTM(3, 4, bidirectional=True)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=fullgraph)
    for given in (packed(3, 7, 1, 5, 2), packed(2, 7, 6, 6, 2)):
        found, wanted = compiled(given), model(given)
        torch.testing.assert_close(tuple(found[0]), tuple(wanted[0]))
        torch.testing.assert_close(found[1], wanted[1])
        total = [each[0].data.square().sum() + each[1][1].sum() for each in (found, wanted)]
        gradients = [torch.autograd.grad(each, list(model.parameters())) for each in total]
        torch.testing.assert_close(*gradients)


def test_sequences_packed_within_are_run_though_torch_stops_the_graph_there() -> None:
    layer, x, lengths = cellwise.GRU(3, 4), torch.randn(7, 3, 3), torch.tensor([3, 7, 1])

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        output, _ = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(output)[0]

    torch.testing.assert_close(torch.compile(run, backend="aot_eager")(x, lengths), run(x, lengths))
    # This is the way to say the same in one graph.
    whole = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(whole(x, lengths=lengths)[0], run(x, lengths))


@pytest.mark.parametrize("backend", ["auto", "cpu"])
@pytest.mark.parametrize("call", ["dense", "resets"])
def test_export(call: str, backend: str) -> None:
    layer, x = cellwise.GRU(3, 4, bidirectional=True, backend=backend), torch.randn(5, 3, 3)
    program = torch.export.export(layer, (x,), CALLS[call])
    torch.testing.assert_close(program.module()(x, **CALLS[call]), layer(x, **CALLS[call]))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("grad", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("call", PER_SIZE)
def test_export_for_all_sizes(call: str, grad: Any, strict: bool) -> None:
    steps, batch = torch.export.Dim("T", min=1, max=1000), torch.export.Dim("B", min=1, max=1000)
    shapes: dict[str, Any] = {"lengths": {0: batch}, "resets": {0: steps, 1: batch}, "state": {1: batch}}
    layer = Recurrent("mingru", 3, 4, bidirectional=True)
    given = PER_SIZE[call](7, 5)
    dynamic = {"x": {0: steps, 1: batch}} | {name: shapes[name] for name in given}
    with grad():
        program = torch.export.export(
            layer, (torch.randn(7, 5, 3),), given, dynamic_shapes=dynamic, strict=strict
        )
        for other in (*SIZES, (1, 4), (6, 1), (1, 1)):
            x, given = torch.randn(*other, 3), PER_SIZE[call](*other)
            torch.testing.assert_close(program.module()(x, **given), layer(x, **given))


# --- the operators themselves ----------------------------------------------------------------------------------


def arguments_of(
    cell: str, hidden: int, steps: int, batch: int, resets: bool, reverse: bool
) -> tuple[Any, ...]:
    from cellwise.backends.compiled.cell_kernels import key_of
    from cellwise.nn.definition import info_of

    layer = Recurrent(cell, 3, hidden, dtype=torch.float64)
    facts = info_of(*layer._definition())
    x = torch.randn(steps * batch, 3, dtype=torch.float64, requires_grad=True)
    states = [torch.randn(batch, size, dtype=torch.float64, requires_grad=True) for size in facts.state_sizes]
    marks = (torch.arange(len(x)) % 3 == 0).to(torch.uint8) if resets else None
    weights = [parameter.detach().requires_grad_() for parameter in layer.parameters()]
    offsets = torch.arange(steps + 1) * batch
    key = key_of(layer.cell.graph, False, False, "cpu")
    return (key, x, offsets, states, marks, weights, True, reverse, True)


# One row, rows in whole vectors and not; with and without what else is kept for the backward pass.
OPERANDS = [
    ("gru", 4, 2, 3, False, False),
    ("gru", 4, 2, 3, True, True),
    ("lstm", 16, 2, 3, True, False),
    ("lstm-peephole", 5, 1, 1, False, False),
    ("indrnn", 5, 1, 3, False, True),
]
CHECKS = ("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_dynamic")


@pytest.mark.filterwarnings("error:.*must not also be an input")
@pytest.mark.parametrize("asked", OPERANDS, ids=str)
def test_the_operators_keep_torchs_rules_for_operators(asked: Any) -> None:
    arguments = arguments_of(*asked)
    operator = torch.ops.cellwise.direction.default
    torch.library.opcheck(operator, arguments, test_utils=CHECKS)
    with torch.no_grad():
        output, *rest = operator(*arguments)
    states = arguments[3]
    backward = (*arguments[:-1], output, rest[len(states) :], output, list(rest[: len(states)]))
    for wants_input in (True, False):
        torch.library.opcheck(
            torch.ops.cellwise.direction_backward.default, (*backward, wants_input), test_utils=CHECKS[:3]
        )


@pytest.mark.parametrize("asked", OPERANDS, ids=str)
def test_what_the_operators_say_they_return_is_what_they_return(asked: Any) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    arguments = arguments_of(*asked)
    operator = torch.ops.cellwise.direction.default
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        said = operator(*[_faked(mode, each) for each in arguments])
    with torch.no_grad():
        found = operator(*arguments)

    def layout(each: Tensor) -> Any:
        # The stride of a dimension of one element means nothing, to torch too.
        strides = [stride for stride, size in zip(each.stride(), each.shape, strict=True) if size > 1]
        return each.shape, strides, each.storage_offset(), each.dtype

    assert [layout(each) for each in said] == [layout(each) for each in found]
    memory = [each.untyped_storage().data_ptr() for each in (*found, *arguments[3], arguments[1])]
    assert len(set(memory)) == len(memory)


def _faked(mode: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [_faked(mode, each) for each in value]
    return mode.from_tensor(value) if isinstance(value, Tensor) else value
