"""torch.nn's layers as ONNX graphs of one node, run by onnxruntime where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from cellwise.bench.implementations import Batch, Results

NAME = "onnxruntime"

# torch.nn's layer -> ONNX's operator, and where ONNX's row blocks stand among torch's: torch has i f g o and r z n,
# ONNX i o f c and z r h. https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html
_OPERATORS: dict[type[nn.Module], tuple[str, tuple[int, ...]]] = {
    nn.RNN: ("RNN", (0,)),
    nn.LSTM: ("LSTM", (0, 3, 1, 2)),
    nn.GRU: ("GRU", (1, 0, 2)),
}
_OPSET, _IR_VERSION = 14, 8  # the operators as they are since 2021; any onnxruntime from 1.10 on reads them


def version() -> str | None:
    """The version of onnxruntime; None if it, or onnx, is not installed."""
    try:
        import_module("onnx")
        return str(import_module("onnxruntime").__version__)
    except ModuleNotFoundError:
        return None


def session(layer: nn.Module, threads: int) -> Any | None:
    """A session that runs a one-layer torch.nn.RNN, LSTM or GRU; None for other layers."""
    if type(layer) not in _OPERATORS:
        return None
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return runtime.InferenceSession(
        _model(layer).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _model(layer: Any) -> Any:
    helper, numpy_helper = import_module("onnx.helper"), import_module("onnx.numpy_helper")
    kind, order = _OPERATORS[type(layer)]
    H = layer.hidden_size

    def blocks(name: str) -> Tensor:
        """Torch's row blocks in ONNX's order."""
        return torch.cat([getattr(layer, name).detach().split(H)[place] for place in order])

    weights = {
        "W": blocks("weight_ih_l0").unsqueeze(0),
        "R": blocks("weight_hh_l0").unsqueeze(0),
        "B": torch.cat([blocks("bias_ih_l0"), blocks("bias_hh_l0")]).unsqueeze(0),
    }
    states = ("h", "c") if kind == "LSTM" else ("h",)
    attributes: dict[str, Any] = {"hidden_size": H}
    if kind == "GRU":
        attributes["linear_before_reset"] = (
            1  # r ⊙ (W_hn h + b_hn), torch's form; 0 is the reset before the product
        )
    if kind == "RNN":
        attributes["activations"] = [layer.nonlinearity.capitalize()]
    node = helper.make_node(
        kind,
        ["x", *weights, "", *(f"initial_{state}" for state in states)],
        ["y", *(f"final_{state}" for state in states)],
        **attributes,
    )

    def value(name: str, *sizes: int | str) -> Any:
        return helper.make_tensor_value_info(name, import_module("onnx").TensorProto.FLOAT, list(sizes))

    graph = helper.make_graph(
        [node],
        kind,
        [value("x", "T", "B", layer.input_size), *(value(f"initial_{state}", 1, "B", H) for state in states)],
        [value("y", "T", 1, "B", H), *(value(f"final_{state}", 1, "B", H) for state in states)],
        [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in weights.items()],
    )
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)


def inference(runner: Any, batch: Batch) -> Callable[[], Results]:
    """A call that runs the batch: numpy arrays in and out, which share torch's memory."""
    names = [each.name for each in runner.get_inputs()]
    values = [tensor.detach().numpy() for tensor in (batch.x, *batch.states)]
    feed = dict(zip(names, values, strict=True))

    def run() -> Results:
        output, *finals = map(torch.from_numpy, runner.run(None, feed))
        return {"output": output[:, 0]} | {f"final state {place}": each for place, each in enumerate(finals)}

    return run


def stepper(runner: Any, batch: Batch) -> Callable[[Tensor], Tensor]:
    """One step (B, D) at a time, the state kept."""
    names = [each.name for each in runner.get_inputs()]
    states = [state.detach().numpy() for state in batch.states]

    def step(x: Tensor) -> Tensor:
        output, *states[:] = runner.run(
            None, dict(zip(names, (x.unsqueeze(0).numpy(), *states), strict=True))
        )
        return torch.from_numpy(output)[0, 0]

    return step
