"""Class probabilities after each step of a growing sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.classify.data import Classes, Known
from cellwise.tasks.classify.encoders import SeriesEncoder, TextEncoder
from cellwise.tasks.classify.network import SequenceNetwork
from cellwise.tasks.classify.ngrams import NgramModel
from cellwise.tasks.errors import DataError, OptionError

__all__ = ["ClassStream"]


class ClassStream:
    """Feed steps: `probabilities = stream(step)`, a dict of class to probability after all steps so far.

    A step is the values of the channels, (D,), or a token of a text: a word, or a character. The recurrent state and
    a running summary are kept, so that a step of the network costs the same however long the sequence is; the linear
    model reads a text anew with each token. After a whole sequence the probabilities are those of `predict_proba`; for
    a text, of its words with a space between them.
    `reset` begins another sequence."""

    def __init__(self, network: SequenceNetwork, known: Known) -> None:
        if network.config.directions == 2:
            raise OptionError(
                "a network of two directions needs the end of a sequence before its beginning; train with directions=1 "
                "(--directions 1) for a stream"
            )
        if network.blend[1] and isinstance(known.encoder, SeriesEncoder):
            raise OptionError(
                "the linear model beside this network reads whole series; train with branch='none' (--branch none) for "
                "a stream"
            )
        if isinstance(known.encoder, TextEncoder) and known.encoder.subwords is not None:
            raise OptionError(
                "a stream takes a word or a character at a time, and this network reads subwords; train with "
                "unit='words' (--unit words) for a stream"
            )
        self._network, self._known = network, known
        self._layer = network.layer.stream()
        self.reset()

    def reset(self) -> None:
        """Forget the sequence."""
        self._layer.reset()
        self.steps = 0
        self._summary = _Summary(self._network)
        self._tokens: list[str] = []

    def __call__(self, step: Any) -> dict[Any, float]:
        """Take a step. DataError for one that is none."""
        with torch.no_grad():
            output = self._layer(self._read(step))
            self.steps += 1
            pooled = self._summary.update(output, self.steps)
            logits = self._network.blended(self._network.decided(pooled[None]), self._linear())[0]
            chances = logits.softmax(0).tolist()
        assert isinstance(self._known.targets, Classes)
        return dict(zip(self._known.targets.names, chances, strict=True))

    def _read(self, step: Any) -> Tensor:
        encoder = self._known.encoder
        if isinstance(encoder, SeriesEncoder):
            values = np.asarray(step, dtype=np.float64).reshape(-1)
            if values.shape != (encoder.width,) or not np.isfinite(values).all():
                raise DataError(f"a step is {encoder.width} finite numbers, not {step!r:.60}")
            return encoder.encode(values[None])[0]
        if not isinstance(step, str):
            raise DataError(f"a step is a token of a text, not {type(step).__name__}")
        found = encoder.encode(step)
        if len(found) != 1:
            raise DataError(
                f"a step is one of the {encoder.unit} of a text, but {step!r:.60} has {len(found)}"
            )
        self._tokens.append(step)
        return self._network.embedded(found)[0]

    def _linear(self) -> Tensor | None:
        if not self._network.blend[1] or isinstance(self._known.encoder, SeriesEncoder):
            return None
        between = " " if self._known.encoder.unit == "words" else ""
        text = between.join(self._tokens)
        assert isinstance(self._known.linear, NgramModel)
        return self._known.linear.logits([text])


class _Summary:
    """The network's pooling, kept up to date step by step."""

    def __init__(self, network: SequenceNetwork) -> None:
        self._network, self._kind = network, network.config.pooling
        width = network.config.hidden_size
        self._sum, self._total = torch.zeros(width), torch.zeros(())
        self._max = torch.full((width,), -torch.inf)
        self._highest = torch.tensor(-torch.inf)

    def update(self, output: Tensor, steps: int) -> Tensor:
        """The summary (P,) with one more output (H,)."""
        if self._kind == "attention":
            return self._attended(output)
        self._sum = self._sum + output
        self._max = torch.maximum(self._max, output)
        parts = {"last": output, "mean": self._sum / steps, "max": self._max}
        return torch.cat(list(parts.values())) if self._kind == "all" else parts[self._kind]

    def _attended(self, output: Tensor) -> Tensor:
        """A softmax over growing scores, rescaled where a higher one comes (Milakov and Gimelshein 2018)."""
        assert self._network.attend is not None
        score = self._network.attend(output)[0]
        highest = torch.maximum(self._highest, score)
        before, now = (self._highest - highest).exp(), (score - highest).exp()
        self._sum = self._sum * before + now * output
        self._total = self._total * before + now
        self._highest = highest
        return self._sum / self._total
