"""How far a gradient reaches: the derivative of the last states with respect to every earlier one.

With s_t all the states of a cell at time t side by side (h and c of an LSTM), the chain rule makes the derivative of
s_T by s_t a product of one Jacobian per step. Both are computed here exactly, in float64, by reverse-mode
differentiation through the interpreter of the cell's equations; nothing is estimated.

The size of a Jacobian is its spectral norm: the largest factor by which a small change of s_t can come out at s_T
(Pascanu, Mikolov and Bengio 2013). The Frobenius norm is divided by the square root of the number of states, which
makes it the factor for a change in a random direction, root mean square; both are 1 for no steps at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cellwise.errors import CellwiseError, did_you_mean
from cellwise.nn import Recurrent
from cellwise.nn.recurrent import RecurrentLayer
from cellwise.plan import state_sizes

__all__ = ["NORMS", "Flow", "GradientError", "gradient_flow", "rate_per_step", "step_jacobians"]


class GradientError(CellwiseError, ValueError):
    """Gradients through time that cannot be measured as asked."""


def _spectral(jacobians: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(jacobians, ord=2)


def _frobenius(jacobians: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(jacobians) / jacobians.shape[-1] ** 0.5


NORMS: dict[str, Callable[[Tensor], Tensor]] = {"spectral": _spectral, "frobenius": _frobenius}
# Below this a product of Jacobians is about to leave the range of float64, and its logarithm means nothing.
SMALLEST = 1e-290
# Numbers of the Jacobians that are held at a time: 64 MiB.
_HELD = 2**23


@dataclass(frozen=True, eq=False)
class Flow:
    """Norms of the derivative of the last states by the states `lag` steps earlier; lag 0 comes first.

    whole: (T + 1, B), all states together.
    blocks: (T + 1, B) for each pair (later, earlier) of states: ("c", "c") is c_T by c_t.
    """

    states: tuple[str, ...]
    norm: str
    whole: Tensor
    blocks: dict[tuple[str, str], Tensor]


def gradient_flow(
    layer: RecurrentLayer, x: Tensor, state: tuple[Tensor, ...] | Tensor | None = None, norm: str = "spectral"
) -> Flow:
    """Measure how the derivative of the last states falls or grows with the distance in time.

    Args:
        layer: one layer in one direction of any cell; its weights are read, in float64.
        x: (T, B, D) inputs.
        state: (1, B, H) for each state of the cell, where the sequences begin; where the layer begins if None.
        norm: "spectral" or "frobenius", see above.

    Raises:
        GradientError: several layers or directions, an unknown norm, no steps, states or derivatives
            that are not finite.

    >>> torch.manual_seed(0) and None
    >>> flow = gradient_flow(Recurrent("lstm", 2, 8), torch.randn(30, 4, 2))
    >>> flow.whole.shape, sorted(flow.blocks)
    (torch.Size([31, 4]), [('c', 'c'), ('c', 'h'), ('h', 'c'), ('h', 'h')])
    >>> bool((flow.whole[0] == 1).all() and (flow.whole[30] < 1e-3).all())
    True
    """
    if norm not in NORMS:
        hint = did_you_mean(norm, NORMS)
        raise GradientError(f"There is no norm called '{norm}'; {hint}there are: {', '.join(NORMS)}.")
    measure = NORMS[norm]
    twin = _twin(layer)
    names, sizes = twin.cell.graph.states, state_sizes(twin.cell.graph, twin.hidden_size)
    size = sum(sizes)
    product = torch.eye(size, dtype=torch.float64).expand(x.shape[1], size, size)
    products: list[dict[tuple[str, str], Tensor]] = []
    whole: list[Tensor] = []

    def keep(product: Tensor) -> None:
        whole.append(measure(product))
        products.append(
            {
                (later, earlier): measure(block)
                for later, rows in zip(names, product.split(sizes, -2), strict=True)
                for earlier, block in zip(names, rows.split(sizes, -1), strict=True)
            }
        )

    keep(product)
    for jacobian in _backwards(twin, x, state):
        product = product @ jacobian
        if not bool(torch.isfinite(product).all()):
            raise GradientError(
                f"The derivative of {twin.cell.name} is beyond the range of float64 at a lag of {len(whole)} steps; "
                "take a shorter length or smaller weights."
            )
        keep(product)
    blocks = {pair: torch.stack([each[pair] for each in products]) for pair in products[0]}
    return Flow(names, norm, torch.stack(whole), blocks)


def step_jacobians(
    layer: RecurrentLayer, x: Tensor, state: tuple[Tensor, ...] | Tensor | None = None
) -> Tensor:
    """The derivative of the states after each step by those before it: (T, B, S*H, S*H) for S states of H units,
    float64.

    Rows and columns are ordered by state, in the order of the cell's `states`. Arguments and errors as for
    `gradient_flow`.
    """
    return torch.stack(list(_backwards(_twin(layer), x, state))[::-1])


def rate_per_step(norms: Tensor) -> float:
    """The factor per step: a straight line through the logarithms of `norms` (T + 1,) from lag 1 on, least squares.

    Norms too small for float64 are left out; NaN if fewer than two are left.

    >>> round(rate_per_step(0.9 ** torch.arange(50.0)), 6)
    0.9
    """
    kept = torch.isfinite(norms) & (norms > SMALLEST)
    kept[0] = False
    if int(kept.sum()) < 2:
        return float("nan")
    lag = torch.arange(len(norms), dtype=torch.float64)[kept]
    logs = norms.double()[kept].log()
    lag = lag - lag.mean()
    return float(((lag * logs).sum() / (lag * lag).sum()).exp())


def _twin(layer: RecurrentLayer) -> Recurrent:
    """The same layer in evaluation, on the interpreter of the equations, in float64."""
    if layer.num_layers != 1 or layer.bidirectional or layer.proj_size:
        raise GradientError(
            f"The derivative through time is measured for one layer in one direction without projection; got {layer}."
        )
    # Its first weights are drawn and thrown away, and nobody's luck shall depend on that.
    with torch.random.fork_rng(devices=()):
        twin = Recurrent(
            layer.cell,
            layer.input_size,
            layer.hidden_size,
            bias=layer.bias,
            backend="reference",
            dtype=torch.float64,
            learned_initial=layer.learned_initial,
        )
    twin.load_state_dict({name: value.detach().double().cpu() for name, value in layer.state_dict().items()})
    return twin.requires_grad_(False).eval()


def _backwards(layer: Recurrent, x: Tensor, state: tuple[Tensor, ...] | Tensor | None) -> Iterator[Tensor]:
    """The Jacobian (B, S*H, S*H) of each step, the last step first."""
    if x.dim() != 3 or x.shape[0] == 0:
        raise GradientError(
            f"Gradients through time need inputs of shape (T, B, D) with T at least 1; got {tuple(x.shape)}."
        )
    x = x.detach().double().cpu()
    before = _states_before(layer, x, state)
    T, B, size = before.shape
    chunk = max(1, _HELD // (B * size**2))
    for end in range(T, 0, -chunk):
        begin = max(0, end - chunk)
        jacobians = _jacobians(layer, x[begin:end].flatten(0, 1), before[begin:end].flatten(0, 1))
        yield from jacobians.unflatten(0, (end - begin, B)).flip(0)


def _states_before(layer: Recurrent, x: Tensor, state: tuple[Tensor, ...] | Tensor | None) -> Tensor:
    """The states that each step starts from, side by side: (T, B, S*H)."""
    if state is None:
        state = layer._first_states(x.shape[1], x)
    given = state if isinstance(state, tuple) else (state,)
    states = torch.cat([each.detach().double().cpu()[0] for each in given], dim=-1)
    found = []
    for t, x_t in enumerate(x):
        if not bool(torch.isfinite(states).all()):
            raise GradientError(
                f"The states of {layer.cell.name} are not finite before step {t + 1} of {len(x)}, so nothing can be "
                "measured; take a shorter length or smaller weights."
            )
        found.append(states)
        states = _step(layer, x_t, states)
    return torch.stack(found)


def _step(layer: Recurrent, x: Tensor, states: Tensor) -> Tensor:
    """One step for N rows: x (N, D), states (N, S*H), the new states (N, S*H)."""
    sizes = state_sizes(layer.cell.graph, layer.hidden_size)
    given = tuple(each.contiguous().unsqueeze(0) for each in states.split(sizes, -1))
    _, new = layer(x.unsqueeze(0), given if len(sizes) > 1 else given[0])
    return torch.cat(new if len(sizes) > 1 else (new,), -1)[0]


def _jacobians(layer: Recurrent, x: Tensor, states: Tensor) -> Tensor:
    """The Jacobian of one step for each of N rows: x (N, D), states (N, S*H), result (N, S*H, S*H)."""
    # All steps of all sequences are rows of one batch: once their states are known, no step waits for another.
    states = states.detach().requires_grad_()
    with torch.enable_grad():
        new = _step(layer, x, states)
    if not new.requires_grad:  # a cell may ignore its past
        return x.new_zeros(x.shape[0], new.shape[1], new.shape[1])
    rows = []
    for place in range(new.shape[1]):
        (row,) = torch.autograd.grad(
            new[:, place].sum(), states, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(row)
    return torch.stack(rows, dim=1)
