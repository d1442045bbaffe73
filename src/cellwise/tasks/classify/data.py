"""From examples to what a network is trained on, and what stays with it; into a run folder and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.classify.columns import Schema
from cellwise.tasks.classify.convolutions import ConvolutionModel
from cellwise.tasks.classify.encoders import SeriesEncoder, TextEncoder
from cellwise.tasks.classify.examples import SERIES, TEXT, Channel, Examples
from cellwise.tasks.classify.network import Sizes
from cellwise.tasks.classify.ngrams import NgramModel
from cellwise.tasks.classify.objective import Encoded
from cellwise.tasks.classify.tokens import CHARACTERS, SUBWORDS, UNITS, WORDS
from cellwise.tasks.data.subwords import Subwords
from cellwise.tasks.errors import DataError
from cellwise.tasks.training.digests import parts_digest

__all__ = ["Classes", "Known", "Numbers", "encode", "fingerprint", "restored", "split_off", "stored"]

Linear = NgramModel | ConvolutionModel
MOST_UNITS = 65_536  # of a layer, and layers
MOST_FRACTIONS = 20  # labels that are numbers with a fraction, up to which they may be grades
LEAST_HELD, MOST_HELD, FEW_HELD = (
    0.1,
    0.3,
    30,
)  # shares that are held out, and how many sequences it should be


@dataclass(frozen=True)
class Classes:
    """The classes of a classifier, in order; labels are known by their text, so that "1" from a file is 1."""

    names: tuple[Any, ...]

    @classmethod
    def of(cls, labels: Sequence[Any]) -> Classes:
        """The labels that there are. DataError for fewer than two, or for what are numbers rather than classes."""
        found = {str(label): label for label in labels}
        if len(found) < 2:
            having = f"all {len(labels):,} sequences have" if len(labels) > 1 else "the one sequence has"
            raise DataError(f"{having} the label {next(iter(found))!r}; a classifier needs two labels")
        fractions = [label for label in found if _is_fraction(label)]
        if len(fractions) > MOST_FRACTIONS or any(isinstance(found[each], float) for each in fractions):
            raise DataError(
                f"the label {fractions[0]} is a number with a fraction, no class; SequenceRegressor (cellwise regress) "
                "learns numbers"
            )
        return cls(tuple(found[name] for name in sorted(found, key=_order)))

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, examples: Examples, doing: str) -> np.ndarray:
        """The number of each label (N,). DataError for a label that is no class."""
        index = {str(name): number for number, name in enumerate(self.names)}
        assert examples.labels is not None
        made = np.zeros(len(examples), dtype=np.int64)
        for row, label in enumerate(examples.labels):
            if str(label) not in index:
                known = ", ".join(map(str, self.names[:10])) + (", ..." if len(self.names) > 10 else "")
                raise DataError(
                    f"sequence {examples.names[row]!r} has the label {str(label)!r:.60}, which {doing} does not have "
                    f"({known}); give data with the same labels"
                )
            made[row] = index[str(label)]
        return made


def _is_fraction(label: str) -> bool:
    """Whether a label is a number between two whole ones."""
    try:
        return not float(label).is_integer()
    except (ValueError, OverflowError):
        return False


def _order(name: str) -> tuple[bool, float, str]:
    """Numbers by their size, before texts by their letters."""
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name


@dataclass(frozen=True)
class Numbers:
    """Targets of a regressor: their mean and spread over the training."""

    mean: float
    spread: float

    @classmethod
    def of(cls, values: np.ndarray) -> Numbers:
        """DataError if they are all the same."""
        if len(values) < 2 or np.ptp(values) == 0:
            raise DataError("all targets are the same number; there is nothing to learn from them")
        return cls(float(values.mean()), float(values.std()))


@dataclass(frozen=True, eq=False)
class Known:
    """What stays with a network: how sequences are read and labels named, the linear model beside it, and what was
    held out to decide when to stop. test: examples that came with the data for a test.
    is_own_split: whether what was held out is a share of the data, which may be learned in the end. held_linear (N, C):
    what a linear model said of that before it learned it too. sizes: of the network, where the options do not say."""

    schema: Schema
    encoder: TextEncoder | SeriesEncoder
    targets: Classes | Numbers
    linear: Linear | None
    valid: Examples
    notes: tuple[str, ...]
    fingerprint: str
    test: Examples | None = None
    is_own_split: bool = True
    held_linear: Tensor | None = None
    sizes: Sizes | None = None

    @property
    def measured(self) -> Examples:
        """What the figures of a report are measured on: a test part that came with the data, or what was held out."""
        return self.valid if self.test is None else self.test

    @property
    def outputs(self) -> int:
        """Numbers that the network gives for a sequence."""
        return len(self.targets) if isinstance(self.targets, Classes) else 1

    def encode(self, examples: Examples) -> list[Tensor]:
        """Sequences as the network reads them."""
        return [self.encoder.encode(each) for each in examples.inputs]

    def linear_outputs(self, examples: Examples) -> Tensor | None:
        """What the linear model says of sequences: logits (N, C) or numbers (N, 1) in units of their spread. Of what
        was held out: what it said before it learned that."""
        if examples is self.valid and self.held_linear is not None:
            return self.held_linear
        if isinstance(self.linear, NgramModel):
            return self.linear.logits(examples.inputs)
        return None if self.linear is None else self.linear.outputs(self.encode(examples))


def encode(known: Known, examples: Examples, targets: Tensor, is_blended: bool) -> Encoded:
    """Examples as the network is measured on."""
    return Encoded(known.encode(examples), targets, known.linear_outputs(examples) if is_blended else None)


def split_off(
    examples: Examples, labels: np.ndarray | None, share: float | None = None
) -> tuple[Examples, Examples]:
    """Examples to train on and to hold out: a share of each class, drawn without regard to the order of the data, and
    at least one of each class that has two. Without a share, a tenth; of few more, since they decide when to stop. The
    same data are always split alike."""
    if share is None:
        share = min(MOST_HELD, max(LEAST_HELD, FEW_HELD / len(examples)))
    order = np.random.default_rng(0).permutation(len(examples))
    held = np.zeros(len(examples), dtype=bool)
    groups = [order] if labels is None else [order[labels[order] == each] for each in np.unique(labels)]
    for group in groups:
        count = min(max(1, round(share * len(group))), len(group) - 1)
        held[group[:count]] = True
    if not held.any() or held.all():
        count = len(examples)
        found = (
            f"{count:,} {'sequence is' if count == 1 else 'sequences are'} too few to hold any out; give more"
        )
        if labels is not None and len(groups) == count > 1:
            found = f"every one of {count:,} sequences has another label, so none can be held out; give more of each"
        raise DataError(f"{found}, or validation data of their own")
    return examples.select(np.flatnonzero(~held)), examples.select(np.flatnonzero(held))


def fingerprint(*parts: Examples, more: str = "") -> str:
    """SHA-256 over kinds, channels, sequences and labels, and over whatever else a training depends on."""

    def pieces() -> Iterable[bytes | memoryview]:
        for part in parts:
            about = [part.kind, [asdict(one) for one in part.channels], part.labels, len(part)]
            yield json.dumps(about).encode("ascii")
            for each in part.inputs:
                if part.kind == TEXT:
                    yield each.encode("utf8", "surrogatepass")
                else:
                    yield np.ascontiguousarray(each).tobytes()
        if more:
            yield more.encode("ascii")

    return parts_digest(pieces())


# --- in a run folder --------------------------------------------------------------------------------------------


def stored(known: Known) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, and all else that there is to say, JSON-able."""
    tensors = {} if known.linear is None else dict(known.linear.tensors())
    about: dict[str, Any] = {
        "kind": known.schema.kind,
        "channels": [asdict(one) for one in known.schema.channels],
        "notes": known.notes,
        "linear": None if known.linear is None else type(known.linear).__name__,
        "is_own_split": known.is_own_split,
        "sizes": None if known.sizes is None else asdict(known.sizes),
    }
    if known.held_linear is not None:
        tensors["valid/linear"] = known.held_linear
    if isinstance(known.targets, Classes):
        about["classes"] = known.targets.names
    else:
        about["targets"] = [known.targets.mean, known.targets.spread]
    if isinstance(known.encoder, TextEncoder):
        about |= {name: getattr(known.encoder, name) for name in ("unit", "tokens", "longest")}
        if known.encoder.subwords is not None:
            about["subwords"] = known.encoder.subwords.to_json()
    else:
        tensors["mean"] = torch.from_numpy(known.encoder.mean)
        tensors["spread"] = torch.from_numpy(known.encoder.spread)
    if isinstance(known.linear, NgramModel):
        about |= {"ngrams": known.linear.size, "ngram_unit": known.linear.unit}
    for name, part in (("valid", known.valid), ("test", known.test)):
        if part is None:
            continue
        about[name] = {"names": part.names, "labels": part.labels}
        if part.kind == TEXT:
            about[name]["inputs"] = part.inputs
        else:
            tensors[f"{name}/values"] = torch.from_numpy(np.concatenate(part.inputs))
            tensors[f"{name}/lengths"] = torch.tensor([len(each) for each in part.inputs])
    return tensors, about


def restored(
    tensors: Mapping[str, Tensor], about: Mapping[str, Any], digest: str, is_classifier: bool
) -> Known:
    """The inverse of `stored`. Raises KeyError, ValueError or TypeError if it is not what that has made."""
    kind = about["kind"]
    if kind not in (TEXT, SERIES):
        raise ValueError("its kind of sequences is none")
    channels = tuple(_channel(each) for each in about["channels"])
    targets: Classes | Numbers
    if is_classifier:
        targets = Classes(tuple(about["classes"]))
        if len({str(name) for name in targets.names}) != len(targets) or len(targets) < 2:
            raise ValueError("its classes are none")
    else:
        mean, spread = (float(each) for each in about["targets"])
        if not (np.isfinite(mean) and np.isfinite(spread) and spread > 0):
            raise ValueError("its targets are none")
        targets = Numbers(mean, spread)
    outputs = len(targets) if isinstance(targets, Classes) else 1
    encoder: TextEncoder | SeriesEncoder
    if kind == TEXT:
        encoder = _text_encoder(about)
    else:
        encoder = _series_encoder(channels, tensors)
    linear: Linear | None = None
    if about["linear"] == NgramModel.__name__ and kind == TEXT:
        unit = about.get("ngram_unit", about["unit"])  # version 0.3.0 had no other than the network's
        if unit not in (WORDS, CHARACTERS):
            raise ValueError("the unit of its n-grams is none")
        linear = NgramModel.restored(tensors, unit, int(about["ngrams"]), outputs)
    elif about["linear"] == ConvolutionModel.__name__ and isinstance(encoder, SeriesEncoder):
        linear = ConvolutionModel.restored(tensors, encoder.width, outputs)
    elif about["linear"] is not None:
        raise ValueError("its linear model is none")
    parts = {name: _part(kind, channels, tensors, about, name) for name in ("valid", "test") if name in about}
    notes, is_own, held = tuple(_texts(about["notes"])), about["is_own_split"], tensors.get("valid/linear")
    if not isinstance(is_own, bool):
        raise ValueError("whether what was held out is its own is not said")
    if held is not None and (held.shape != (len(parts["valid"]), outputs) or held.dtype != torch.float32):
        raise ValueError("what the linear model said is none")
    schema, sizes = Schema(kind, channels), about.get("sizes")
    return Known(
        schema,
        encoder,
        targets,
        linear,
        parts["valid"],
        notes,
        digest,
        parts.get("test"),
        is_own,
        held,
        None if sizes is None else _sizes(sizes),
    )


def _sizes(stored: Mapping[str, Any]) -> Sizes:
    made = Sizes(**stored)
    if not all(type(each) is int and 1 <= each <= MOST_UNITS for each in asdict(made).values()):
        raise ValueError("its sizes are none")
    return made


def _channel(value: Mapping[str, Any]) -> Channel:
    categories = value["categories"]
    made = Channel(
        value["name"], None if categories is None else tuple(_texts(categories)), value["is_interval"]
    )
    if not isinstance(made.name, str) or not isinstance(made.is_interval, bool):
        raise ValueError("a channel is none")
    return made


def _text_encoder(about: Mapping[str, Any]) -> TextEncoder:
    unit, tokens, longest = about["unit"], tuple(_texts(about["tokens"])), about["longest"]
    subwords = Subwords.from_json(about["subwords"]) if unit == SUBWORDS else None
    if unit not in UNITS or len(set(tokens)) != len(tokens) or bool(tokens) == (subwords is not None):
        raise ValueError("its tokens are none")
    if type(longest) is not int or longest < 2:
        raise ValueError("its longest text is none")
    return TextEncoder(unit, tokens, longest, subwords)


def _series_encoder(channels: tuple[Channel, ...], tensors: Mapping[str, Tensor]) -> SeriesEncoder:
    mean, spread = tensors["mean"], tensors["spread"]
    width = sum(one.width for one in channels)
    for each in (mean, spread):
        if each.dtype != torch.float64 or tuple(each.shape) != (width,) or not each.isfinite().all():
            raise ValueError("the scale of its channels is none")
    if not (spread > 0).all():
        raise ValueError("the scale of its channels is none")
    return SeriesEncoder(channels, mean.numpy(), spread.numpy())


def _part(
    kind: str,
    channels: tuple[Channel, ...],
    tensors: Mapping[str, Tensor],
    about: Mapping[str, Any],
    part: str,
) -> Examples:
    names, labels = tuple(_texts(about[part]["names"])), tuple(about[part]["labels"])
    inputs: tuple[Any, ...]
    if kind == TEXT:
        inputs = tuple(_texts(about[part]["inputs"]))
    else:
        lengths, values = tensors[f"{part}/lengths"].tolist(), tensors[f"{part}/values"]
        width = sum(one.width for one in channels)
        if min(lengths) < 1 or tuple(values.shape) != (sum(lengths), width) or values.dtype != torch.float64:
            raise ValueError("the series that were held out are none")
        inputs = tuple(np.split(values.numpy(), np.cumsum(lengths)[:-1]))
    if not len(inputs) == len(names) == len(labels) > 0:
        raise ValueError("what was held out has no labels")
    return Examples(kind, inputs, names, labels, channels)


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise ValueError("a list of texts holds something else")
    return values


def joined(first: Examples, second: Examples) -> Examples:
    """Both, one after the other."""
    assert first.labels is not None and second.labels is not None
    return replace(
        first,
        inputs=first.inputs + second.inputs,
        names=first.names + second.names,
        labels=first.labels + second.labels,
    )


def without_empty(examples: Examples) -> Examples:
    """Texts that hold something, with a note on those that do not. DataError if none does."""
    if examples.kind != TEXT:
        return examples
    held = [row for row, text in enumerate(examples.inputs) if text.strip()]
    if not held:
        raise DataError(f"all {len(examples):,} texts are empty")
    gone = len(examples) - len(held)
    if not gone:
        return examples
    first = next(row for row, text in enumerate(examples.inputs) if not text.strip())
    note = f"{gone:,} empty texts were left out of the training, the first is number {examples.names[first]}"
    return replace(examples.select(held), notes=(*examples.notes, note))
