"""The classifier: `SequenceClassifier().fit(texts, labels).predict(texts)`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.classify import TASK
from cellwise.tasks.classify.base import SequenceEstimator
from cellwise.tasks.classify.data import Classes, Known
from cellwise.tasks.classify.examples import Examples
from cellwise.tasks.classify.metrics import class_metrics
from cellwise.tasks.classify.objective import ClassObjective, Training
from cellwise.tasks.classify.options import ClassifyOptions
from cellwise.tasks.classify.stream import ClassStream
from cellwise.tasks.training.run_folder import RunFolder

__all__ = ["SequenceClassifier"]


class SequenceClassifier(ClassifyOptions, SequenceEstimator):
    """A recurrent network that tells classes of sequences apart: of texts, or of series of any lengths.

    `fit(data, target=None, valid=None)` takes a table of texts (CSV, TSV, JSON Lines, Parquet, a frame), a list of
    texts with their labels, a long table of series, a .ts file, a list of arrays (T, C) with labels, or an array
    (N, T), (N, T, C) or, with `layout="nct"`, (N, C, T). Series have any lengths; nobody pads them. `valid` is the same
    again, with labels as a pair `(data, labels)`; without it, a share of each class is held out to decide when to stop.

    Args: cell: the recurrent cell: a name (see `cellwise.cells.names()`), a class or an instance. hidden_size,
    num_layers, directions, pooling, dropout: the network. branch: whether it is blended with the linear model that is
    fitted beside it. text_column, label_column, series_column, step_column, channels, layout, missing, encoding,
    decimal: how data are laid out. unit, min_count, subwords, longest, embedding_size, embedding_dropout,
    word_dropout: how texts are read; pretrained: the run folder of a language model that the network begins with;
    ngrams: words in the longest n-gram of the linear model. augment: of series in training. class_weight,
    label_smoothing: the loss. held_out, refit (what was held out is learned in the end), epochs, batch_size,
    learning_rate, weight_decay, patience, seed, threads, device, minutes, accumulate, autocast: the training.

    What `fit` learns ends in an underscore: `network_`, `classes_`, `notes_` (remarks on the data, in sentences),
    `trained_` (the epochs), `held_out_` (the examples of the report: those that decided when to stop, or the test part
    of bundled data)."""

    task = TASK.name
    has_classes = True
    compared = ("accuracy", "macro_f1", "log_loss", "calibration_error")
    metric = "accuracy"
    higher_is_better = True

    classes_: list[Any]
    held_out_: Examples

    def _targets(self, train: Examples) -> Classes:
        assert train.labels is not None
        return Classes.of(train.labels)

    def _encoded_targets(self, targets: Any, examples: Examples, doing: str) -> Tensor:
        return torch.from_numpy(targets.encode(examples, doing))

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
