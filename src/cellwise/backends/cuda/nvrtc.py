"""CUDA C++ to machine code, by the compiler that comes with torch's CUDA wheels: no nvcc, no headers."""

from __future__ import annotations

import ctypes
import glob
import os
import sys
from collections.abc import Sequence
from functools import cache

import torch

from cellwise.backends.compiled.cache import cached
from cellwise.errors import CellwiseError

# Where wheels put it, newest first, and where conda and a system may have it.
_WHEELS = ("cu13/lib", "cuda_nvrtc/lib")
_SYSTEM = (
    os.path.join(sys.prefix, "lib"),
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/x86_64-linux/lib",
)


class CompileError(CellwiseError):
    """NVRTC is not there, or does not take what was written for it."""


@cache
def library() -> ctypes.CDLL:
    """NVRTC.

    Raises:
        CompileError: it is nowhere to be found.
    """
    file = _file([os.path.join(each, "nvidia", wheel) for wheel in _WHEELS for each in sys.path])
    if file is not None:
        # NVRTC looks for this one by its bare name, which the loader finds only if it is there already.
        for each in _files(os.path.dirname(file), f"libnvrtc-builtins.so.{_major(file)}"):
            ctypes.CDLL(each)
        return ctypes.CDLL(file)
    try:
        return ctypes.CDLL("libnvrtc.so")
    except OSError:
        raise CompileError(
            "Kernels for a GPU are compiled by NVRTC, which was not found. It comes with torch's CUDA wheels; alone it "
            "is the package nvidia-cuda-nvrtc."
        ) from None


def _file(folders: Sequence[str]) -> str | None:
    """The first that there is, of the CUDA that torch was built with before others: code of a later one than the
    driver's is not loaded.
    """
    found = [each for folder in (*folders, *_SYSTEM) for each in _files(folder, "libnvrtc.so.")]
    wanted = (torch.version.cuda or "").partition(".")[0]
    return min(found, key=lambda each: _major(each) != wanted, default=None)


def _files(folder: str, begin: str) -> list[str]:
    names = sorted(glob.glob(os.path.join(glob.escape(folder), f"{begin}*")))
    return [each for each in names if ".alt." not in each]


def _major(file: str) -> str:
    """13 of libnvrtc.so.13 and libnvrtc.so.13.0.48."""
    return file.rpartition(".so.")[2].partition(".")[0]


@cache
def version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


@cache
def architectures() -> tuple[int, ...]:
    """The compute capabilities that it compiles for, 90 for 9.0."""
    count = ctypes.c_int()
    _check(library().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    found = (ctypes.c_int * count.value)()
    _check(library().nvrtcGetSupportedArchs(found))
    return tuple(sorted(found))


def target_of(capability: int) -> str:
    """What NVRTC is asked to compile for: the device itself, or the newest that it knows of those before it, whose PTX
    a device takes; that of a later one it would refuse.

    Raises:
        CompileError: it knows none of these.
    """
    known = [each for each in architectures() if each <= capability]
    if not known:
        raise CompileError(
            f"NVRTC {version()} compiles for compute capability {min(architectures()) / 10} and later; this device has "
            f"{capability / 10}."
        )
    return f"sm_{capability}" if capability in known else f"compute_{max(known)}"


def machine_code(source: str, capability: int) -> bytes:
    """A cubin, from the cache if it was compiled before; PTX, which the driver compiles, for a device that NVRTC does
    not know.

    Raises:
        CompileError: with what NVRTC has to say.
    """
    name = target_of(capability)
    return cached("\n".join((version(), name, source)), lambda: _compiled(source, name), ".cubin")


def _compiled(source: str, architecture: str) -> bytes:
    nvrtc, program = library(), ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None))
    try:
        options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17"]
        code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if code:
            raise CompileError(f"NVRTC does not take a kernel for {architecture}:\n{_log(program)}")
        return _got(program, "CUBIN" if architecture.startswith("sm_") else "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _log(program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _check(library().nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(library().nvrtcGetProgramLog(program, text))
    return text.value.decode(errors="replace")


def _got(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(getattr(library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    code = ctypes.create_string_buffer(size.value)
    _check(getattr(library(), f"nvrtcGet{what}")(program, code))
    return code.raw


def _check(code: int) -> None:
    if code:
        library().nvrtcGetErrorString.restype = ctypes.c_char_p
        text = library().nvrtcGetErrorString(code)
        raise CompileError(f"NVRTC fails: {text.decode(errors='replace')} ({code}).")
