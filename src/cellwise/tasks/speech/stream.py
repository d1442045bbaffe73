"""A recording that comes in pieces: its text so far, while it is spoken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.speech.data import as_stored
from cellwise.tasks.speech.decoding import collapse
from cellwise.tasks.speech.features import STEP, WINDOW, FeatureStream, LogMel
from cellwise.tasks.speech.network import BLANK, SpeechNetwork
from cellwise.tasks.speech.resampling import ResamplerStream
from cellwise.tasks.speech.transcripts import Alphabet

if TYPE_CHECKING:
    from cellwise.tasks.speech.recognizer import Transcript

__all__ = ["SpeechStream"]


class SpeechStream:
    """Feed samples at `rate` Hz: `text = stream.feed(samples)`, then `stream.end()`.

    The text so far is that of the best path. `end` gives what `SpeechRecognizer.transcribe` gives for the whole
    recording, with the language model; the log-probabilities of the network are the same."""

    def __init__(
        self,
        network: SpeechNetwork,
        mel: LogMel,
        alphabet: Alphabet,
        rate: int | None,
        transcript: Callable[[str, np.ndarray], Transcript],
    ) -> None:
        if not network.is_streaming:
            raise OptionError(
                "a network of two directions needs the end of a recording before its beginning; train with "
                "streaming=True (--streaming) for a stream"
            )
        self._network, self._alphabet, self._transcript = network, alphabet, transcript
        self._rate = mel.rate if rate is None else rate
        self._target = mel.rate
        self._resampler = ResamplerStream(self._rate, mel.rate)
        self._features = FeatureStream(mel)
        self._layer = network.stream()
        # a step sees as many frames before its own as it has; before the recording they are zero
        self._frames = torch.zeros(network.reduction, mel.bands)
        self._count = 0
        self._scores: list[Tensor] = []
        self._path: list[int] = []
        self._last = BLANK
        self._is_over = False

    @property
    def text(self) -> str:
        """The text so far."""
        return " ".join(self._alphabet.decode(self._path).split())

    @property
    def delay(self) -> float:
        """Seconds from the beginning of a step's sound to the end of what it looks at, besides computing."""
        return (2 * self._network.reduction - 1) * STEP + WINDOW

    def feed(self, samples: Any) -> str:
        """Take samples (N,), floats from -1 to 1 or int16; the text so far. DataError for others."""
        if self._is_over:
            raise DataError("this recording is over; begin another stream")
        self._take(self._features.feed(as_stored(self._resampler.feed(_sound(samples)))))
        return self.text

    def end(self, name: str = "recording") -> Transcript:
        """The recording is over: its text, words and times."""
        if not self._is_over:
            self._take(self._features.feed(as_stored(self._resampler.end())))
            self._take(self._features.end())
            self._is_over = True
            self._advance(
                torch.zeros(-self._count % self._network.reduction + self._network.reduction, self._width)
            )
        scores = torch.stack(self._scores).numpy() if self._scores else np.zeros((0, len(self._alphabet) + 1))
        return self._transcript(name, scores)

    @property
    def _width(self) -> int:
        return self._frames.shape[1]

    def _take(self, features: Tensor) -> None:
        with torch.no_grad():
            self._count += len(features)
            self._advance(self._network.normalized(features))

    def _advance(self, frames: Tensor) -> None:
        """Do the steps whose frames are all there."""
        reduction, network = self._network.reduction, self._network
        self._frames = torch.cat([self._frames, frames])
        steps = max(0, len(self._frames) // reduction - 2)
        if not steps:
            return
        with torch.no_grad():
            windows = self._frames.unfold(0, 3 * reduction, reduction)[:steps]
            outputs = torch.stack([self._layer(each) for each in network.embed(windows)])
            scores = network.scores(outputs)
        self._frames = self._frames[steps * reduction :]
        self._scores += list(scores)
        path = scores.argmax(-1).tolist()
        self._path += collapse(path, self._last)
        self._last = path[-1]


def _sound(samples: Any) -> Tensor:
    values = np.asarray(samples)
    if values.ndim != 1 or not (values.dtype == np.int16 or values.dtype.kind == "f"):
        raise DataError(f"samples must be (N,), floats or int16, not {values.dtype} {values.shape}")
    if values.dtype == np.int16:
        values = values / 32768.0
    if not np.isfinite(values).all():
        raise DataError("samples must be finite numbers")
    return torch.from_numpy(values.astype(np.float32))
