"""Recordings in files: WAV, FLAC, OGG, and what else libsndfile reads."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellwise.tasks.data.optional import require
from cellwise.tasks.errors import DataError

__all__ = [
    "ENDINGS",
    "NEEDED",
    "Recording",
    "as_recording",
    "common_rate",
    "rate_of",
    "read_recording",
    "wav_bytes",
]

NEEDED = ("soundfile",)
ENDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64", ".caf")
LONGEST = 3600  # seconds of one file
LOWEST_RATE, HIGHEST_RATE = 4_000, 768_000
MOST_CHANNELS = 64


@dataclass(frozen=True, eq=False)
class Recording:
    """name: of its file. samples: float32 (N,) from -1 to 1, the mean of its channels. rate: in Hz."""

    name: str
    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate

    @property
    def is_silent(self) -> bool:
        """Whether no sample differs from the others."""
        return not len(self.samples) or bool(np.ptp(self.samples) == 0)


def read_recording(source: str | Path | bytes, name: str | None = None) -> Recording:
    """A file, or the bytes of one. DataError names the file and says what is wrong with it."""
    name = str(source) if name is None else name
    with _opened(source, name) as file:
        _check_size(name, file.frames, file.samplerate, file.channels)
        samples = file.read(file.frames, dtype="float32", always_2d=True)
        rate = file.samplerate
    return _checked(name, samples.mean(axis=1), rate)


@contextmanager
def _opened(source: str | Path | bytes, name: str) -> Iterator[Any]:
    """A file of soundfile's; what goes wrong with it, also within the block, is a DataError."""
    soundfile = require("soundfile", NEEDED)
    if not isinstance(source, bytes):
        path = Path(source)
        if not path.exists():
            raise DataError(f"there is no recording {name}")
        if not path.is_file():
            raise DataError(f"{name} is a folder or a device, not a recording")
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
            yield file
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise DataError(
            f"{name} cannot be read as a recording ({reason}); WAV, FLAC and OGG files can be"
        ) from error


def as_recording(item: Any, name: str) -> Recording:
    """A recording of a file, or of a pair (samples, rate): samples (N,) or (N, channels), floats from -1 to 1 or
    whole numbers of 16 bits. DataError."""
    if isinstance(item, Recording):
        return item
    if isinstance(item, str | Path):
        return read_recording(item)
    if not (isinstance(item, tuple | list) and len(item) == 2):
        raise DataError(f"{name} must be a file or a pair (samples, rate), not {type(item).__name__}")
    samples, rate = np.asarray(item[0]), item[1]
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer):
        raise DataError(f"{name}: the rate must be a whole number of samples a second, not {rate!r:.40}")
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
        raise DataError(
            f"{name}: samples must be numbers (N,) or (N, channels), not {samples.dtype} {samples.shape}"
        )
    if samples.dtype.kind == "i":
        if samples.dtype != np.int16:
            raise DataError(f"{name}: whole numbers must be int16, not {samples.dtype}; or give floats")
        samples = samples / 32768.0
    channels = samples.shape[1] if samples.ndim == 2 else 1
    _check_size(name, len(samples), int(rate), channels)
    mono = samples.mean(axis=1) if samples.ndim == 2 else samples
    return _checked(name, mono.astype(np.float32), int(rate))


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """A WAV file of 16 bits."""
    soundfile = require("soundfile", NEEDED)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _check_size(name: str, frames: int, rate: int, channels: int) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise DataError(f"{name} has {rate:,} samples a second; speech needs {LOWEST_RATE:,} or more")
    if not 1 <= channels <= MOST_CHANNELS:
        raise DataError(f"{name} has {channels:,} channels; 1 to {MOST_CHANNELS} can be read")
    if frames > LONGEST * rate:
        hours = frames / rate / 3600
        raise DataError(
            f"{name} is {hours:.1f} hours long; cut recordings into pieces of at most {LONGEST // 60} minutes"
        )
    if frames == 0:
        raise DataError(f"{name} holds no sound: it has no samples")


def _checked(name: str, samples: np.ndarray, rate: int) -> Recording:
    if not np.isfinite(samples).all():
        raise DataError(f"{name} holds samples that are no numbers (NaN or infinite); export it again")
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > 100:
        raise DataError(
            f"{name} has samples up to {peak:,.0f}; give floats from -1 to 1, or whole numbers of 16 bits"
        )
    return Recording(name, samples, rate)


def rate_of(item: Any, name: str) -> int:
    """The rate of a recording as `as_recording` takes it, without reading a file's sound."""
    if not isinstance(item, str | Path):
        return as_recording(item, name).rate
    with _opened(item, str(item)) as file:
        return int(file.samplerate)


def common_rate(rates: list[int]) -> int:
    """The rate that most recordings have, at most 16 kHz: speech has little above 8 kHz."""
    most = max(sorted(set(rates)), key=rates.count)
    return min(most, 16_000)
