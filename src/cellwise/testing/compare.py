"""What a layer computes, by name, and what counts as equal.

>>> from cellwise.testing.cases import CASES
>>> case = CASES[0]
>>> found = results(case.layer("reference"), case.arguments())
>>> sorted(found)[:3]
['final h', 'gradient of bias_hh_l0', 'gradient of bias_ih_l0']
>>> assert_close(found, results(case.layer("auto"), case.arguments()))

Two rules. In float64 two ways to compute must agree to 1e-10 of the largest number of a result. In float32 a way
must be at most twice as far from the float64 truth as torch itself is, on the same input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from cellwise.testing.cases import Arguments

# A result by name: "output", "final h", "gradient of x", "gradient of initial h", "gradient of weight_ih_l0", ...
Results = dict[str, Tensor]

# Room for the rounding of a truth that is zero, in units of the dtype's epsilon: sums of a few dozen numbers of order
# one that cancel, as in the gradient of a bias, leave a few units behind.
_CANCELLED = 32
# Where few numbers are compared, torch's own error may be small by luck, and twice that is no measure: of n numbers it
# is known to a part in the square root of n. So each result has this room, in units of its epsilon and its root
# mean square: enough for a single number whose steps all round the same way, and nothing where many are compared.
_LUCK = 16


def results(
    layer: nn.Module,
    arguments: Arguments,
    call: Callable[[nn.Module, Arguments, Tensor, tuple[Tensor, ...]], tuple[Any, tuple[Tensor, ...]]]
    | None = None,
) -> Results:
    """Run a layer forward and backward: its output, its final states and the gradient of all that it was given.

    The gradients are those of a weighted sum of all outputs and final states; the weights are random and the same for
    the same shapes. Works for torch.nn's layers too, but those know neither `lengths` nor `resets`.

    Args:
        layer: any recurrent layer.
        arguments: what it is called with; a packed call is packed here, and its output padded again.
        call: another way to run it, given (layer, arguments, x, states) and returning (output, final states).
    """
    x = arguments.x.detach().clone().requires_grad_()
    states = tuple(state.detach().clone().requires_grad_() for state in arguments.states)
    beside = {name: each.detach().clone().requires_grad_() for name, each in arguments.beside.items()}
    arguments = replace(arguments, beside=beside)
    output, finals = (call or call_layer)(layer, arguments, x, states)
    names = _state_names(layer, len(finals))
    outputs = {"output": output}
    if isinstance(output, tuple):
        fields: tuple[str, ...] = getattr(output, "_fields")  # noqa: B009, which no type of a tuple has
        outputs = {f"output {name}": each for name, each in zip(fields, output, strict=True)}
    found = {**outputs, **{f"final {name}": each for name, each in zip(names, finals, strict=True)}}
    sources = {"x": x}
    sources |= {f"initial {name}": state for name, state in zip(names, states, strict=False)}
    sources |= beside
    sources |= dict(layer.named_parameters())
    gradients = _gradients(_weighted_sum(list(found.values())), list(sources.values()))
    found |= {f"gradient of {name}": each for name, each in zip(sources, gradients, strict=True)}
    return {name: each.detach() for name, each in found.items()}


def call_layer(
    layer: nn.Module, arguments: Arguments, x: Tensor, states: tuple[Tensor, ...]
) -> tuple[Any, tuple[Tensor, ...]]:
    """Call a layer as `arguments` say, with x and states in place of those it holds; a packed output comes padded."""
    state: Any = None if not states else states[0] if len(states) == 1 else states
    own = {"lengths": arguments.lengths, "resets": arguments.resets}
    options: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    options |= arguments.beside
    batch_first = bool(layer.batch_first)
    given: Tensor | PackedSequence = x
    if arguments.packed:
        assert arguments.lengths is not None
        given = pack_padded_sequence(x, options.pop("lengths"), batch_first, enforce_sorted=False)
    output, final = layer(given, state, **options)
    if arguments.packed:
        steps = x.shape[1 if batch_first else 0]
        several = isinstance(output, tuple) and not isinstance(output, PackedSequence)
        padded = [
            pad_packed_sequence(each, batch_first, total_length=steps)[0]
            for each in (output if several else (output,))
        ]
        output = type(output)(*padded) if several else padded[0]
    return output, final if isinstance(final, tuple) else (final,)


def _gradients(total: Tensor, sources: list[Tensor]) -> Sequence[Tensor]:
    if not total.requires_grad:  # no row or no step: nothing was computed
        return [torch.zeros_like(source) for source in sources]
    return torch.autograd.grad(total, sources, allow_unused=True, materialize_grads=True)


def _state_names(layer: nn.Module, count: int) -> tuple[str, ...]:
    cell: Any = getattr(layer, "cell", None)
    return cell.states if cell is not None else ("h", "c")[:count]


def _weighted_sum(values: Sequence[Tensor]) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    total = values[0].new_zeros(())
    for value in values:
        weight = torch.randn(value.shape, generator=generator, dtype=torch.float32)
        total = total + (value * weight.to(value)).sum()
    return total


def assert_close(found: Results, truth: Results, tolerance: float = 1e-10) -> None:
    """Fail unless every result agrees with the truth, to `tolerance` of the largest number of that result.

    NaN must stand where the truth has NaN, and infinity where it has the same infinity.
    """
    _assert_same_names(found, truth)
    problems = []
    for name, wanted in truth.items():
        room = tolerance * _largest(wanted) + _CANCELLED * torch.finfo(wanted.dtype).eps
        error = difference(found[name], wanted)
        if not error <= room:
            problems.append(f"{name} {tuple(wanted.shape)}: off by {error:.3g}, allowed {room:.3g}")
    _fail(problems)


def assert_as_good(found: Results, torchs: Results, truth: Results, factor: float = 2.0) -> None:
    """Fail unless every result is at most `factor` times as far from the truth as torch's own; errors are Euclidean.

    Args:
        found: results in float32 (or another short dtype).
        torchs: torch's own, in the same dtype on the same input.
        truth: those in float64 on the same input.
    """
    _assert_same_names(found, truth)
    _assert_same_names(torchs, truth)
    problems = []
    for name, wanted in truth.items():
        eps = torch.finfo(found[name].dtype).eps
        own = float((torchs[name].to(wanted) - wanted).norm())
        error = float((found[name].to(wanted) - wanted).norm())
        luck = _LUCK * eps * float(wanted.norm()) / max(wanted.numel(), 1) ** 0.5
        room = factor * own + luck + _CANCELLED * torch.finfo(wanted.dtype).eps
        if not error <= room:
            problems.append(
                f"{name} {tuple(wanted.shape)}: error {error:.3g}, torch's {own:.3g}, allowed {room:.3g}"
            )
    _fail(problems)


def pooled(draws: Sequence[Results]) -> Results:
    """The results of several draws of one case as if they were one: by name, all numbers in a row.

    Where a result holds a handful of numbers, torch's own error on one input says little; on a dozen inputs it does.
    """
    return {name: torch.cat([draw[name].reshape(-1) for draw in draws]) for name in draws[0]}


def difference(found: Tensor, truth: Tensor) -> float:
    """The largest distance between two tensors; infinite where shape, dtype or any NaN or infinity differs.

    >>> difference(torch.tensor([1.0, float("nan")]), torch.tensor([1.5, float("nan")]))
    0.5
    >>> difference(torch.tensor([float("nan")]), torch.tensor([1.0]))
    inf
    """
    if found.shape != truth.shape or found.dtype != truth.dtype:
        return float("inf")
    same = (found == truth) | (found.isnan() & truth.isnan())
    if not found.numel() or bool(same.all()):
        return 0.0
    distance = (found - truth)[~same].abs()
    return float(distance.max()) if bool(distance.isfinite().all()) else float("inf")


def _largest(value: Tensor) -> float:
    finite = value[value.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _assert_same_names(found: Results, truth: Results) -> None:
    if found.keys() != truth.keys():
        raise AssertionError(f"results {sorted(found)} are compared with {sorted(truth)}")


def _fail(problems: Sequence[str]) -> None:
    if problems:
        raise AssertionError("\n".join(problems))
