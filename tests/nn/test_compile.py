"""torch.compile(fullgraph=True): no graph break, and the numbers and gradients of the plain call."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cellwise
from cellwise import Recurrent

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


def compare(layer: nn.Module, options: dict[str, Any]) -> None:
    model, x = Model(layer), torch.randn(5, 3, 3, requires_grad=True)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    wanted = everything(model, model, x, options)
    torch.testing.assert_close(everything(compiled, model, x, options), wanted)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, **options), model(x, **options))


@pytest.mark.parametrize("name", LAYERS)
def test_a_dense_batch_in_one_graph(name: str) -> None:
    compare(LAYERS[name](), {})


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


@pytest.mark.parametrize("backend", ["auto", "cpu"])
@pytest.mark.parametrize("call", ["dense", "resets"])
def test_export(call: str, backend: str) -> None:
    layer, x = cellwise.GRU(3, 4, bidirectional=True, backend=backend), torch.randn(5, 3, 3)
    program = torch.export.export(layer, (x,), CALLS[call])
    torch.testing.assert_close(program.module()(x, **CALLS[call]), layer(x, **CALLS[call]))


def test_the_operators_keep_torchs_rules_for_operators() -> None:
    from cellwise.backends.cpu.direction import Direction
    from cellwise.backends.reference.loop import run_direction
    from cellwise.nn.recurrent import facts_of

    layer = Recurrent("gru", 3, 4, dtype=torch.float64)
    prepared = Direction.of(facts_of(*layer._definition()).stack, torch.float64, run_direction)
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    states = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True)]
    weights = [parameter.detach().requires_grad_() for parameter in layer.parameters()]
    offsets = torch.tensor([0, 3, 6])
    arguments = (prepared.key, x, offsets, states, None, weights, True, False, True)
    operator = torch.ops.cellwise.direction.default
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(operator, arguments, test_utils=checks)
