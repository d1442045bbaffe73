"""Many series on one regular grid: what the data side hands to the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellwise.tasks.forecasting.frequency import Frequency

__all__ = ["Panel"]


@dataclass(frozen=True, eq=False)
class Panel:
    """N series, each with its own length T_i, on the grid of one frequency.

    ids: one name per series; times: (T_i,) datetime64[us] or int64, without gaps; y: (T_i,) float64, NaN
    where missing; known: (T_i + F_i, K) float64, calendar features and covariates known in advance, reaching
    F_i >= 0 steps past the end of y; past: (T_i, P) float64, covariates known only up to now, NaN where
    missing.
    """

    ids: tuple[str, ...]
    frequency: Frequency
    times: tuple[np.ndarray, ...]
    y: tuple[np.ndarray, ...]
    known: tuple[np.ndarray, ...]
    past: tuple[np.ndarray, ...]
    known_names: tuple[str, ...] = ()
    past_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = {len(part) for part in (self.ids, self.times, self.y, self.known, self.past)}
        if len(counts) != 1:
            raise ValueError(
                f"a panel needs one of everything per series, but the counts are {sorted(counts)}"
            )
        for i, name in enumerate(self.ids):
            length = len(self.y[i])
            if len(self.times[i]) != length or self.past[i].shape != (length, len(self.past_names)):
                raise ValueError(
                    f"series {name!r}: times and past covariates must be as long as y ({length})"
                )
            if len(self.known[i]) < length or self.known[i].shape[1:] != (len(self.known_names),):
                raise ValueError(
                    f"series {name!r}: known must have {len(self.known_names)} columns and reach the end of y"
                )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) the length T_i of each series."""
        return np.array([len(y) for y in self.y], dtype=np.int64)

    def select(self, indices: Sequence[int]) -> Panel:
        """Only these series, in this order."""
        return self._with(indices, [len(self.y[i]) for i in indices], [len(self.known[i]) for i in indices])

    def cut(self, lengths: Sequence[int], reach: int | None = None) -> Panel:
        """Each series as known after its first `lengths[i]` observations: what a backtest sees at a cutoff.

        y and past end there; known keeps `reach` more steps (all there are, when None).
        """
        full = [len(known) for known in self.known]
        ends = (
            full
            if reach is None
            else [min(whole, end + reach) for whole, end in zip(full, lengths, strict=True)]
        )
        return self._with(range(len(self)), lengths, ends)

    def _with(self, indices: Sequence[int], lengths: Sequence[int], reaches: Sequence[int]) -> Panel:
        rows = list(zip(indices, lengths, reaches, strict=True))
        return Panel(
            ids=tuple(self.ids[i] for i, _, _ in rows),
            frequency=self.frequency,
            times=tuple(self.times[i][:end] for i, end, _ in rows),
            y=tuple(self.y[i][:end] for i, end, _ in rows),
            known=tuple(self.known[i][:reach] for i, _, reach in rows),
            past=tuple(self.past[i][:end] for i, end, _ in rows),
            known_names=self.known_names,
            past_names=self.past_names,
        )
