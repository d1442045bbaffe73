"""The operators, called by hand with arguments that do not fit: refused, and never read or written beside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cellwise import cells
from cellwise.backends.compiled.cell_kernels import kernels_of, key_of
from cellwise.backends.cpu.target import host
from cellwise.graph.verify import GraphError

DIRECTION, BACKWARD = torch.ops.cellwise.direction, torch.ops.cellwise.direction_backward
D, H, SIZES = 3, 8, (4, 2, 1)
N, B = sum(SIZES), SIZES[0]


def call(cell: str = "gru") -> dict[str, Any]:
    """Arguments that fit."""
    graph = cells.get(cell).graph
    gates = len(graph.state_gates)
    weights = [
        torch.randn(gates * H, D),
        torch.randn(gates * H, H),
        torch.randn(gates * H),
        torch.randn(gates * H),
    ]
    weights += [torch.randn(H) for _ in graph.vectors]
    return {
        "key": key_of(graph, False, False, "cpu"),
        "x": torch.randn(N, D),
        "offsets": torch.tensor([0, 4, 6, 7]),
        "states": [torch.randn(B, H) for _ in graph.states],
        "resets": torch.zeros(N, dtype=torch.uint8),
        "weights": weights,
        "bias": True,
        "reverse": False,
    }


def changed(name: str, value: Any, place: int | None = None) -> Callable[[dict[str, Any]], None]:
    def change(arguments: dict[str, Any]) -> None:
        if place is None:
            arguments[name] = value
        else:
            arguments[name] = [*arguments[name]]
            arguments[name][place] = value

    return change


def whole(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


WRONG: dict[str, Callable[[dict[str, Any]], None]] = {
    "x-dtype": changed("x", torch.zeros(N, D, dtype=torch.float16)),
    "x-double": changed("x", torch.zeros(N, D, dtype=torch.float64)),
    "x-wide": changed("x", torch.zeros(N, D + 1)),
    "x-dims": changed("x", torch.zeros(N, 1, D)),
    "x-short": changed("x", torch.zeros(N - 1, D)),
    "offsets-int32": changed("offsets", whole(0, 4, 6, 7).int()),
    "offsets-float": changed("offsets", whole(0, 4, 6, 7).double()),
    "offsets-dims": changed("offsets", whole(0, 4, 6, 7)[None]),
    "offsets-none": changed("offsets", whole()[:0].long()),
    "offsets-begin": changed("offsets", whole(1, 4, 6, 7)),
    "offsets-negative": changed("offsets", whole(0, -4, 6, 7)),
    "offsets-beyond": changed("offsets", whole(0, 4, 6, 8)),
    "offsets-far": changed("offsets", whole(0, 4, 6, 2**62)),
    "offsets-overflow": changed("offsets", whole(0, 2**63 - 1, -(2**63), 7)),
    "offsets-fall": changed("offsets", whole(0, 4, 3, 7)),
    "offsets-grow": changed("offsets", whole(0, 1, 3, 7)),
    "offsets-batch": changed("offsets", whole(0, 5, 6, 7)),
    "offsets-meta": changed("offsets", whole(0, 4, 6, 7).to("meta")),
    "states-none": changed("states", []),
    "states-more": changed("states", [torch.zeros(B, H)] * 2),
    "states-few": changed("states", [torch.zeros(B - 1, H)]),
    "states-wide": changed("states", [torch.zeros(B, H + 1)]),
    "states-narrow": changed("states", [torch.zeros(B, H - 1)]),
    "states-empty": changed("states", [torch.zeros(B, 0)]),
    "states-double": changed("states", [torch.zeros(B, H).double()]),
    "states-dims": changed("states", [torch.zeros(1, B, H)]),
    "resets-short": changed("resets", torch.zeros(N - 1, dtype=torch.uint8)),
    "resets-bool": changed("resets", torch.zeros(N, dtype=torch.bool)),
    "resets-dims": changed("resets", torch.zeros(N, 1, dtype=torch.uint8)),
    "weights-few": changed("weights", []),
    "weights-ih": changed("weights", torch.zeros(3 * H, D - 1), 0),
    "weights-hh": changed("weights", torch.zeros(2, 2), 1),
    "weights-double": changed("weights", torch.zeros(3 * H, H).double(), 1),
    "weights-bias": changed("weights", torch.zeros(H), 2),
    "weights-scalar": changed("weights", torch.zeros(()), 3),
    "weights-sparse": changed("weights", torch.zeros(3 * H, H).to_sparse(), 1),
    "no-bias": changed("bias", False),
    "key": changed("key", "no graph"),
    "key-options": changed("key", "unknown" + key_of(cells.get("gru").graph, False, False, "cpu")),
    "key-projected": changed("key", key_of(cells.get("gru-reset-before").graph, True, False, "cpu")),
}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name: str, grad: bool) -> None:
    arguments = call()
    arguments["x"].requires_grad_(grad)
    WRONG[name](arguments)
    with pytest.raises((RuntimeError, GraphError)):
        DIRECTION(**arguments, tape=grad)


def both(arguments: dict[str, Any]) -> tuple[list[Tensor], dict[str, Any]]:
    """What comes out, and the arguments of the backward pass."""
    with torch.no_grad():
        output, *rest = DIRECTION(**arguments, tape=True)
    count = len(arguments["states"])
    given = {
        "output": output,
        "kept": rest[count:],
        "output_gradient": torch.ones_like(output),
        "state_gradients": [torch.ones_like(each) for each in arguments["states"]],
        "wants_input": True,
    }
    return [output, *rest[:count]], arguments | given


BACK: dict[str, Callable[[dict[str, Any]], None]] = {
    "output-short": changed("output", torch.zeros(N - 1, H)),
    "output-double": changed("output", torch.zeros(N, H).double()),
    "kept-none": changed("kept", []),
    "kept-short": changed("kept", torch.zeros(1, 1), 0),
    "gradient-short": changed("output_gradient", torch.zeros(N - 1, H)),
    "gradient-double": changed("output_gradient", torch.zeros(N, H).double()),
    "states-none": changed("state_gradients", []),
    "states-short": changed("state_gradients", [torch.zeros(1, H)]),
    "offsets": changed("offsets", whole(0, 4, 8, 9)),
    "weights": changed("weights", torch.zeros(1, 1), 1),
}


@pytest.mark.parametrize("name", BACK)
def test_what_does_not_fit_the_backward_pass_is_refused(name: str) -> None:
    _, arguments = both(call())
    BACKWARD(**arguments)
    BACK[name](arguments)
    with pytest.raises(RuntimeError, match=r"cellwise::direction: .*\."):
        BACKWARD(**arguments)


@pytest.mark.parametrize("cell", ["gru", "lstm-peephole"])
def test_arguments_that_lie_otherwise_give_the_same(cell: str) -> None:
    arguments = call(cell)
    arguments["resets"][5] = 1
    wanted, back = both(arguments)
    gradients = BACKWARD(**back)

    def spread(value: Any) -> Any:
        if isinstance(value, list):
            return [spread(each) for each in value]
        return torch.stack([value, value], -1)[..., 0] if isinstance(value, Tensor) else value

    found, _ = both({name: spread(value) for name, value in arguments.items()})
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(BACKWARD(**{k: spread(v) for k, v in back.items()}), gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_random_arguments_never_end_the_process() -> None:
    trial = Path(__file__).parents[1] / "trials" / "trial_foreign_calls.py"
    done = subprocess.run(
        [sys.executable, str(trial), "--calls", "400"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_key_names_the_rows_that_are_kept_and_another_machines_key_runs() -> None:
    """torch.compile keeps programs on disk under the key: those for rows of another width must not be found."""
    key = key_of(cells.get("gru").graph, False, True, "cpu")
    rows = f"rows2.{host().vector_bytes} "
    assert key.startswith(rows)
    other = kernels_of(key.replace(rows, "rows1.8 "), torch.float32, "cpu")
    assert other.recompute and other.graph.fingerprint == cells.get("gru").graph.fingerprint
