"""What a text costs without a network: an interpolated Kneser-Ney model of characters, and a compressor."""

from __future__ import annotations

import lzma

from cellwise.tasks.data.kneser_ney import KneserNey

__all__ = ["KneserNey", "xz_bits"]


def xz_bits(training: str, text: str) -> float:
    """Bits per character that a text adds to the training text, both compressed together by xz at its best."""
    return 8 * (_packed(training + text) - _packed(training)) / len(text)


def _packed(text: str) -> int:
    return len(lzma.compress(text.encode("utf8", "surrogatepass"), preset=9 | lzma.PRESET_EXTREME))
