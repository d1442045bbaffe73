"""Where and with what it was measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cellwise._version import __version__
from cellwise.backends.cpu.target import host
from cellwise.bench import onnx


def describe(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, threads, versions; the GPU, if that is what is measured."""
    return {
        "gpu": _gpu() if device == "cuda" else None,
        "processor": _processor(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "llvm_cpu": host().cpu,
        "vector_bytes": host().vector_bytes,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_at_start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {
            "python": platform.python_version(),
            "cellwise": __version__,
            "torch": torch.__version__,
            "numpy": version("numpy"),
            "llvmlite": version("llvmlite"),
            "onnxruntime": onnx.version(),
        },
    }


def _gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def one_line(machine: dict[str, Any]) -> str:
    """The same in a line, for people."""
    versions = machine["versions"]
    runtime = f"onnxruntime {versions['onnxruntime']}" if versions["onnxruntime"] else "no onnxruntime"
    gpu = machine.get("gpu")
    if gpu is not None:
        return (
            f"{gpu['name']} (compute capability {gpu['capability']}), CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}; "
            f"cellwise {versions['cellwise']}, torch {versions['torch']}"
        )
    return (
        f"{machine['processor']} ({machine['llvm_cpu']}, vectors of {machine['vector_bytes']} bytes), "
        f"{machine['threads']} of {machine['cores']} cores; cellwise {versions['cellwise']}, "
        f"torch {versions['torch']}, {runtime}"
    )
