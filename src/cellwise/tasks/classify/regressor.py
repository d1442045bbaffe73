"""The regressor: `SequenceRegressor().fit(series, numbers).predict(series)`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.classify import REGRESS
from cellwise.tasks.classify.base import SequenceEstimator
from cellwise.tasks.classify.data import Known, Numbers
from cellwise.tasks.classify.examples import Examples
from cellwise.tasks.classify.metrics import number_metrics
from cellwise.tasks.classify.objective import NumberObjective, Training
from cellwise.tasks.classify.options import RegressOptions
from cellwise.tasks.errors import DataError
from cellwise.tasks.training.run_folder import RunFolder

__all__ = ["INSIDE", "SequenceRegressor"]

INSIDE = 0.8  # of the true numbers are to lie in an interval
COMMA = "where the comma stands before decimals, give decimal=',' (--decimal ,)"


class SequenceRegressor(RegressOptions, SequenceEstimator):
    """A recurrent network that says a number of a sequence: of texts, or of series of any lengths.

    `fit` takes what `SequenceClassifier.fit` takes, with numbers as labels, and has its options, those of classes
    apart. What `fit` learns ends in an underscore: `network_`, `notes_`, `trained_`, `held_out_`."""

    task = REGRESS.name
    has_classes = False
    compared = ("mean_absolute_error", "root_mean_squared_error", "r2")
    metric = "r2"
    higher_is_better = True

    held_out_: Examples
    _margin: float | None = None

    def _targets(self, train: Examples) -> Numbers:
        return Numbers.of(self._numbers(train))

    def _encoded_targets(self, targets: Any, examples: Examples, doing: str) -> Tensor:
        return torch.from_numpy((self._numbers(examples) - targets.mean) / targets.spread).float()

    def _new_objective(self, network: Any, training: Training, **settings: Any) -> NumberObjective:
        return NumberObjective(network, training, **settings)

    def _learned(self, data: Known) -> None:
        self.held_out_, self._margin = data.measured, None

    def predict(self, data: Any) -> np.ndarray:
        """The number of each sequence, float64 (N,)."""
        return self._scaled(self._outputs(self._examples(data)))

    def predict_interval(self, data: Any) -> np.ndarray:
        """Bounds within which the true number of each sequence lies in about 80 % of all cases, float64 (N, 2).

        All are equally wide: as wide as the errors on what was held out to decide when to stop ask for (split conformal
        prediction, Lei et al. 2018). Measured before the network learns that too."""
        return self.predict(data)[:, None] + self.margin_ * np.array([-1.0, 1.0])

    @property
    def margin_(self) -> float:
        """Half the width of an interval."""
        self._check_fitted()
        if self._margin is None:
            held = self._data.valid
            errors = np.sort(np.abs(self._scaled(self._outputs(held)) - self._numbers(held)))
            self._margin = float(errors[min(len(errors), math.ceil(INSIDE * (len(errors) + 1))) - 1])
        return self._margin

    def _scaled(self, outputs: Tensor) -> np.ndarray:
        """Numbers (N,) in the units of the labels."""
        targets = self._data.targets
        assert isinstance(targets, Numbers)
        return outputs[:, 0].double().numpy() * targets.spread + targets.mean

    def measure(self, data: Any = None, target: Any = None) -> dict[str, float]:
        """mean_absolute_error, root_mean_squared_error, r2, and coverage_80: the share of true numbers that lie in
        their interval; on labelled data, or on `held_out_` for None."""
        examples = self._labelled_examples(data, target)
        said, truth = self.predict(examples), self._numbers(examples)
        inside = float((np.abs(said - truth) <= self.margin_).mean())
        return number_metrics(said, truth) | {"coverage_80": inside}

    def measure_linear(self, data: Any = None, target: Any = None) -> dict[str, float]:
        """The errors of the linear model that was fitted beside the network, the baseline; without coverage_80.

        Raises DataError for a text run of an earlier version, which has none."""
        examples = self._labelled_examples(data, target)
        said = self._data.linear_outputs(examples)
        if said is None:
            raise DataError("this run has no linear model beside its network; train it again to have one")
        return number_metrics(self._scaled(said), self._numbers(examples))

    def _figures(self) -> dict[str, Any]:
        linear = {} if self._data.linear is None else {"linear": self.measure_linear()}
        return {"held_out": self.measure(), **linear}

    def _report(self, run: RunFolder) -> None:
        from cellwise.tasks.classify.regress_report import write_report

        write_report(run, self)

    def _numbers(self, examples: Examples) -> np.ndarray:
        """Labels as numbers, float64 (N,). DataError for one that is none."""
        assert examples.labels is not None
        made = np.zeros(len(examples))
        for row, label in enumerate(examples.labels):
            try:
                has_comma = self.decimal == "," and isinstance(label, str)
                made[row] = float(str(label).replace(",", ".") if has_comma else label)
            except (ValueError, OverflowError) as error:
                raise DataError(
                    f"sequence {examples.names[row]!r} has the label {str(label)!r:.60}, which is no number; "
                    + (
                        COMMA
                        if "," in str(label)
                        else "SequenceClassifier (cellwise classify) learns classes"
                    )
                ) from error
        if not np.isfinite(made).all():
            raise DataError(
                f"sequence {examples.names[int((~np.isfinite(made)).argmax())]!r} has a label that is not finite"
            )
        return made
