"""A recording as a picture: its spectrogram, and over the same time what the network says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cellwise.tasks.report.charts import MODEL, stacked
from cellwise.tasks.speech.decoding import collapse
from cellwise.tasks.speech.features import STEP
from cellwise.tasks.speech.network import BLANK

__all__ = ["path_plot"]

WIDTH, NARROW_WIDTH = 9.4, 4.4  # inches
NARROW_SECONDS = 1.5  # of a recording, on a narrow page
LOUDEST, QUIETEST = 99.5, 20.0  # percentiles of the features between which the picture is drawn


def path_plot(
    features: np.ndarray,
    scores: np.ndarray,
    labels: Sequence[str],
    rate: int,
    reduction: int,
    is_narrow: bool = False,
) -> str:
    """Features (T, F) above log-probabilities (T', K), as SVG. labels: of the classes, the blank first. is_narrow: for
    a narrow page, which shows the beginning."""
    if is_narrow:
        steps = round(NARROW_SECONDS / (STEP * reduction))
        scores, features = scores[:steps], features[: steps * reduction]
    seconds, end = STEP * reduction, STEP * len(features)

    def spectrogram(axes: Any) -> None:
        low, high = np.percentile(features, (QUIETEST, LOUDEST))
        strength = np.clip((features.T - low) / max(high - low, 1e-6), 0, 1)
        # one colour that shows on light and on dark paper; the strength is how opaque it is
        picture = np.empty((*strength.shape, 4))
        picture[..., :3] = _rgb(MODEL)
        picture[..., 3] = strength
        axes.imshow(picture, origin="lower", aspect="auto", extent=(0, end, 0, 1), interpolation="nearest")
        axes.set_yticks([])
        axes.set_ylabel(f"60 to {rate // 2:,} Hz")
        axes.grid(False)

    def path(axes: Any) -> None:
        times = (np.arange(len(scores)) + 0.5) * seconds
        chances = np.exp(scores)
        for number in np.flatnonzero(chances.max(axis=0) > 0.02):
            if number != BLANK:
                axes.fill_between(times, chances[:, number], color=MODEL, alpha=0.35, linewidth=0.6)
        before = BLANK
        for step, number in enumerate(scores.argmax(axis=1).tolist()):
            if collapse([number], before):
                label = labels[number].replace(" ", "␣").replace("$", r"\$")
                axes.text(times[step], chances[step, number] + 0.04, label, ha="center", fontsize=9)
            before = number
        axes.set_ylim(0, 1.25)
        axes.set_yticks([0, 0.5, 1])
        axes.set_xlim(0, end)
        axes.set_ylabel("probability")
        axes.set_xlabel("seconds")

    width = NARROW_WIDTH if is_narrow else WIDTH
    return stacked((spectrogram, path), (1.7, 1.6), width, "narrow-path" if is_narrow else "path")


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
