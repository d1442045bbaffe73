"""What a text costs without a network: an interpolated Kneser-Ney model of characters, and compressors."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from importlib.util import find_spec

from cellwise.tasks.data.kneser_ney import KneserNey
from cellwise.tasks.data.optional import require

__all__ = ["COMPRESSORS", "KneserNey", "compressor_bits"]

COMPRESSORS = ("xz", "PPMd")
PPMD_ORDER, PPMD_MEMORY = 8, 256 * 2**20


def compressor_bits(training: str, text: str) -> dict[str, float]:
    """Name of a compressor -> bits per character that a text adds to the training text, both compressed together.

    xz at its best; PPMd (Cleary, Witten 1984; Shkarin's variant H) where the package pyppmd is installed."""
    packers: dict[str, Callable[[bytes], bytes]] = {"xz": _xz}
    if find_spec("pyppmd") is not None:
        packers["PPMd"] = _ppmd
    before, after = (each.encode("utf8", "surrogatepass") for each in (training, training + text))
    return {name: 8 * (len(pack(after)) - len(pack(before))) / len(text) for name, pack in packers.items()}


def _xz(raw: bytes) -> bytes:
    return lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)


def _ppmd(raw: bytes) -> bytes:
    packed: bytes = require("pyppmd").compress(raw, max_order=PPMD_ORDER, mem_size=PPMD_MEMORY)
    return packed
