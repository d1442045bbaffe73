"""torch's own tools around our layers: as around torch.nn's, or a sentence that says what to do."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import default_dynamic_qconfig, get_default_qconfig, quantize_fx
from torch.nn.utils import prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode
from torch_pairs import CELLS, CLASSES

import cellwise
from cellwise import Recurrent, convert
from cellwise.errors import BackendError, InputError, ToolError

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning"
)

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "deep": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "projected": {"proj_size": 2},
}
LAYERS = [(kind, shape) for kind in CLASSES for shape in SHAPES if kind == "LSTM" or shape != "projected"]
X = (5, 2, 3)


class Model(nn.Module):
    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.rnn = CLASSES[kind][0](3, 4, **options)
        self.out = nn.Linear((options.get("proj_size") or 4) * (2 if options.get("bidirectional") else 1), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


def gradients(model: Any, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(model(x).sin().sum(), list(model.parameters())))


# --- torch.jit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "shape"), LAYERS)
def test_a_traced_model_is_good_for_other_sizes_with_and_without_gradients(kind: str, shape: str) -> None:
    model = convert(Model(kind, **SHAPES[shape]))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            traced = torch.jit.trace(model, torch.randn(X))
        assert "cellwise::" not in str(traced.inlined_graph), "torch's operators alone"
        for size in (X, (7, 4, 3), (1, 1, 3)):
            x = torch.randn(size)
            torch.testing.assert_close(traced(x), model(x))
            torch.testing.assert_close(gradients(traced, x), gradients(model, x), rtol=1e-4, atol=1e-5)


def test_a_traced_model_runs_where_cellwise_is_not(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(convert(Model("GRU")), torch.randn(X)), tmp_path / "model.pt")
    code = "import sys, torch; print(torch.jit.load(sys.argv[1])(torch.ones(7, 2, 3)).shape, 'cellwise' in sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path / "model.pt")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "torch.Size([7, 2, 2]) False"


@pytest.mark.parametrize("cell", ["indrnn", "lstm-peephole"])
def test_a_traced_cell_of_any_equations(cell: str) -> None:
    layer = Recurrent(cell, 3, 4, num_layers=2, bidirectional=True)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            traced = torch.jit.trace(layer, torch.randn(X))
        for size in (X, (7, 4, 3)):
            x = torch.randn(size)
            torch.testing.assert_close(traced(x), layer(x))
        wanted = torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))
        found = torch.autograd.grad(traced(x)[0].sum(), list(traced.parameters()))
        torch.testing.assert_close(found, wanted)


def test_lengths_of_a_traced_model_are_read_when_it_runs() -> None:
    class Ragged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = cellwise.GRU(3, 4, bidirectional=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            return self.rnn(x, lengths=lengths)[0]

    model = Ragged()
    traced = torch.jit.trace(model, (torch.randn(X), torch.tensor([5, 2])))
    for size, lengths in ((X, [0, 4]), ((7, 3, 3), [0, 7, 3])):
        x = torch.randn(size, requires_grad=True)
        torch.testing.assert_close(traced(x, torch.tensor(lengths)), model(x, torch.tensor(lengths)))
    with pytest.raises(RuntimeError, match="lengths must lie between 0 and the number of steps, 7"):
        traced(torch.randn(7, 2, 3), torch.tensor([8, 1]))


@pytest.mark.parametrize(
    "kind", ["RNN", "GRU"]
)  # torch.jit.script cannot compile a call of torch.nn.LSTM like this
def test_a_scripted_model_and_the_model_stays_converted(kind: str) -> None:
    model = convert(Model(kind, num_layers=2))
    scripted, x = torch.jit.script(model), torch.randn(X)
    assert type(model.rnn) is CLASSES[kind][1]
    torch.testing.assert_close(scripted(x), model(x))
    torch.testing.assert_close(gradients(scripted, x), gradients(model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CELLS)
def test_a_scripted_cell(kind: str) -> None:
    cell, x = CELLS[kind][1](3, 4), torch.randn(2, 3)
    torch.testing.assert_close(torch.jit.script(cell)(x), cell(x))


def test_a_scripted_model_of_packed_sequences() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = cellwise.GRU(3, 4)

        def forward(self, x: PackedSequence) -> tuple[PackedSequence, Tensor]:
            return self.rnn(x)

    model, packed = Packed(), pack_padded_sequence(torch.randn(X), torch.tensor([5, 2]))
    torch.testing.assert_close(torch.jit.script(model)(packed), model(packed))


def test_what_cannot_be_scripted_says_what_can_be_done() -> None:
    with pytest.raises(ToolError, match=r"cannot compile Recurrent \(0\).*torch\.jit\.trace"):
        torch.jit.script(nn.Sequential(Recurrent("indrnn", 3, 4)))


# --- torch.ao.quantization ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_dynamic_quantization(kind: str, dtype: torch.dtype) -> None:
    model, x = Model(kind), torch.randn(X)
    wanted = torch.ao.quantization.quantize_dynamic(model, {nn.LSTM, nn.GRU}, dtype=dtype)
    found = torch.ao.quantization.quantize_dynamic(convert(model), {nn.LSTM, nn.GRU}, dtype=dtype)
    assert type(found.rnn) is type(wanted.rnn)
    assert type(model.rnn) is CLASSES[kind][1]
    torch.testing.assert_close(found(x), wanted(x), rtol=0, atol=0)


@pytest.mark.parametrize("kind", CELLS)
def test_dynamic_quantization_of_cells(kind: str) -> None:
    model = convert(nn.Sequential(CELLS[kind][0](3, 4)))
    quantized = torch.ao.quantization.quantize_dynamic(model)
    assert type(quantized[0]).__module__.startswith("torch.ao.nn")
    assert type(model[0]) is CELLS[kind][1]


@pytest.mark.parametrize("inplace", [False, True])
def test_what_quantization_leaves_stays_ours(inplace: bool) -> None:
    model = convert(Model("GRU"))
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, inplace=inplace)
    assert type(quantized.rnn) is cellwise.GRU
    assert type(quantized.out).__module__.startswith("torch.ao.nn")
    assert (quantized is model) == inplace


def test_static_quantization_finds_torchs_classes() -> None:
    found = []
    for model in (Model("LSTM"), convert(Model("LSTM"))):
        model.eval().qconfig = get_default_qconfig("fbgemm")
        found.append([type(each) for each in torch.ao.quantization.prepare(model).modules()])
    assert found[0] == found[1]


def test_quantization_of_graphs() -> None:
    found = []
    kinds = torch.ao.quantization.QConfigMapping().set_object_type(nn.LSTM, default_dynamic_qconfig)
    for change in (lambda model: model, convert):
        torch.manual_seed(0)
        model = change(Model("LSTM")).eval()
        prepared = quantize_fx.prepare_fx(model, kinds, (torch.ones(X),))
        found.append(quantize_fx.convert_fx(prepared))
    assert type(found[0].rnn) is type(found[1].rnn) is torch.ao.nn.quantized.dynamic.LSTM
    torch.testing.assert_close(found[0](torch.ones(X)), found[1](torch.ones(X)))


# --- torch.fx, torch.onnx, counting -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES)
def test_a_symbolic_trace_holds_the_layer_as_one_module(kind: str) -> None:
    model = convert(Model(kind))
    graph = torch.fx.symbolic_trace(model)
    assert [str(node.target) for node in graph.graph.nodes if node.op == "call_module"] == ["rnn", "out"]
    assert graph.rnn is model.rnn
    x = torch.randn(X)
    torch.testing.assert_close(graph(x), model(x))


def test_a_symbolic_trace_passes_lengths_on() -> None:
    class Ragged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = Recurrent("indrnn", 3, 4)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            output, _ = self.rnn(x, lengths=lengths)
            return output

    model, x, lengths = Ragged(), torch.randn(X), torch.tensor([2, 5])
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x, lengths), model(x, lengths))


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("shape", ["plain", "deep"])  # torch's exporters know no projection
@pytest.mark.parametrize("kind", CLASSES)
def test_onnx(kind: str, shape: str, dynamo: bool) -> None:
    pytest.importorskip("onnxscript" if dynamo else "onnx")
    runtime = pytest.importorskip("onnxruntime")
    model, x, buffer = convert(Model(kind, **SHAPES[shape])).eval(), torch.randn(X), io.BytesIO()
    torch.onnx.export(model, (x,), buffer, dynamo=dynamo, input_names=["x"])
    session = runtime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(x))


@pytest.mark.parametrize(
    "make", [lambda: cellwise.GRU(3, 4, backend="cpu"), lambda: Recurrent("indrnn", 3, 4)]
)
def test_what_onnx_has_no_operator_for_says_what_can_be_done(make: Any) -> None:
    with pytest.raises(BackendError, match=r"torch\.onnx\.export.*cellwise\.revert\(model\).*'reference'"):
        torch.onnx.export(nn.Sequential(make()), (torch.ones(X),), io.BytesIO(), dynamo=False)


def test_onnx_of_a_layer_that_is_the_model() -> None:
    runtime, x = pytest.importorskip("onnxruntime"), torch.randn(X)
    for layer in (Recurrent("mgu", 3, 4), Recurrent("lstm", 3, 4)):
        with pytest.raises(BackendError, match=r"torch\.onnx\.export.*'reference'"):
            torch.onnx.export(layer, (x,), io.BytesIO(), dynamo=False)
        layer.backend, buffer = "reference", io.BytesIO()
        torch.onnx.export(layer.eval(), (x,), buffer, dynamo=False, input_names=["x"])
        session = runtime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
        torch.testing.assert_close(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), layer(x)[0])


def test_hx_and_state_are_one_argument() -> None:
    h = torch.zeros(1, 2, 4)
    with pytest.raises(InputError, match="hx= and state= are two names of one argument"):
        cellwise.GRU(3, 4)(torch.ones(X), h, state=h)


@pytest.mark.parametrize("backend", ["cpu", "native"])
def test_floating_point_operations_are_counted(backend: str) -> None:
    # As the products of the layers: 2 * N * (G * H) * (D + H) forward; twice that backward, at weights and operands.
    layer, x = cellwise.GRU(3, 4, backend=backend), torch.randn(X, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        output, _ = layer(x)
        forward = counter.get_total_flops()
        output.sum().backward()
    assert forward == 2 * 10 * 12 * (3 + 4)
    first_step = 2 * 2 * 12 * 4 if backend == "native" else 0  # there torch needs no gradient of the state
    assert counter.get_total_flops() == 3 * forward - first_step


# --- everything else that is done to a model ----------------------------------------------------------------


def test_checkpointed_twice_and_saved_elsewhere() -> None:
    model, x = convert(Model("GRU")), torch.randn(X, requires_grad=True)
    wanted = gradients(model, x)
    for reentrant in (True, False):
        found = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant)
        model.zero_grad()
        found.sin().sum().backward()
        torch.testing.assert_close([parameter.grad for parameter in model.parameters()], wanted)
    with torch.autograd.graph.save_on_cpu():
        torch.testing.assert_close(gradients(model, x), wanted)


def test_pruned_and_normalized_weights() -> None:
    x = torch.randn(X)
    for change in (
        lambda rnn: prune.l1_unstructured(rnn, "weight_hh_l0", 0.5),
        lambda rnn: nn.utils.weight_norm(rnn, "weight_hh_l0"),
    ):
        found = []
        for swap in (lambda model: model, convert):
            torch.manual_seed(0)
            model = swap(Model("GRU"))
            change(model.rnn)
            found.append((model(x), gradients(model, x)))
        torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_no_warning_on_the_way() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(Model("GRU"))(torch.randn(X)).sum().backward()
