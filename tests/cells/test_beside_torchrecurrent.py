"""Cells that torchrecurrent has too, beside its own: another reading of the same papers. Runs where it is installed.

What it has more of, biases of gates that have none here, is zero. Left out are those whose forms differ: LEM, NAS,
SCRN, RHN and JANET.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from cellwise import Recurrent

theirs = pytest.importorskip("torchrecurrent")

H = 3
Named = dict[str, Tensor]


@dataclass(frozen=True)
class Twin:
    """A cell of torchrecurrent: its parameters of weights and biases, and our gates in the order of their blocks.

    `own`: our other parameters, made of theirs. `options`: of its constructor.
    """

    name: str
    inputs: tuple[tuple[str, str, str], ...]
    states: tuple[tuple[str, str, str], ...] = ()
    own: dict[str, Callable[[Named], Tensor]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def _ih(gates: str, biases: str | None = None) -> tuple[tuple[str, str, str], ...]:
    return (("weight_ih", gates, ""), ("bias_ih", "", gates if biases is None else biases))


def _hh(gates: str, *more: tuple[str, str, str]) -> tuple[tuple[str, str, str], ...]:
    return (("weight_hh", gates, ""), ("bias_hh", "", gates), *more)


def _block(name: str, number: int) -> Callable[[Named], Tensor]:
    return lambda p: p[name][number * H : (number + 1) * H]


_PEEPHOLES = {f"p_{gate}": _block("weight_ph", number) for number, gate in enumerate("ifo")}
_SGU = {"output_nonlinearity": "tanh", "gate_nonlinearity": "sigmoid"}
TWINS = {
    "atr": Twin("ATR", _ih("p"), _hh("p")),
    "brc": Twin("BR", _ih("a c n"), own={"w_a": _block("weight_hh", 0), "w_c": _block("weight_hh", 1)}),
    "nbrc": Twin("NBR", _ih("a c n"), _hh("a c")),
    "cfn": Twin("CFN", _ih("f i n"), _hh("f i")),
    "cornn": Twin("coRNN", _ih("n"), _hh("n", ("weight_ch", "v", ""), ("bias_ch", "", "v"))),
    "fastrnn": Twin(
        "FastRNN", _ih("n"), _hh("n"), {"alpha": lambda p: p["alpha"][0], "beta": lambda p: p["beta"][0]}
    ),
    "fastgrnn": Twin(
        "FastGRNN",
        (("weight_ih", "n", ""),),
        (("weight_hh", "n", ""),),
        {
            "b_z": lambda p: (p["bias_ih"] + p["bias_hh"])[:H],
            "b_n": lambda p: (p["bias_ih"] + p["bias_hh"])[H:],
            "zeta": lambda p: p["zeta"][0],
            "nu": lambda p: p["nu"][0],
        },
        {"nonlinearity": "sigmoid"},
    ),
    "indrnn": Twin("IndRNN", _ih("n"), own={"u": lambda p: p["vector_u"]}, options={"nonlinearity": "relu"}),
    "lightru": Twin("LightRU", _ih("n f"), _hh("f")),
    "ligru": Twin("LiGRU", _ih("z n"), _hh("z n")),
    "mgu": Twin("MGU", _ih("f n"), _hh("f n")),
    "minimal-rnn": Twin("MinimalRNN", _ih("n"), _hh("u", ("weight_mm", "m", ""))),
    "multiplicative-lstm": Twin(
        "MultiplicativeLSTM",
        _ih("m i f g o"),
        _hh("m", ("weight_mh", "i f g o", ""), ("bias_mh", "", "i f g o")),
    ),
    "mut1": Twin("MUT1", _ih("z r n"), _hh("r n")),
    "mut2": Twin("MUT2", _ih("z r n"), _hh("z r n")),
    "mut3": Twin("MUT3", _ih("z r n"), _hh("z r n")),
    "lstm-original": Twin("OriginalLSTM", _ih("i g o"), _hh("i g o")),
    "lstm-peephole": Twin("PeepholeLSTM", _ih("i f g o"), _hh("i f g o"), _PEEPHOLES),
    "lstm-residual": Twin(
        "ResLSTM",
        (*_ih("i f g o"), ("weight_res", "p", "")),
        _hh("i f g o", ("weight_proj", "p", "")),
        _PEEPHOLES,
    ),
    "lstm-wmc": Twin(
        "WMCLSTM", _ih("i f g o"), _hh("i f g o", ("weight_mh", "mi mf mo", ""), ("bias_mh", "", "mi mf mo"))
    ),
    "ran": Twin("RAN", _ih("n i f", "i f"), _hh("i f")),
    "sgu": Twin("SGU", _ih("g z"), _hh("g z"), options=_SGU),
    "dsgu": Twin("DSGU", _ih("g z"), _hh("g z", ("weight_ho", "o", "")), options=_SGU),
    "sgrn": Twin("SGRN", _ih("n"), _hh("n")),
    "star": Twin("STAR", _ih("z k"), _hh("k")),
    "trnn": Twin("TRNN", _ih("n f")),
    "ugrnn": Twin("UGRNN", _ih("n g"), _hh("n g")),
    "unicornn": Twin(
        "UnICORNN", _ih("n"), own={"w": lambda p: p["weight_hh"], "k": lambda p: p["weight_ch"]}
    ),
}  # fmt: skip


def _blocks(p: Named, sources: Sequence[tuple[str, str, str]], weights: bool) -> Named:
    """Blocks of theirs, by our gates."""
    found: Named = {}
    for name, of_weights, of_biases in sources:
        gates = (of_weights if weights else of_biases).split()
        if gates:
            found |= dict(zip(gates, p[name].split(H), strict=True))
    return found


def _mapped(layer: Recurrent, twin: Twin, p: Named) -> Named:
    """Our parameters, made of theirs."""
    graph = layer.cell.graph
    stems = {
        "weight_ih": (graph.input_gates, twin.inputs, True),
        "weight_hh": (graph.state_gates, twin.states, True),
        "bias_ih": (graph.input_biases, twin.inputs, False),
        "bias_hh": (graph.state_biases, twin.states, False),
    }
    made: Named = {}
    for stem, (gates, sources, weights) in stems.items():
        if gates:
            blocks = _blocks(p, sources, weights)
            made[f"{stem}_l0"] = torch.cat([blocks[gate] for gate in gates])
    return made | {f"{name}_l0": of(p) for name, of in twin.own.items()}


def _silence(layer: Recurrent, twin: Twin, p: Named) -> None:
    """Make their biases zero that we have not."""
    graph = layer.cell.graph
    for sources, ours in ((twin.inputs, graph.input_biases), (twin.states, graph.state_biases)):
        for gate, block in _blocks(p, sources, weights=False).items():
            if gate not in ours:
                block.zero_()
    if "bias_hh" in p and not twin.states and twin.name != "FastGRNN":
        p["bias_hh"].zero_()


def _run(cell: Any, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    outputs = []
    for x_t in x:
        made = cell(x_t, states if len(states) > 1 else states[0])
        states = made if isinstance(made, tuple) else (made,)
        outputs.append(states[0])
    return torch.stack(outputs), states


@pytest.mark.parametrize("name", TWINS)
def test_it_computes_the_same(name: str) -> None:
    twin = TWINS[name]
    torch.manual_seed(1)
    layer = Recurrent(name, 4, H, backend="reference", dtype=torch.float64)
    cell = getattr(theirs, f"{twin.name}Cell")(4, H, dtype=torch.float64, **twin.options)
    parameters = dict(cell.named_parameters())
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.copy_(0.5 * torch.randn_like(parameter))
        _silence(layer, twin, parameters)
    x = torch.randn(4, 2, 4, dtype=torch.float64, requires_grad=True)
    states = tuple(torch.randn(2, H, dtype=torch.float64, requires_grad=True) for _ in layer.cell.states)
    wanted, ends = _run(cell, x, states)

    given = tuple(state.unsqueeze(0) for state in states)
    mapped = _mapped(layer, twin, parameters)
    found, final = functional_call(layer, mapped, (x, given if len(given) > 1 else given[0]))
    finals = final if isinstance(final, tuple) else (final,)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    for ours, end in zip(finals, ends, strict=True):
        torch.testing.assert_close(ours[0], end, rtol=1e-10, atol=1e-12)
    sources = [x, *states, *parameters.values()]
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    factor = torch.randn_like(wanted)
    gradients = torch.autograd.grad((wanted * factor).sum(), sources, **options)
    # Of biases that we have not, the gradient is none.
    names = ["x", *layer.cell.states, *parameters]
    for what, ours, their in zip(
        names, torch.autograd.grad((found * factor).sum(), sources, **options), gradients, strict=True
    ):
        kept = (ours != 0) | (their.abs() < 1e-13) if what.startswith("bias") else slice(None)
        torch.testing.assert_close(ours[kept], their[kept], rtol=1e-9, atol=1e-11, msg=what)
