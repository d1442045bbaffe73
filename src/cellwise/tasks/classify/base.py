"""What estimators of sequences share: reading, the linear model beside the network, the run folder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from cellwise.errors import a_or_an
from cellwise.tasks.classify.columns import Columns, Schema
from cellwise.tasks.classify.convolutions import ConvolutionModel
from cellwise.tasks.classify.data import (
    Classes,
    Known,
    Numbers,
    encode,
    fingerprint,
    joined,
    restored,
    split_off,
    stored,
    without_empty,
)
from cellwise.tasks.classify.encoders import SeriesEncoder, TextEncoder
from cellwise.tasks.classify.examples import SERIES, TEXT, Examples, width_of
from cellwise.tasks.classify.network import NetworkConfig, SequenceNetwork, Sizes
from cellwise.tasks.classify.ngrams import NgramModel
from cellwise.tasks.classify.objective import Encoded, SequenceObjective, Training, outputs_of
from cellwise.tasks.classify.options import SequenceOptions
from cellwise.tasks.classify.start import WarmStart, read_start
from cellwise.tasks.classify.tables import read_examples
from cellwise.tasks.classify.tokens import SUBWORDS, choose_unit
from cellwise.tasks.comparable import HeldOut
from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.estimator import Estimator, Stored
from cellwise.tasks.training.loop import torch_threads
from cellwise.tasks.training.run_folder import DATA, RunFolder
from cellwise.tasks.training.stage import OTHER_SEED

__all__ = ["SequenceEstimator", "labelled"]


class SequenceEstimator(SequenceOptions, Estimator[Known, Training]):
    """What classifiers and regressors share: reading, the network, the run folder."""

    has_classes: ClassVar[bool]
    """Whether labels are classes, or numbers."""
    compared: ClassVar[tuple[str, ...]]
    """The metrics that `measure` and `measure_linear` both have."""
    trial_settings: ClassVar = {"refit": False}
    comparison_settings: ClassVar = {"refit": False}
    network_: SequenceNetwork
    measured_: SequenceNetwork

    @abstractmethod
    def _targets(self, train: Examples) -> Classes | Numbers:
        """What the labels of training examples are. DataError."""

    @abstractmethod
    def _encoded_targets(self, targets: Any, examples: Examples, doing: str) -> Tensor:
        """Labels as the network is trained on them (N,). DataError."""

    def _linear(
        self, encoder: Any, train: Examples, targets: Tensor, outputs: int, held: tuple[Examples, Tensor]
    ) -> ConvolutionModel | NgramModel:
        """The linear model beside the network. held: examples with targets, which may choose its strength."""
        if train.kind == SERIES:
            return ConvolutionModel.fit([encoder.encode(each) for each in train.inputs], targets, outputs)
        unit = choose_unit(train.inputs) if encoder.unit == SUBWORDS else encoder.unit
        return NgramModel.fit(train.inputs, targets, outputs, unit, self.ngrams, (held[0].inputs, held[1]))

    def _is_blended(self, data: Known) -> bool:
        """Whether the answer is that of the network and of the linear model together."""
        is_streamed = data.schema.kind == SERIES and self.directions == 1
        wanted = self.branch == "linear" or (self.branch == "auto" and not is_streamed)
        return wanted and data.linear is not None

    @property
    def model_name(self) -> str:
        """How it is called in tables: the cell's name in capitals."""
        return self._cell.name.upper()

    def read(self, source: Any) -> Examples:
        """Read a file, frame, list or array as `fit` would, or as `predict` would once fitted. Raises DataError."""
        return read_examples(source, self._columns())

    def _columns(self) -> Columns:
        learned = self._data.schema if self.is_fitted else None
        return Columns(
            self.text_column,
            self.label_column,
            self.series_column,
            self.step_column,
            tuple(self.channels),
            self.layout,
            self.missing,
            self.encoding,
            self.decimal,
            learned,
        )

    def check_options(self, **how: Any) -> None:
        """Raise OptionError, UnknownCellError or CellError for the first invalid option."""
        super().check_options(**how)
        self._columns()

    def _read(self, data: Any, target: Any = None, valid: Any = None) -> tuple[Known, Training]:
        columns = replace(self._columns(), learned=None)  # fit begins anew, whatever was learned before
        train = labelled(read_examples(data, columns), target)
        test = train.test
        train = without_empty(train)
        notes = train.notes
        targets = self._targets(train)
        if valid is None:
            labels = targets.encode(train, "") if isinstance(targets, Classes) else None
            train, held = split_off(train, labels, self.held_out)
        else:
            learned = Schema(train.kind, train.channels)
            held = without_empty(_read_valid(valid, replace(columns, learned=learned)))
        with torch_threads(self.threads):
            known, training = self._prepared(train, held, targets, notes, is_own_split=valid is None)
        return replace(known, test=test), training

    def _prepared(
        self, train: Examples, held: Examples, targets: Any, notes: tuple[str, ...], is_own_split: bool
    ) -> tuple[Known, Training]:
        """What stays, and what is trained on; the linear model is fitted here."""
        encoder: TextEncoder | SeriesEncoder
        start = self._warm_start(train)
        if start is not None:
            encoder = start.encoder(self.longest)
        elif train.kind == TEXT:
            encoder = TextEncoder.of(train, self.unit, self.min_count, self.longest, self.subwords)
        else:
            encoder = SeriesEncoder.of(train)
        train_targets = self._encoded_targets(targets, train, "the training")
        held_targets = self._encoded_targets(targets, held, "the training")
        outputs = len(targets) if isinstance(targets, Classes) else 1
        linear = self._linear(encoder, train, train_targets, outputs, (held, held_targets))
        schema = Schema(train.kind, train.channels)
        digest = fingerprint(train, held, more="" if start is None else start.digest)
        known = Known(schema, encoder, targets, linear, held, notes, digest, is_own_split=is_own_split)
        if start is not None:
            known = replace(known, sizes=start.sizes)
        valid = encode(known, held, held_targets, self._is_blended(known))
        if self._refits(known) and isinstance(linear, ConvolutionModel):
            both, every = joined(train, held), torch.cat([train_targets, held_targets])
            again = self._linear(encoder, both, every, outputs, (held, held_targets))
            known = replace(known, linear=again, held_linear=known.linear_outputs(held))
        encoded = Encoded(known.encode(train), train_targets)
        return known, Training(encoded, valid, self._weights(train_targets, outputs), start)

    def _warm_start(self, train: Examples) -> WarmStart | None:
        """What the network begins with. Raises OptionError and RunFolderError unless it fits."""
        if self.pretrained is None:
            return None
        if train.kind != TEXT:
            raise OptionError("pretrained is a language model, for texts, but these are series; leave it out")
        start = read_start(self.pretrained)
        declared = {each.name: each for each in self._options()}
        named = {each.name: getattr(self, each.name) for each in fields(Sizes)}
        given = {name: value for name, value in named.items() if value != declared[name].default}
        start.check(self._cell, self.unit, given, self.directions)
        return start

    def _weights(self, targets: Tensor, outputs: int) -> Tensor | None:
        return None

    def _network(self, data: Known) -> SequenceNetwork:
        is_text = isinstance(data.encoder, TextEncoder)
        sizes = data.sizes or Sizes(self.embedding_size, self.hidden_size, self.num_layers)
        return SequenceNetwork(
            NetworkConfig(
                cell=self._cell,
                tokens=len(data.encoder) if isinstance(data.encoder, TextEncoder) else 0,
                inputs=sizes.embedding_size if is_text else width_of(data.schema.channels),
                outputs=data.outputs,
                hidden_size=sizes.hidden_size,
                num_layers=sizes.num_layers,
                directions=self.directions,
                pooling=self.pooling or ("mean" if is_text else "max"),
                dropout=self.dropout,
                input_dropout=self.embedding_dropout if is_text else 0.0,
                word_dropout=self.word_dropout if is_text else 0.0,
            )
        )

    def _objective(self, network: Any, data: Known, training: Training) -> SequenceObjective:
        if training.start is not None:
            training.start.begin(network)
        return self._new_objective(
            network, training, batch_size=self.batch_size, seed=self.seed, augment=self.augment
        )

    def _refits(self, data: Known) -> bool:
        return self.refit and data.is_own_split

    def _refit_objective(self, network: Any, data: Known, training: Training) -> SequenceObjective:
        assert training.valid is not None
        targets = torch.cat([training.train.targets, training.valid.targets])
        whole = Encoded([*training.train.inputs, *training.valid.inputs], targets)
        return self._new_objective(
            network,
            Training(whole, None, training.weights),
            batch_size=self.batch_size,
            seed=self.seed + OTHER_SEED,
            augment=self.augment,
        )

    @abstractmethod
    def _new_objective(self, network: Any, training: Training, **settings: Any) -> SequenceObjective:
        """Of this kind of target."""

    def _store(self, data: Known) -> Stored:
        tensors, about = stored(data)
        return Stored(data.fingerprint, tensors, about)

    def _restore(self, run: RunFolder, config: Mapping[str, Any]) -> Known:
        saved = run.read_tensors(DATA)
        digest = config["data"]
        return run.guarded(
            f"{DATA} does not hold what {a_or_an(type(self).__name__)} has learned",
            lambda: restored(saved.tensors, saved.about, digest, self.has_classes),
        )

    def _notes(self, data: Known) -> tuple[str, ...]:
        return data.notes

    @abstractmethod
    def measure_linear(self, data: Any = None, target: Any = None) -> dict[str, float]:
        """The metrics of the linear model that was fitted beside the network."""

    def _held_out_figures(self) -> HeldOut:
        known, linear = self._data, self._data.linear
        own = self.measure(None)
        others = {} if linear is None else {linear.name: self.measure_linear()}
        words = known.measured.about()
        words += ", which training has not seen" if known.test else ", which decided when to stop"
        return HeldOut({name: own[name] for name in self.compared}, words, known.test is not None, others)

    def _one_prediction(self) -> tuple[str, Callable[[], object]]:
        first = self._data.measured.select([0])
        return f"that of {first.about()}", lambda: self._outputs(first)

    def _outputs(self, examples: Examples) -> Tensor:
        """The answers (N, C), float64: the network's, blended with the linear model's."""
        empty = torch.zeros(len(examples))
        with torch_threads(self.threads):
            network = self.measured_ if examples is self._data.valid else self.network_
            encoded = encode(self._data, examples, empty, self._is_blended(self._data))
            return network.blended(outputs_of(network, encoded), encoded.linear)

    def _examples(self, data: Any) -> Examples:
        self._check_fitted()
        return self.read(data)

    def _labelled_examples(self, data: Any, target: Any) -> Examples:
        """What is measured on: with labels. Without data, the test part that came with it, or what was held out."""
        self._check_fitted()
        return self._data.measured if data is None else labelled(self.read(data), target)


def labelled(examples: Examples, target: Any) -> Examples:
    """With labels, given or read. DataError if there are none."""
    made = examples.labelled(target)
    if made.labels is None:
        raise DataError(made.unlabelled)
    return made


def _read_valid(valid: Any, columns: Columns) -> Examples:
    """Validation data as the training data were read: with their channels, categories and kind of steps."""
    target = None
    if isinstance(valid, tuple) and len(valid) == 2 and not isinstance(valid[0], str):
        valid, target = valid
    learned = columns.learned
    assert learned is not None
    if isinstance(valid, Examples) and valid.channels != learned.channels and valid.source is not None:
        valid = valid.source  # it was read by itself, before anybody knew what the training has
    made = labelled(read_examples(valid, columns), target)
    if made.kind != learned.kind or made.channels != learned.channels:
        raise DataError(
            f"the validation data ({made.about()}) have other channels or steps than the training data; give a file of "
            "the same columns"
        )
    return made
