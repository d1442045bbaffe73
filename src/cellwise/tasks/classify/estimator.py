"""The estimators: `SequenceClassifier().fit(texts, labels).predict(texts)`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.classify import TASK
from cellwise.tasks.classify.base import SequenceEstimator
from cellwise.tasks.classify.convolutions import ConvolutionModel
from cellwise.tasks.classify.data import Classes, Known, Numbers
from cellwise.tasks.classify.examples import SERIES, TEXT, Examples
from cellwise.tasks.classify.metrics import class_metrics, number_metrics
from cellwise.tasks.classify.ngrams import NgramModel
from cellwise.tasks.classify.objective import ClassObjective, NumberObjective, Training
from cellwise.tasks.classify.options import ClassifyOptions, RegressOptions
from cellwise.tasks.classify.stream import ClassStream
from cellwise.tasks.errors import DataError
from cellwise.tasks.training.run_folder import RunFolder

__all__ = ["SequenceClassifier", "SequenceRegressor"]


class SequenceClassifier(ClassifyOptions, SequenceEstimator):
    """A recurrent network that tells classes of sequences apart: of texts, or of series of any lengths.

    `fit(data, target=None, valid=None)` takes a table of texts (CSV, TSV, JSON Lines, Parquet, a frame), a list of
    texts with their labels, a long table of series, a .ts file, a list of arrays (T, C) with labels, or an array
    (N, T), (N, T, C) or, with `layout="nct"`, (N, C, T). Series have any lengths; nobody pads them. `valid` is the same
    again, with labels as a pair `(data, labels)`; without it, a share of each class is held out to decide when to stop.

    Args: cell: the recurrent cell: a name (see `cellwise.cells.names()`), a class or an instance. hidden_size,
    num_layers, directions, pooling, dropout: the network. branch: whether it is blended with the linear model that is
    fitted beside it. text_column, label_column, series_column, step_column, channels, layout, missing, encoding,
    decimal: how data are laid out. unit, min_count, longest, embedding_size, embedding_dropout, word_dropout: how texts
    are read; ngrams: words in the longest n-gram of their linear model. augment: of series in training. class_weight,
    label_smoothing: the loss. held_out, refit (what was held out is learned in the end), epochs, batch_size,
    learning_rate, weight_decay, patience, seed, threads, device, minutes, accumulate, autocast: the training.

    What `fit` learns ends in an underscore: `network_`, `classes_`, `notes_` (remarks on the data, in sentences),
    `trained_` (the epochs), `held_out_` (the examples of the report: those that decided when to stop, or the test part
    of bundled data)."""

    task = TASK.name
    has_classes = True
    metric = "accuracy"
    higher_is_better = True

    classes_: list[Any]
    held_out_: Examples

    def _targets(self, train: Examples) -> Classes:
        assert train.labels is not None
        return Classes.of(train.labels)

    def _encoded_targets(self, targets: Any, examples: Examples, doing: str) -> Tensor:
        return torch.from_numpy(targets.encode(examples, doing))

    def _linear(
        self, encoder: Any, train: Examples, targets: Tensor, outputs: int, held: tuple[Examples, Tensor]
    ) -> Any:
        if train.kind == SERIES:
            return ConvolutionModel.fit([encoder.encode(each) for each in train.inputs], targets, outputs)
        valid = held[0].inputs, held[1].numpy()
        return NgramModel.fit(train.inputs, targets.numpy(), outputs, encoder.unit, self.ngrams, valid)

    def _weights(self, targets: Tensor, outputs: int) -> Tensor | None:
        if self.class_weight == "none":
            return None
        counts = torch.bincount(targets, minlength=outputs).clamp(min=1)
        return len(targets) / (outputs * counts.float())

    def _new_objective(self, network: Any, training: Training, **settings: Any) -> ClassObjective:
        return ClassObjective(network, training, label_smoothing=self.label_smoothing, **settings)

    def _learned(self, data: Known) -> None:
        assert isinstance(data.targets, Classes)
        self.classes_, self.held_out_ = list(data.targets.names), data.measured

    def predict_proba(self, data: Any) -> np.ndarray:
        """The probability of each class of `classes_`, float64 (N, C), calibrated on what was held out."""
        examples = self._examples(data)
        return self._outputs(examples).softmax(1).numpy()

    def predict(self, data: Any) -> list[Any]:
        """The most probable class of each sequence, a list of labels."""
        return [self.classes_[row] for row in self.predict_proba(data).argmax(axis=1)]

    def measure(self, data: Any = None, target: Any = None) -> dict[str, float]:
        """accuracy, macro_f1, log_loss (nats) and calibration_error on labelled data; None: on `held_out_`."""
        examples = self._labelled_examples(data, target)
        assert isinstance(self._data.targets, Classes)
        labels = self._data.targets.encode(examples, "the training")
        return class_metrics(self.predict_proba(examples), labels)

    def measure_linear(self, data: Any = None, target: Any = None) -> dict[str, float]:
        """The same of the linear model that was fitted beside the network, the baseline."""
        examples = self._labelled_examples(data, target)
        assert isinstance(self._data.targets, Classes)
        said = self._data.linear_outputs(examples)
        assert said is not None
        return class_metrics(
            said.double().softmax(1).numpy(), self._data.targets.encode(examples, "the training")
        )

    def _figures(self) -> dict[str, Any]:
        return {"held_out": self.measure(), "linear": self.measure_linear()}

    def _report(self, run: RunFolder) -> None:
        from cellwise.tasks.classify.report import write_report

        write_report(run, self)

    def stream(self) -> ClassStream:
        """The class probabilities after each step of a growing sequence: `probabilities = stream(step)`.

        Raises OptionError for a network that reads in two directions."""
        self._check_fitted()
        return ClassStream(self.network_, self._data)


class SequenceRegressor(RegressOptions, SequenceEstimator):
    """A recurrent network that says a number of a sequence: of texts, or of series of any lengths.

    `fit` takes what `SequenceClassifier.fit` takes, with numbers as labels, and has its options, those of classes and
    n-grams apart. What `fit` learns ends in an underscore: `network_`, `notes_`, `trained_`, `held_out_`."""

    task = "regress"  # in run folders; there is no command of this name
    has_classes = False
    metric = "r2"
    higher_is_better = True

    held_out_: Examples

    def _targets(self, train: Examples) -> Numbers:
        return Numbers.of(_numbers(train))

    def _encoded_targets(self, targets: Any, examples: Examples, doing: str) -> Tensor:
        return torch.from_numpy((_numbers(examples) - targets.mean) / targets.spread).float()

    def _linear(
        self, encoder: Any, train: Examples, targets: Tensor, outputs: int, held: tuple[Examples, Tensor]
    ) -> Any:
        if train.kind == TEXT:
            return None
        return ConvolutionModel.fit([encoder.encode(each) for each in train.inputs], targets, 0)

    def _new_objective(self, network: Any, training: Training, **settings: Any) -> NumberObjective:
        return NumberObjective(network, training, **settings)

    def _learned(self, data: Known) -> None:
        self.held_out_ = data.measured

    def predict(self, data: Any) -> np.ndarray:
        """The number of each sequence, float64 (N,)."""
        examples = self._examples(data)
        assert isinstance(self._data.targets, Numbers)
        return self._outputs(examples)[:, 0].numpy() * self._data.targets.spread + self._data.targets.mean

    def measure(self, data: Any = None, target: Any = None) -> dict[str, float]:
        """mean_absolute_error, root_mean_squared_error and r2 on labelled data; None: on `held_out_`."""
        examples = self._labelled_examples(data, target)
        return number_metrics(self.predict(examples), _numbers(examples))

    def _figures(self) -> dict[str, Any]:
        return {"held_out": self.measure()}


def _numbers(examples: Examples) -> np.ndarray:
    """Labels as numbers, float64 (N,). DataError for one that is none."""
    assert examples.labels is not None
    made = np.zeros(len(examples))
    for row, label in enumerate(examples.labels):
        try:
            made[row] = float(label)
        except ValueError as error:
            raise DataError(
                f"sequence {examples.names[row]!r} has the label {str(label)!r:.60}, which is no number; "
                "SequenceClassifier learns classes"
            ) from error
    if not np.isfinite(made).all():
        raise DataError(
            f"sequence {examples.names[int((~np.isfinite(made)).argmax())]!r} has a label that is not finite"
        )
    return made
