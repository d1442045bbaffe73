"""What a translator knows besides weights, and how a run folder keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cellwise.tasks.translate.batches import Languages
from cellwise.tasks.translate.pairs import Parts, TextPairs, as_pairs
from cellwise.tasks.translate.vocabulary import Vocabulary

__all__ = ["TranslateData", "fingerprint_of", "rebuilt", "stored"]


@dataclass(frozen=True, eq=False)
class TranslateData:
    """What predictions need besides weights, and what the report measures on.

    ratio: pieces of a target to a piece of its source, of the training pairs."""

    languages: Languages
    ratio: float
    held_out: TextPairs | None
    is_test: bool
    left_out: int
    fingerprint: str


def stored(data: TranslateData) -> Tensor:
    """The data as bytes of JSON (N,) uint8."""
    kept = {
        "source": data.languages.source.stored(),
        "target": None if data.languages.are_joint else data.languages.target.stored(),
        "copies": data.languages.copies,
        "monotone": data.languages.monotone,
        "ratio": data.ratio,
        "left_out": data.left_out,
        "held_out": None if data.held_out is None else [data.held_out.sources, data.held_out.targets],
        "is_test": data.is_test,
    }
    text = json.dumps(kept, ensure_ascii=False).encode("utf8", "surrogatepass")
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def fingerprint_of(parts: Parts) -> str:
    """A digest of all pairs."""
    rows = [
        None if each is None else [each.sources, each.targets]
        for each in (parts.training, parts.validation, parts.test)
    ]
    return hashlib.sha256(json.dumps(rows).encode("ascii")).hexdigest()


def rebuilt(tensors: Mapping[str, Tensor], fingerprint: str) -> TranslateData:
    """The inverse of `stored`. Raises ValueError, KeyError or TypeError for what no translator wrote."""
    kept = json.loads(tensors["text"].numpy().tobytes().decode("utf8", "surrogatepass"))
    source = Vocabulary.restored(kept["source"])
    target = source if kept["target"] is None else Vocabulary.restored(kept["target"])
    ratio, left_out = kept["ratio"], kept["left_out"]
    if type(ratio) is not float or not 0 < ratio < 1e6 or type(left_out) is not int:
        raise ValueError("the ratio of lengths is none")
    held_out = None
    if kept["held_out"] is not None:
        sources, targets = kept["held_out"]
        held_out = as_pairs(sources, targets, "measuring")
    languages = Languages(source, target, bool(kept["copies"]), bool(kept.get("monotone", False)))
    return TranslateData(languages, ratio, held_out, bool(kept["is_test"]), left_out, fingerprint)
