"""What a run folder keeps of a tagger besides weights, and back, with nothing in the folder trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cellwise.tasks.tag.baseline import MostFrequentTag
from cellwise.tasks.tag.conll import Sentences
from cellwise.tasks.tag.data import TagPlan, as_sentences
from cellwise.tasks.tag.linear import LinearTagger
from cellwise.tasks.tag.schemes import SCHEMES
from cellwise.tasks.tag.tagging import bonus_for
from cellwise.tasks.tag.vocabulary import Lexicon

__all__ = ["BONUS", "TagData", "restored", "restored_bonus", "stored"]

BONUS = "bonus"  # its name in a file


@dataclass(frozen=True, eq=False)
class TagData:
    """What predictions need besides weights, and what the report measures on."""

    lexicon: Lexicon
    plan: TagPlan
    baseline: MostFrequentTag
    linear: LinearTagger | None
    held_out: Sentences | None
    is_test: bool
    fingerprint: str


def stored(data: TagData) -> dict[str, torch.Tensor]:
    """All of it, as tensors."""
    kept = {
        "words": data.lexicon.words,
        "letters": data.lexicon.letters,
        "tags": data.lexicon.tags,
        "least": data.lexicon.least,
        "frequent": [data.baseline.tags[word] for word in data.lexicon.words],
        "otherwise": data.baseline.otherwise,
        "scheme": data.plan.scheme,
        "held_out": None if data.held_out is None else [data.held_out.words, data.held_out.tags],
        "is_test": data.is_test,
    }
    text = json.dumps(kept, ensure_ascii=False).encode("utf8", "surrogatepass")
    return {
        "text": torch.frombuffer(bytearray(text), dtype=torch.uint8),
        "counts": torch.tensor(data.lexicon.counts),
        **({} if data.linear is None else data.linear.tensors()),
    }


def restored(tensors: Mapping[str, torch.Tensor], fingerprint: str) -> TagData:
    """The inverse. Raises ValueError, KeyError or TypeError for what no tagger wrote."""
    kept = json.loads(tensors["text"].numpy().tobytes().decode("utf8", "surrogatepass"))
    lists = {name: tuple(kept[name]) for name in ("words", "letters", "tags", "frequent")}
    counts = tuple(tensors["counts"].tolist())
    scheme, otherwise = kept["scheme"], kept["otherwise"]
    if not all(isinstance(each, str) for values in lists.values() for each in values) or not isinstance(
        otherwise, str
    ):
        raise ValueError("a word, letter or tag is none")
    if (
        any(len(set(lists[name])) != len(lists[name]) for name in ("words", "letters", "tags"))
        or len(lists["tags"]) < 2
    ):
        raise ValueError("a word, letter or tag stands there twice, or there are too few tags")
    if not all(isinstance(each, int) for each in counts) or not len(counts) == len(lists["words"]) == len(
        lists["frequent"]
    ):
        raise ValueError("its words have no counts")
    if scheme is not None and scheme not in SCHEMES:
        raise ValueError(f"there is no scheme {scheme!r:.40}")
    least = kept.get("least", 1)  # runs of 0.3.0 have an embedding of every word
    if type(least) is not int or least < 1:
        raise ValueError("it has no least count of a word")
    lexicon = Lexicon(lists["words"], counts, lists["letters"], lists["tags"], least)
    frequent = MostFrequentTag(dict(zip(lists["words"], lists["frequent"], strict=True)), otherwise)
    held_out = None
    if kept["held_out"] is not None:
        words, tags = kept["held_out"]
        held_out = as_sentences(words, tags, what="measuring")
    linear = LinearTagger.restored(tensors, lexicon.tags, is_bioes=scheme is not None)
    return TagData(lexicon, TagPlan(scheme), frequent, linear, held_out, bool(kept["is_test"]), fingerprint)


def restored_bonus(tensors: Mapping[str, torch.Tensor]) -> float:
    """The bonus of entities. Raises ValueError or KeyError for what no tagger wrote."""
    found = tensors[BONUS]
    if found.shape != () or found.dtype != torch.float64 or not 0 <= float(found) <= bonus_for(0.0):
        raise ValueError("the bonus of entities is none")
    return float(found)
