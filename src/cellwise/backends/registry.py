"""The backends in order of preference, and the choice among them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cellwise.backends.base import Backend, CallContext, LayerSpec, Workload
from cellwise.backends.cpu import Cpu
from cellwise.backends.cuda import Cuda
from cellwise.backends.cuda_preference import preferred_on_cuda, untried_on_cuda
from cellwise.backends.native import Native
from cellwise.backends.preference import preferred
from cellwise.backends.reference import Reference
from cellwise.backends.reference.loop import run_direction
from cellwise.errors import BackendError, UnknownBackendError

# Second derivatives of the kernels are those of the reference.
BACKENDS: tuple[Backend, ...] = (
    Native(),
    Cpu(run_direction),
    Cuda(run_direction),
    Reference(),
)
AUTO = "auto"


@dataclass(frozen=True)
class Explanation:
    """Which backend runs a call, and what each has to say. Printed, it is a sentence a line."""

    asked: str
    chosen: str | None
    reasons: tuple[tuple[str, str | None], ...]  # backend, reason against it
    because: str | None = None  # why this one, where several could
    detail: str | None = None  # how it would run the call

    def __str__(self) -> str:
        lines = [f"backend={self.asked!r} runs on: {self.chosen or 'nothing, it raises BackendError'}"]
        for backend in BACKENDS:
            reason = dict(self.reasons)[backend.name]
            if reason is not None:
                verdict = f"cannot: {reason}"
            elif backend.name == self.chosen:
                verdict = "; ".join(filter(None, (f"chosen: {backend.summary}", self.detail, self.because)))
            else:
                verdict = f"could: {backend.summary}"
            lines.append(f"  {backend.name:<10} {verdict}")
        return "\n".join(lines)


def check_name(name: str) -> str:
    """Return `name`, or raise UnknownBackendError if no backend is called so."""
    known = [backend.name for backend in BACKENDS]
    if name != AUTO and name not in known:
        raise UnknownBackendError(backend=name, known=", ".join(known))
    return name


def willing(name: str, stack: LayerSpec, context: CallContext) -> tuple[str, ...]:
    """The backends that can run such calls: all of them for "auto", else at most the one of this name."""
    return tuple(
        backend.name
        for backend in BACKENDS
        if name in (AUTO, backend.name) and backend.supports(stack, context) is None
    )


def for_steps(name: str, stack: LayerSpec, context: CallContext) -> tuple[str, ...]:
    """Those of `willing` that a stream asks for single steps, in this order. "auto" leaves out what it leaves out for
    whole calls, too: kernels that such a cell has not been run by.
    """
    untried = {"cuda"} if name == AUTO and untried_on_cuda(stack) is not None else set()
    return tuple(each for each in willing(name, stack, context) if each not in untried)


def choose(name: str, stack: LayerSpec, context: CallContext) -> Backend:
    """The backend of this name if it can run such calls; for "auto" the preferred or else the first that can.

    Raises:
        BackendError: the backend asked for by name cannot; the text has its reason.
    """
    explanation = explain(name, stack, context)
    if explanation.chosen is None:
        reasons = dict(explanation.reasons)
        willing = [known for known, reason in reasons.items() if reason is None]
        willing = [AUTO, *willing] if willing else []
        what = f"this {stack.graph.name} layer"
        reason = reasons.get(name) or "; ".join(f"{known}: {why}" for known, why in reasons.items())
        raise BackendError(
            backend=name, what=what, reason=reason, willing=", ".join(map(repr, willing)) or "none"
        )
    return next(backend for backend in BACKENDS if backend.name == explanation.chosen)


def explain(
    name: str, stack: LayerSpec, context: CallContext, workload: Workload | None = None
) -> Explanation:
    """What each backend says to such calls, and which would run them; of this workload, if it is known."""
    check_name(name)
    reasons = tuple((backend.name, backend.supports(stack, context)) for backend in BACKENDS)
    willing = [known for known, reason in reasons if reason is None]
    if name != AUTO:
        return Explanation(name, name if name in willing else None, reasons)
    # Among willing backends of which only one is compiled there was nothing to measure.
    if {"native", "cpu"} <= set(willing):
        preference = preferred(stack, context, workload)
        if preference is not None:
            return Explanation(name, preference.backend, reasons, preference.reason)
    if {"native", "cuda"} <= set(willing):
        capability = torch.cuda.get_device_capability(context.device)
        preference = preferred_on_cuda(stack, context, workload, capability)
        if preference is not None:
            return Explanation(name, preference.backend, reasons, preference.reason)
    if willing and willing[0] == "cuda":
        preference = untried_on_cuda(stack)
        if preference is not None:
            return Explanation(name, preference.backend, reasons, preference.reason)
    return Explanation(name, willing[0] if willing else None, reasons)
