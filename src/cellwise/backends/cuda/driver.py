"""Kernels on a device, by the driver, which torch has loaded already."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import torch
from torch import Tensor

from cellwise.backends.cuda.frame import KERNEL
from cellwise.backends.cuda.layout import Device
from cellwise.backends.cuda.machine import Launcher, Machine
from cellwise.backends.cuda.nvrtc import machine_code
from cellwise.errors import CellwiseError

# Of CUfunction_attribute and CUdevice_attribute.
_REGISTERS, _LOCAL, _MOST_SHARED = 4, 3, 8
_SHARED_OF_BLOCK = 97
_NON_BLOCKING = 1  # of CUstream_flags: it does not wait for the default stream


class DriverError(CellwiseError):
    """The driver refuses."""


@cache
def library() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def check(code: int) -> None:
    if code:
        text = ctypes.c_char_p()
        library().cuGetErrorString(code, ctypes.byref(text))
        raise DriverError(f"The CUDA driver fails: {(text.value or b'an unknown error').decode()} ({code}).")


class CudaLauncher(Launcher):
    """One kernel, loaded on one device."""

    def __init__(self, source: str, device: torch.device, capability: int, shared: int) -> None:
        code = machine_code(source, capability)
        self.shared, self._device = shared, device
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        with torch.cuda.device(device):
            torch.empty(1, device=device)  # torch's context becomes the thread's own
            check(library().cuModuleLoadData(ctypes.byref(module), code))
            check(library().cuModuleGetFunction(ctypes.byref(function), module, KERNEL.encode()))
            if shared > 48 * 1024:
                check(library().cuFuncSetAttribute(function, _MOST_SHARED, shared))
        self._function = function
        self.registers, self.spilled = self._attribute(_REGISTERS), self._attribute(_LOCAL)

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        check(library().cuFuncGetAttribute(ctypes.byref(value), number, self._function))
        return value.value

    def launch(
        self, grid: tuple[int, int], threads: int, values: Sequence[Tensor | int], together: bool
    ) -> None:
        # Each in eight bytes, of which an int takes the first four.
        held = (ctypes.c_int64 * len(values))(
            *[each if isinstance(each, int) else each.data_ptr() for each in values]
        )
        first = ctypes.addressof(held)
        pointers = (ctypes.c_void_p * len(values))(*range(first, first + 8 * len(values), 8))
        stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
        where = (self._function, *grid, 1, threads, 1, 1, self.shared, stream, pointers)
        with torch.cuda.device(self._device):  # whose context is to be the thread's own
            if together:
                check(library().cuLaunchCooperativeKernel(*where))
            else:
                check(library().cuLaunchKernel(*where, None))


class CudaMachine(Machine):
    """A device of this process."""

    def __init__(self, device: torch.device) -> None:
        self._torch_device = device
        properties = torch.cuda.get_device_properties(device)
        self._capability = properties.major * 10 + properties.minor
        shared = ctypes.c_int()
        check(library().cuDeviceGetAttribute(ctypes.byref(shared), _SHARED_OF_BLOCK, device.index))
        self.device = Device(f"sm_{self._capability}", properties.multi_processor_count, shared.value)
        # In memory of the host that the device writes to: it is looked at without waiting for the device.
        self.late = torch.zeros(1, dtype=torch.int32, pin_memory=True)

    def stream(self) -> int | None:
        with torch.cuda.device(self._torch_device):
            if torch.cuda.is_current_stream_capturing():
                return None
        return torch.cuda.current_stream(self._torch_device).cuda_stream

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        now = torch.cuda.current_stream(self._torch_device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(_recording_stream(self._torch_device, now.cuda_stream)):
            small = torch.zeros(16, 16, device=self._torch_device)
            torch.mm(small, small)  # cuBLAS takes its memory for this stream, which is to be no graph's own
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        return graph.replay

    @lru_cache(maxsize=512)  # noqa: B019  machines live as long as the process
    def build(self, source: str, shared: int, arguments: tuple[str, ...]) -> CudaLauncher:
        return CudaLauncher(source, self._torch_device, self._capability, shared)


@cache
def _recording_stream(device: torch.device, stream: int) -> torch.cuda.Stream:
    """Where graphs are recorded that run on a stream, and on no other.

    cuBLAS has memory of its own for each stream, which a graph goes on using: graphs of two streams must not share it,
    so this is none of the streams that torch lends out in turns.
    """
    with torch.cuda.device(device):
        made = ctypes.c_void_p()
        check(library().cuStreamCreate(ctypes.byref(made), _NON_BLOCKING))
    return torch.cuda.ExternalStream(made.value, device=device)


@cache
def machine_of(device: torch.device) -> CudaMachine:
    return CudaMachine(device)
