"""Kernels on a device, by the driver, which torch has loaded already."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, cached_property, lru_cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from cellwise import torch_internals
from cellwise.backends.cuda import libcuda
from cellwise.backends.cuda.frame import KERNEL
from cellwise.backends.cuda.layout import Device
from cellwise.backends.cuda.machine import Launcher, Machine, Order, RefusedError
from cellwise.backends.cuda.nvrtc import machine_code

# Of CUfunction_attribute and CUdevice_attribute.
_REGISTERS, _LOCAL, _MOST_SHARED = 4, 3, 8
_SHARED_OF_BLOCK, _TOGETHER = 97, 95
# Of CUresult: of a cooperative launch that it has more blocks than run at once, or that the device has none such.
_NO_CONTEXT, _REFUSED = 201, (720, 801)
_NON_BLOCKING = 1  # of CUstream_flags: it does not wait for the default stream
# Threads that record at once may do so on the same stream, and share Python's collector of garbage.
_RECORDING = threading.Lock()

T = TypeVar("T")


class Context:
    """A device's context, in which torch works too, and calls of the driver in it."""

    def __init__(self, device: torch.device) -> None:
        self.index = device.index
        self._held = ctypes.c_void_p()
        libcuda.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._held), device.index)

    def enter(self) -> None:
        """Make it this thread's own, which torch leaves until it asks the device for something."""
        libcuda.call("cuCtxSetCurrent", self._held)

    @contextmanager
    def relaxed(self) -> Iterator[None]:
        """`libcuda.relaxed` on this device."""
        with torch.cuda.device(self.index):
            self.enter()
            with libcuda.relaxed():
                yield

    def call(self, function: Callable[..., int], *arguments: Any) -> None:
        """Call the driver with these arguments and the stream that torch works on now."""
        if torch_internals.current_cuda_device() != self.index:
            with torch.cuda.device(self.index):
                return self._call(function, arguments)
        return self._call(function, arguments)

    def _call(self, function: Callable[..., int], arguments: tuple[Any, ...]) -> None:
        stream = torch_internals.current_cuda_stream(self.index)
        code = function(*arguments, stream)
        if code == _NO_CONTEXT:  # a thread that has asked nothing of the device yet
            self.enter()
            code = function(*arguments, stream)
        libcuda.check(code)


class CudaLauncher(Launcher):
    """One kernel, loaded on one device."""

    def __init__(self, source: str, device: torch.device, capability: int, shared: int) -> None:
        code = machine_code(source, capability)
        self.shared, self._context = shared, context_of(device)
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        with self._context.relaxed():
            libcuda.call("cuModuleLoadData", ctypes.byref(module), code)
            libcuda.call("cuModuleGetFunction", ctypes.byref(function), module, KERNEL.encode())
            if shared > 48 * 1024:
                libcuda.call("cuFuncSetAttribute", function, _MOST_SHARED, shared)
            self._function = function
            self.registers, self.spilled = self._attribute(_REGISTERS), self._attribute(_LOCAL)
        # Room for the arguments of a launch. Threads that launch at once take one each.
        self._idle: deque[_Block] = deque()

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        libcuda.call("cuFuncGetAttribute", ctypes.byref(value), number, self._function)
        return value.value

    def launch(
        self, grid: tuple[int, int], threads: int, values: Sequence[Tensor | int], together: bool
    ) -> None:
        try:
            block = self._idle.pop()
        except IndexError:
            block = _Block(len(values))
        block.held[:] = [each if type(each) is int else each.data_ptr() for each in values]  # type: ignore[union-attr]
        where = (self._function, *grid, 1, threads, 1, 1, self.shared)
        self._context.call(_launch_together if together else _launch, where, block.pointers)
        self._idle.append(block)  # the driver has copied them


class _Block:
    """The arguments of a launch, each in eight bytes, of which an int takes the first four; and where each is."""

    def __init__(self, count: int) -> None:
        self.held = (ctypes.c_int64 * count)()
        first = ctypes.addressof(self.held)
        self.pointers = (ctypes.c_void_p * count)(*range(first, first + 8 * count, 8))


def _launch(where: Sequence[Any], pointers: Any, stream: int) -> int:
    code: int = libcuda.library().cuLaunchKernel(*where, stream, pointers, None)
    return code


def _launch_together(where: Sequence[Any], pointers: Any, stream: int) -> int:
    code: int = libcuda.library().cuLaunchCooperativeKernel(*where, stream, pointers)
    if code in _REFUSED:
        raise RefusedError(f"the driver did not start its blocks together: {libcuda.text_of(code)}")
    return code


class CudaMachine(Machine):
    """A device of this process."""

    def __init__(self, device: torch.device) -> None:
        self._torch_device = device
        properties = torch.cuda.get_device_properties(device)
        self.name = properties.name
        self._capability = properties.major * 10 + properties.minor
        shared = ctypes.c_int()
        libcuda.call("cuDeviceGetAttribute", ctypes.byref(shared), _SHARED_OF_BLOCK, device.index)
        together = ctypes.c_int()
        libcuda.call("cuDeviceGetAttribute", ctypes.byref(together), _TOGETHER, device.index)
        self.device = Device(
            f"sm_{self._capability}", properties.multi_processor_count, shared.value, bool(together.value)
        )
        # In memory of the host that the device writes to: it is looked at without waiting for the device.
        self.late = self.lasting(partial(torch.zeros, 1, dtype=torch.int32, pin_memory=True))
        self._beside: dict[int, Beside] = {}  # by the number of the stream beside which it is

    @cached_property
    def _context(self) -> Context:
        return context_of(self._torch_device)

    def stream(self) -> int | None:
        index = self._torch_device.index
        if torch_internals.current_cuda_device() != index:
            with torch.cuda.device(index):
                return self.stream()
        if torch.cuda.is_current_stream_capturing():
            return None
        return torch_internals.current_cuda_stream(index)

    def lasting(self, make: Callable[[], T]) -> T:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._made_outside, make).result()

    def _made_outside(self, make: Callable[[], T]) -> T:
        """The same in a thread for this alone: modes, pools of memory and recordings are those of other threads."""
        stream = _outside_of_graphs(self._torch_device)
        with self._context.relaxed(), torch.cuda.stream(stream):
            made = make()
            stream.synchronize()
        return made

    def lend(self, tensors: Iterable[Tensor]) -> None:
        if self.stream() is not None:
            stream = torch.cuda.current_stream(self._torch_device)
            for each in tensors:
                each.record_stream(stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        now, device = torch.cuda.current_stream(self._torch_device), self._torch_device
        # Relaxed: a caller may be recording in another thread.
        with _RECORDING, _without_collector(), self._context.relaxed():
            stream, first = _recording(device, now.cuda_stream)
            stream.wait_stream(now)  # where graphs may be at work in the memory that cuBLAS has for this one
            with torch.cuda.stream(stream):
                small = torch.zeros(16, 16, device=device)
                torch.mm(
                    small, small
                )  # cuBLAS takes its memory for this stream, which is to be no graph's own
                torch.nn.functional.linear(small, small, small[0])
                graph = _captured(work, first.pool())
            now.wait_stream(stream)
        return Replay(graph, self._context)

    def copy(self, to: Tensor, given: Tensor) -> None:
        where = to.data_ptr(), given.data_ptr(), to.nbytes
        self._context.call(libcuda.library().cuMemcpyAsync, *where)

    def order(self) -> StreamOrder:
        return StreamOrder(self, self._torch_device)

    @lru_cache(maxsize=512)  # noqa: B019  machines live as long as the process
    def build(self, source: str, shared: int, arguments: tuple[str, ...]) -> CudaLauncher:
        return CudaLauncher(source, self._torch_device, self._capability, shared)

    def mark(self, rows: Tensor) -> None:
        words = rows.numel() * rows.element_size() // 4
        self._context.call(libcuda.library().cuMemsetD32Async, rows.data_ptr(), 0xFFFFFFFF, words)

    def fork(self, tensors: Sequence[Tensor]) -> Beside:
        number = torch_internals.current_cuda_stream(self._torch_device.index)
        beside = self._beside.get(number)
        if beside is None:
            beside = self._beside[number] = Beside(self._torch_device)
        beside.begin(tensors)
        return beside


class Replay:
    """A recorded graph, run on the stream of now.

    Torch's own `replay` looks after random numbers first, which none of these graphs has.
    """

    def __init__(self, graph: torch.cuda.CUDAGraph, context: Context) -> None:
        self._graph, self._context = graph, context
        found = getattr(graph, "raw_cuda_graph_exec", lambda: None)()  # not in all releases
        self._held = ctypes.c_void_p(found) if isinstance(found, int) and found else None

    def __call__(self) -> None:
        if self._held is None:
            self._graph.replay()
        else:
            self._context.call(libcuda.library().cuGraphLaunch, self._held)


class StreamOrder(Order):
    """On streams of torch's: one that follows another waits for an event that was recorded there after the work."""

    def __init__(self, machine: CudaMachine, device: torch.device) -> None:
        super().__init__(machine)
        self._device, self._event = device, torch.cuda.Event()
        self._stream: torch.cuda.Stream | None = None
        self._number: int | None = None
        self._is_begun = False

    def begin(self, tensors: Callable[[], Iterable[Tensor]]) -> int | None:
        number = self._machine.stream()
        self._is_begun = number is not None
        if number is not None and number != self._number:
            stream = torch.cuda.current_stream(self._device)
            if self._stream is not None:
                stream.wait_event(self._event)
            for each in tensors():
                each.record_stream(stream)  # whoever lets go of it, this stream may still be at work with it
            self._stream, self._number = stream, number
        return number

    def end(self) -> None:
        if self._is_begun:
            self._event.record(self._stream)
            self._is_begun = False


@contextmanager
def _without_collector() -> Iterator[None]:
    """Python's collector of garbage might meanwhile end what a stream that is being recorded must not see ended."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Beside:
    """A second stream beside one of torch's: each has its own, so that memory which is given back on the second one is
    only used again by work that waits for the first (page 0053).
    """

    def __init__(self, device: torch.device) -> None:
        self._main, self._stream = torch.cuda.current_stream(device), _own_stream(device)
        self._begun, self._done = torch.cuda.Event(), torch.cuda.Event()
        # Entered by threads that share a stream, one inside another's time.
        self._entered = threading.local()

    def begin(self, tensors: Sequence[Tensor]) -> None:
        """What comes here waits for all that the first stream was given so far, and may read these tensors of its."""
        self._begun.record(self._main)
        self._stream.wait_event(self._begun)
        for each in tensors:
            each.record_stream(self._stream)

    def __enter__(self) -> None:
        self._entered.context = torch.cuda.stream(self._stream)
        self._entered.context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._entered.context.__exit__(*error)
        self._done.record(self._stream)
        self._main.wait_event(self._done)


def _own_stream(device: torch.device) -> torch.cuda.Stream:
    """A new one of the driver's, which does not wait for the default stream, and which nobody else has: torch lends its
    own out in turns.
    """
    with context_of(device).relaxed():
        made = ctypes.c_void_p()
        libcuda.call("cuStreamCreate", ctypes.byref(made), _NON_BLOCKING)
    return torch.cuda.ExternalStream(made.value or 0, device=device)


@cache
def context_of(device: torch.device) -> Context:
    return Context(device)


@cache
def _outside_of_graphs(device: torch.device) -> torch.cuda.Stream:
    """Where memory is made that is no graph's own."""
    return _own_stream(device)


@cache
def _recording(device: torch.device, stream: int) -> tuple[torch.cuda.Stream, torch.cuda.CUDAGraph]:
    """Where graphs are recorded that run on a stream, and on no other; and the first of them, with what they share.

    cuBLAS has memory of its own for each stream, which a graph goes on using: graphs of two streams must not share it,
    so this is none of the streams that torch lends out in turns. Those of one stream run one after the other, and share
    the memory of what they make meanwhile, which is theirs as long as the first one lives: torch has 2 MiB at least for
    graphs that share none.
    """
    own = _own_stream(device)
    with torch.cuda.stream(own):
        nothing = torch.zeros(1, device=device)
        return own, _captured(nothing.zero_, None)


def _captured(work: Callable[[], Any], pool: Any) -> torch.cuda.CUDAGraph:
    """A graph of what is asked for on the stream of now."""
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(pool, capture_error_mode="thread_local")
    try:
        work()
    finally:
        graph.capture_end()
    return graph


@cache
def machine_of(device: torch.device) -> CudaMachine:
    return CudaMachine(device)
