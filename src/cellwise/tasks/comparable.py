"""What `compare` asks of an estimator, beside `measure`: figures on what was held out, and one prediction to time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cellwise.tasks.training.history import History

__all__ = ["Comparable", "HeldOut"]


@dataclass(frozen=True)
class HeldOut:
    """The figures of a trained network on what it was not trained on, beside those of simpler methods.

    metrics: by name. words: what they were measured on, such as "24 windows of 28 days". is_test: whether nothing in it
    was looked at before, not even to decide when to stop. others: a simple method's name -> its metrics, of the same
    names."""

    metrics: Mapping[str, float]
    words: str
    is_test: bool
    others: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class Comparable:
    """The part of an estimator that `compare` and `tune` need. A task overrides what it knows better."""

    measured_by: ClassVar[tuple[str, ...]] = ()
    """Options that decide what is held out, or how it is measured: settings that differ in one cannot be compared."""
    trial_settings: ClassVar[Mapping[str, Any]] = {}
    """Options of a fit that a search compares with others: without what is done once the network is trained."""
    comparison_settings: ClassVar[Mapping[str, Any]] = {}
    """Options of a fit that is measured and then left: without what only later predictions need."""
    trained_: History | None

    def _held_out_figures(self) -> HeldOut | None:
        """The figures of this trained network; None if nothing was held out. By default those of early stopping."""
        metrics = {} if self.trained_ is None else self.trained_.best.metrics
        return HeldOut(metrics, "what was held out to decide when to stop", False) if metrics else None

    def _one_prediction(self) -> tuple[str, Callable[[], object]] | None:
        """What one prediction is, in words, and a call that makes one; None if the task knows no such thing."""
        return None
