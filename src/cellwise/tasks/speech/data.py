"""From recordings and transcripts to what a network learns from: one rate, whole numbers, normalised texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cellwise.tasks.data.origin import shortened
from cellwise.tasks.errors import DataError
from cellwise.tasks.speech.alignment import steps_needed
from cellwise.tasks.speech.audio import Recording, as_recording, common_rate, rate_of
from cellwise.tasks.speech.features import LogMel
from cellwise.tasks.speech.manifest import Listed
from cellwise.tasks.speech.resampling import Resampler
from cellwise.tasks.speech.transcripts import Alphabet, normalize

__all__ = [
    "Clips",
    "Known",
    "Training",
    "as_stored",
    "blank_share",
    "chosen_rate",
    "hold_out",
    "prepare",
    "statistics",
    "usable",
]

HELD_OUT, FEWEST = 10, 20  # every tenth recording is held out; of fewer than 20, none
MOST_NAMED = 3
FULL_SCALE = 32768
LEAST_SPREAD = 0.1  # of a band, in nats: one that never changes says nothing, and must not be blown up


@dataclass(frozen=True, eq=False)
class Clips:
    """Recordings at one rate: int16 (N,) each, their names, and their normalised transcripts ("" where unknown)."""

    samples: tuple[Tensor, ...]
    names: tuple[str, ...]
    texts: tuple[str, ...]
    rate: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def seconds(self) -> float:
        """How long all of them are."""
        return sum(map(len, self.samples)) / self.rate

    def sound(self, row: int) -> Tensor:
        """A recording as float32 (N,) from -1 to 1."""
        return self.samples[row].float() / FULL_SCALE

    def select(self, rows: Sequence[int]) -> Clips:
        """Only these."""
        samples = tuple(self.samples[i] for i in rows)
        names, texts = (tuple(each[i] for i in rows) for each in (self.names, self.texts))
        return replace(self, samples=samples, names=names, texts=texts, notes=())

    def digest(self) -> str:
        """Of all that training depends on."""
        digest = hashlib.sha256(f"{self.rate}".encode())
        for samples, text in zip(self.samples, self.texts, strict=True):
            digest.update(f"{len(samples)} {text}\n".encode("utf8", "surrogatepass"))
            digest.update(samples.numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Known:
    """What predictions need besides weights, and what the report measures on.

    mean, scale (F,): of the features. blank: the share of steps without a unit. sentences: what the language model
    learns from. held: recordings that decided when to stop. is_plain: whether the network is that of version 0.4.0."""

    rate: int
    alphabet: Alphabet
    mean: Tensor
    scale: Tensor
    blank: float
    sentences: tuple[str, ...]
    held: Clips | None
    fingerprint: str
    notes: tuple[str, ...] = ()
    is_plain: bool = False

    @property
    def prior(self) -> Tensor:
        """How often each class is right (K,), the blank first."""
        counts = torch.tensor(self.alphabet.counts, dtype=torch.float32)
        return torch.cat([torch.tensor([self.blank]), (1 - self.blank) * counts / counts.sum()])


@dataclass(frozen=True, eq=False)
class Training:
    """Recordings to learn from."""

    clips: Clips


def chosen_rate(listed: Listed) -> int:
    """The rate that a network for these recordings hears."""
    return common_rate([rate_of(item, name) for item, name in zip(listed.items, listed.names, strict=True)])


def prepare(listed: Listed, rate: int, normalization: str) -> Clips:
    """Read recordings, and bring them to one rate. DataError for the first that cannot be read."""
    samples, low = [], []
    resamplers: dict[int, Resampler] = {}
    for item, name in zip(listed.items, listed.names, strict=True):
        recording = as_recording(item, name)
        if recording.rate < rate:
            low.append((name, recording.rate))
        if recording.rate not in resamplers:
            resamplers[recording.rate] = Resampler(recording.rate, rate)
        samples.append(_int16(recording, resamplers[recording.rate]))
    texts = listed.texts or ("",) * len(listed)
    notes: tuple[str, ...] = ()
    if low:
        names = _named([name for name, _ in low])
        notes = (
            f"{names}: recorded at {low[0][1]:,} Hz and resampled to the network's {rate:,}; "
            "what lies above half of that is missing, and it may err more",
        )
    normalized = tuple(normalize(text, normalization) for text in texts)
    return Clips(tuple(samples), listed.names, normalized, rate, notes)


def _int16(recording: Recording, resampler: Resampler) -> Tensor:
    return (as_stored(resampler(torch.from_numpy(recording.samples))) * FULL_SCALE).to(torch.int16)


def as_stored(samples: Tensor) -> Tensor:
    """Samples (N,) with the 16 bits that `Clips` keep of them."""
    return (samples * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE


def usable(clips: Clips, mel: LogMel, reduction: int, units: Callable[[str], Sequence[Any]] = tuple) -> Clips:
    """Without the recordings that nothing can be learned from; the notes name them. DataError if none is left.

    units: those of a transcript, which need a step each."""
    left_out: dict[str, list[str]] = {}
    rows = []
    for row, (samples, name, text) in enumerate(zip(clips.samples, clips.names, clips.texts, strict=True)):
        reason = _useless(samples, text, mel, reduction, units)
        if reason is None:
            rows.append(row)
        else:
            left_out.setdefault(reason[0], []).append(f"{name}{reason[1]}")
    notes = tuple(
        f"{len(names):,} recording{'s' * (len(names) != 1)} left out, {reason}: {_named(names)}"
        for reason, names in left_out.items()
    )
    if not rows:
        why = "; ".join(notes) or "there are none"
        raise DataError(f"no recording is left to learn from ({why})")
    return replace(clips.select(rows), notes=(*clips.notes, *notes))


def _useless(
    samples: Tensor, text: str, mel: LogMel, reduction: int, units: Callable[[str], Sequence[Any]]
) -> tuple[str, str] | None:
    """Why nothing can be learned from a recording, and what of it; None if something can."""
    if not text:
        return "without a word in the transcript", ""
    if bool((samples == samples[0]).all()):
        return "silent from beginning to end", ""
    steps, needed = -(-mel.count(len(samples)) // reduction), steps_needed(units(text))
    if steps < needed:
        seconds = len(samples) / mel.rate
        return (
            f"with a transcript too long for its sound at {reduction * 10} ms a character",
            f" ({seconds:.1f} s, {shortened(text, 40)!r})",
        )
    return None


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def hold_out(clips: Clips) -> tuple[Clips, Clips | None]:
    """Recordings to learn from, and every tenth, which decides when to stop; None of few."""
    if len(clips) < FEWEST:
        return clips, None
    held = [row for row in range(len(clips)) if row % HELD_OUT == HELD_OUT - 1]
    learned = [row for row in range(len(clips)) if row % HELD_OUT != HELD_OUT - 1]
    return replace(clips.select(learned), notes=clips.notes), clips.select(held)


def statistics(clips: Clips, mel: LogMel) -> tuple[Tensor, Tensor]:
    """Mean and one over the deviation of each band (F,)."""
    count, total, squares = (
        0,
        torch.zeros(mel.bands, dtype=torch.float64),
        torch.zeros(mel.bands, dtype=torch.float64),
    )
    for row in range(len(clips)):
        features = mel(clips.sound(row)).double()
        count += len(features)
        total += features.sum(0)
        squares += features.square().sum(0)
    mean = total / count
    spread = (squares / count - mean.square()).clamp(min=LEAST_SPREAD**2).sqrt()
    return mean.float(), (1 / spread).float()


def blank_share(clips: Clips, mel: LogMel, reduction: int, units: int) -> float:
    """The share of steps that no unit needs, where there are so many, between 0.1 and 0.95."""
    steps = sum(-(-mel.count(len(samples)) // reduction) for samples in clips.samples)
    return min(0.95, max(0.1, 1 - units / steps))
