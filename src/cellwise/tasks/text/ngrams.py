"""N-grams beside the network: what both predict is mixed.

A network generalises, and n-grams remember: names, set phrases, headings. So the mean of their probabilities predicts
better than either, which has been known for as long as neural language models (Bengio et al. 2003, section 4.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.data.kneser_ney import KneserNey
from cellwise.tasks.training.run_folder import Checkpoint

__all__ = ["NGrams"]

ORDER = 8
ROUNDS = 50  # of expectation maximisation, of one number
_GRAMS, _COUNTS, _SHARE = "grams", "counts", "share"


@dataclass(frozen=True, eq=False)
class NGrams:
    """What was counted in the training text, by the network's units, and how much the network counts beside it.

    share: from 0 to 1."""

    counted: KneserNey
    share: float

    @classmethod
    def learn(cls, text: Tensor, size: int, validation: Tensor, bits: Tensor) -> NGrams:
        """From ids (T,) below a size, and a text that was not trained on (V,), with the bits (V - 1,) of its units but
        the first by the network: the share is that with which both together predict it best."""
        counted = KneserNey(text.numpy().astype(np.int64), size, ORDER)
        own, other = np.exp2(-bits.numpy()), np.exp2(-counted.bits(validation.numpy().astype(np.int64)))
        share = 0.5
        for _ in range(ROUNDS):
            both = np.maximum(share * own + (1 - share) * other, np.finfo(float).tiny)
            share = float(np.mean(share * own / both))
        return cls(counted, share)

    def mixed(self, bits: Tensor, ids: Tensor) -> Tensor:
        """Bits of the units of a text (T,) but the first: by the network, float64 (T - 1,), and then by both."""
        other = torch.from_numpy(self.counted.bits(ids.numpy().astype(np.int64)))
        return -torch.logaddexp2(_log2(self.share) - bits, _log2(1 - self.share) - other)

    def following(self, chances: Tensor, context: Tensor) -> Tensor:
        """The probability of each unit behind a context (C,): by the network, float64 (size,), and then by both."""
        other = torch.from_numpy(self.counted.following(context.numpy()))
        return self.share * chances + (1 - self.share) * other

    def stored(self) -> Checkpoint:
        """What a run folder keeps: n-grams as numbers int64 (N,), their counts int32 (N,), the share."""
        grams, counts = self.counted.grams
        tensors = {
            _GRAMS: torch.from_numpy(grams),
            _COUNTS: torch.from_numpy(counts.astype(np.int32)),
            _SHARE: torch.tensor(self.share, dtype=torch.float64),
        }
        return Checkpoint(tensors, {"order": str(self.counted.order)})

    @classmethod
    def restored(cls, saved: Checkpoint, size: int) -> NGrams:
        """The inverse, for so many units. Raises ValueError or KeyError for what nobody stored."""
        grams, counts, share = (saved.tensors[name] for name in (_GRAMS, _COUNTS, _SHARE))
        if (grams.dtype, counts.dtype, share.dtype) != (torch.int64, torch.int32, torch.float64):
            raise ValueError("its numbers are of other kinds")
        if share.shape or not 0 <= float(share) <= 1:
            raise ValueError("its share is none")
        made = KneserNey.of_grams(grams.numpy(), counts.numpy(), size, int(saved.about["order"]))
        return cls(made, float(share))


def _log2(share: float) -> float:
    return math.log2(share) if share > 0 else -math.inf
