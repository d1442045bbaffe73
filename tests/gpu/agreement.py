"""How near a conformance case comes to float64 with the same weights and numbers, rounded as the layer has them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from cellwise import (
    Cell,
    Scalar,
    Vector,
    amax,
    dropout,
    exp,
    layer_norm,
    mean,
    rms_norm,
    sigmoid,
    softmax,
    tanh,
    where,
    zoneout,
)
from cellwise.backends.cuda.layout import Layout, trying
from cellwise.testing import Case
from cellwise.testing.cases import Arguments
from cellwise.testing.checks import naive_call
from cellwise.testing.compare import call_layer, results

# Relative errors of a result as a whole. LSTM and GRU layers come within 3.4e-3, 6e-4 and 6e-4 in fewer digits than
# float32 has; cells with more products one after the other within these.
TOLERANCE = {"float32": 2e-6, "tf32": 2.2e-3, "bfloat16": 4e-3, "float16": 1.4e-3}
# Of a few numbers the error may be larger by chance.
FEW = {"float32": 4, "tf32": 2.5, "bfloat16": 4, "float16": 2.5}
# Where equations branch, a number that is rounded to the other side of it has another derivative.
BRANCHING = 1.6
# Of an LSTM or a GRU with units enough that nothing is left to chance: docs/decisions/0040.
BOUNDS = {"float32": 1e-6, "tf32": 5e-4, "bfloat16": 4e-3, "float16": 5e-4}
DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "tf32": torch.float32,
    "float32": torch.float32,
}


class ThreeProducts(Cell):
    """Both states are multiplied in one stage, a third product waits for them, and there is a branch."""

    gates = ("a", "b", "d")
    states = ("h", "c")

    def step(self, x, h, c):
        a = sigmoid(x.a + h.a)
        n = tanh(x.b + c.b)
        c2 = (1 - a) * n + a * where(c < 0, 0.5 * c, c)
        return tanh(x.d + (a * c2).d) * n, c2


class Several(Cell):
    """Outputs beside the state: gates, of which a product reads one and nobody another, and a state's new value."""

    gates = ("a", "b", "d")
    states = ("h", "c")
    outputs = ("h", "a", "m", "shown", "c")

    def step(self, x, h, c):
        a = sigmoid(x.a + h.a)
        m = a * tanh(x.b + c.b)
        c2 = 0.5 * c + m
        return a, m, sigmoid(x.d), tanh(x.d + m.d) * (1 - a) + a * h, c2


class Given(Cell):
    """An input beside x in a product and by itself; masks of each step and of a whole sequence."""

    gates = ("a", "b")
    states = ("h",)
    inputs = ("d",)

    def step(self, x, h, d):
        a = sigmoid(x.a + dropout(h, 0.25, per_sequence=True).a)
        n = tanh(x.b + (exp(-d) * h).b) * (1 + d)
        return zoneout(a * h + (1 - a) * dropout(n, 0.5), h, 0.1)


class Normed(Cell):
    """Numbers of a row that one product lies between, a state that is normed, the largest of a gate; two outputs."""

    gates = ("a", "b")
    states = ("h", "m")
    outputs = ("read", "h")
    inputs = ("d",)
    gain = Vector(1.0)

    def step(self, x, h, m, d):
        middle = mean(x.a)
        read = softmax(x.a + h.a) * rms_norm(m + x.b, self.gain)
        n = tanh(x.b + (read + d * h).b + middle)
        return read, layer_norm(0.5 * h + n) * sigmoid(middle), 0.5 * m + n * where(amax(x.b) < 1, 1, 0.5)


class Tempered(Cell):
    """Learned numbers that only numbers of a row are made with, kept ones among them, and a comparison."""

    gates = ("a",)
    states = ("h",)
    q, r = Scalar(0.3), Scalar(0.5)

    def step(self, x, h):
        least = tanh(self.q) * 2
        size = where(mean(h) < least, mean(x.a) * exp(self.r), tanh(self.q + self.r))
        return tanh(x.a + h.a) * size + 0.5 * h


def errors_of(case: Case, backend: str, dtype: torch.dtype, device: str = "cpu") -> dict[str, float]:
    """The relative error of every result: output, final states, each gradient. A cell that draws is in training."""
    draws = bool(case.cell.training_graph.draws)
    given = case.arguments(dtype)
    layer = case.layer(backend, dtype).to(device).train(draws or case.cell.training_graph is case.cell.graph)
    found = results(layer, _on(given, device), _seeded)
    exact = replace(
        given,
        x=given.x.double(),
        state=_moved(given.state, torch.float64),
        beside={name: each.double() for name, each in given.beside.items()},
    )
    if draws:  # by the definition, with the same masks, which are those of a device
        other = _exact(case, layer).to(device).train()
        wanted = {name: each.cpu() for name, each in results(other, _on(exact, device), _seeded).items()}
    else:
        wanted = results(_exact(case, layer), exact, naive_call)
    errors = {}
    for name, truth in wanted.items():
        off = (found[name].double().cpu() - truth).norm()
        # What is small by cancelling is as good as numbers of its kind are.
        size = max(truth.norm(), 0.1 * truth.numel() ** 0.5)
        errors[name] = (off / size).item() if truth.numel() else 0.0
    return errors


def _on(given: Arguments, device: str) -> Arguments:
    """The same on a device."""
    return replace(
        given,
        x=given.x.to(device),
        state=_moved(given.state, device),
        resets=None if given.resets is None else given.resets.to(device),
        beside={name: each.to(device) for name, each in given.beside.items()},
    )


def _seeded(
    layer: nn.Module, given: Arguments, x: torch.Tensor, states: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """A call that draws the same numbers each time, in whatever dtype."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return call_layer(layer, given, x, states)


def _exact(case: Case, layer: nn.Module) -> nn.Module:
    made = replace(case, recompute=False).layer("reference")
    made.load_state_dict({name: each.double().cpu() for name, each in layer.state_dict().items()})
    return made


def _moved(state: object, where: object) -> object:
    if isinstance(state, tuple):
        return tuple(each.to(where) for each in state)
    return state if state is None else state.to(where)  # type: ignore[attr-defined]


def on_streams(layer: nn.Module, x: torch.Tensor, count: int) -> list[torch.Tensor]:
    """The outputs of so many calls at once, each on a stream of its own."""
    streams = [torch.cuda.Stream() for _ in range(count)]
    torch.cuda.synchronize()
    found = []
    for stream in streams:
        with torch.cuda.stream(stream):
            found.append(layer(x)[0])
    torch.cuda.synchronize()
    return found


def check(
    case: Case,
    backend: str,
    number: str = "float32",
    layout: Layout | None = None,
    device: str = "cpu",
    bound: float | None = None,
) -> None:
    """Fail unless every result is as near to float64 as the numbers allow, or a bound."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if number == "tf32" else "highest")
    try:
        with trying(layout, layout):
            errors = errors_of(case, backend, DTYPES[number], device)
    finally:
        torch.set_float32_matmul_precision(before)
    room = TOLERANCE[number] * (FEW[number] if case.hidden_size * case.batch <= 256 else 1)
    # What is left of numbers less their mean has lost digits, whoever computes it: the definition, too. And in bfloat16
    # that is never nearer than these kernels, whose states and sums are float32.
    times = 3 if case.cell.training_graph.reductions else 1 if number == "bfloat16" else 0
    if times and max(errors.values()) > room:
        like = torch.float16 if number == "tf32" else DTYPES[number]  # TF32 has as many digits
        room = max(room, times * max(errors_of(replace(case, recompute=False), "reference", like).values()))
    room *= BRANCHING if any(node.is_mask for node in case.cell.training_graph.nodes) else 1
    room = room if bound is None else bound
    bad = {name: error for name, error in errors.items() if not error <= room}
    assert not bad, f"{case} on {backend}, {number}, {layout or 'its own layout'}: {bad}"


__all__ = ["BOUNDS", "DTYPES", "TOLERANCE", "Arguments", "check", "errors_of", "on_streams"]
