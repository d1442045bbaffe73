"""Every private interface of torch that cellwise uses, each with what it is used for and what goes without it.

Seen: all of them in torch 2.13 (CPU), where the whole test suite runs, and in 2.14.1 (CUDA, without a GPU). In torch
2.11 (a GPU machine) cellwise was imported and its layers ran, so what is required was there; torch.compile of them
failed, for another reason, which has gone since but was not tried there again.

A release may drop any of them. Those that results depend on are looked up here when torch is loaded, so that a release
without one fails at once and by name, instead of computing something else. The others are optional, and what is lost
without them is said.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch._VF
from torch import Tensor
from torch._C import _functorch
from torch.utils import _python_dispatch

from cellwise._lazy import load_layers

# --- required: without one of these a call could reach a kernel that must not ---------------------------------------

# torch._C._functorch: the transforms of torch.func that are under way, the outermost first, and what kind each is.
# Decides who can run a call: the kernels know no vmap, jvp or grad.
TransformType = _functorch.TransformType
interpreter_stack: Callable[[], Sequence[Any] | None] = _functorch.get_interpreter_stack

# The number of the innermost transform, None without one: the same question, cheap enough for every call.
transform_level: Callable[[], int | None] = _functorch.maybe_current_level

# Whether a tensor stands for many (torch.autograd.grad with is_grads_batched=True), and so has no numbers of its own.
is_legacy_batched: Callable[[Tensor], bool] = _functorch.is_legacy_batchedtensor

# The module is public, its `_current_level` is not: -1 unless forward-mode derivatives are under way. Asked of the
# module at every call, since it is a number that changes.
forward_ad = torch.autograd.forward_ad

# Torch's operators for recurrent layers, called as torch.nn calls them.
operators = torch._VF

# Whether autocast is on for any device; the public torch.is_autocast_enabled asks of one.
is_autocast_enabled: Callable[[], bool] = torch._C._is_any_autocast_enabled

# How many torch_dispatch modes watch the operators that run (FLOP counters, fake tensors, torch.jit's tracer do not
# count). Under one the kernels run as operators that it sees.
num_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack

# What torch.jit.trace and the ONNX exporter on it record into, None outside of them.
tracing_state: Callable[[], Any] = torch._C._get_tracing_state

# The hooks of torch.autograd.graph.saved_tensors_hooks, None without any: what they bring back is checked.
_saved_tensors_hooks: Callable[[bool], Any] = torch._C._autograd._top_saved_tensors_default_hooks

# Whether a tensor is one of functionalization's, which torch.compile traces with.
is_functional: Callable[[Tensor], bool] = torch._is_functional_tensor

# What torch calls the kernels of a type of device by. In 2.13.
dispatch_key_of: Callable[[str], str] = torch._C._dispatch_key_for_device

# Says that memory of these tensors was written to by somebody else than torch. Takes several since 2.6 or so.
increment_version: Callable[[Sequence[Tensor]], None] = torch._C._increment_version


# A tensor of torch.func's that outlived its transform has no memory of its own, but stands for one that has.
is_wrapped: Callable[[Tensor], bool] = _functorch.is_functorch_wrapped_tensor
unwrapped: Callable[[Tensor], Tensor] = _functorch.unwrap_if_dead


def apply_alone(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """`function.apply` without the part for torch.func, which looks at every argument: for calls that no transform
    watches, of tensors that are not `is_wrapped`. What that part calls in the end is a method of C's.
    """
    applied: Callable[..., Any] = super(torch.autograd.Function, function).apply  # type: ignore[misc]
    return applied


def outside_modes() -> AbstractContextManager[Any]:
    """Without the modes in which tensors stand for others, as in torch.export."""
    return _python_dispatch._disable_current_modes()


def below_autograd() -> AbstractContextManager[Any]:
    """Within, operators go past autograd. torch._C._AutoDispatchBelowAutograd."""
    return torch._C._AutoDispatchBelowAutograd()


def has_saved_tensors_hooks() -> bool:
    """Whether hooks take what is now saved for a backward pass, and bring back something in its place."""
    return _saved_tensors_hooks(True) is not None


def current_cuda_device() -> int:
    """The number of the GPU that this thread works on. torch._C._cuda_getDevice, where torch was built with CUDA."""
    number: int = torch._C._cuda_getDevice()
    return number


def current_cuda_stream(device: int) -> int:
    """The driver's own pointer to the stream that torch works on. torch._C._cuda_getCurrentRawStream, which a kernel
    of Triton is launched with too; torch.cuda.current_stream makes an object of it, for five times the time.
    """
    stream: int = torch._C._cuda_getCurrentRawStream(device)
    return stream


def is_zero_without_memory(tensor: Tensor) -> bool:
    """Whether a tensor is one of autograd's zeros, which have no memory. Tensor._is_zerotensor."""
    return tensor._is_zerotensor()


# Streams read Tensor._version, how often a tensor was written to in place, as torch counts: at every step, and so where
# they need it (`runtime.watched.Watched`). Layers read it of outputs that they share with the caller, of a tensor that
# goes on counting when it is given other data (`backends.compiled.handed_out`).


# --- optional: without one of these something goes without --------------------------------------------------------

# The compiler, which is loaded with the first torch.compile.
COMPILER = "torch._dynamo"

# By torch's module, the functions of tools that go by a module's exact class, and take the model first (`nn.tools`).
# Without one its tool passes our layers by; tests of each tool say so. All in 2.13; not tried in 2.11.
MODEL_READERS = {
    "torch.jit._recursive": ("create_script_module",),
    "torch.ao.quantization.quantize": ("propagate_qconfig_", "_add_observer_", "_convert"),
    "torch.ao.quantization.quantize_fx": ("_fuse_fx", "_prepare_fx", "_convert_fx"),
}


def keep_cuda_busy(cycles: int) -> None:
    """Let the GPU wait for so many cycles of its clock, on the stream of now. torch.cuda._sleep, as torch's tests do;
    without it short kernels are measured with the host's time.
    """
    sleep = getattr(torch.cuda, "_sleep", None)
    if sleep is not None:
        sleep(cycles)


# Module._slow_forward, which torch.jit's tracer calls for `forward`: `cellwise.Recurrent` takes from it what ONNX's
# exporter gives by place. Without it, an exporter that is given such a layer and nothing else ends in a TypeError.


def is_compiler_loaded() -> bool:
    return COMPILER in sys.modules


def let_compiler_trace(is_ours: Callable[[Any], bool]) -> None:
    """Let Dynamo trace those modules, though it refuses all instances of torch.nn's recurrent classes.

    torch._dynamo.config.allow_rnn and VariableBuilder.wrap_module, in 2.13. A release that has no such method refuses
    our drop-in layers as it does torch.nn's; `cellwise.Recurrent` is traced in any case.
    """
    from torch._dynamo import config
    from torch._dynamo.variables.builder import VariableBuilder

    refusing = getattr(VariableBuilder, "wrap_module", None)
    if refusing is None or not hasattr(config, "allow_rnn"):
        return

    def wrap_module(self: Any, value: Any) -> Any:
        if not is_ours(value):
            return refusing(self, value)
        with config.patch(allow_rnn=True):
            return refusing(self, value)

    VariableBuilder.wrap_module = wrap_module  # type: ignore[method-assign]


def as_constant(number: Any) -> Any:
    """A number as a constant that a traced program is good for: with dynamic=True Dynamo has symbols in its place.

    torch.fx.experimental.symbolic_shapes.guard_scalar, 2.13; only while a program is traced.
    """
    from torch.fx.experimental.symbolic_shapes import guard_scalar

    return guard_scalar(number)


load_layers()
