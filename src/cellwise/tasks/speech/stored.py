"""What a run folder holds of the data, and back, with nothing in it trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate, groupby

import torch
from torch import Tensor

from cellwise.tasks.data.subwords import LONGEST as LONGEST_UNIT
from cellwise.tasks.data.subwords import Subwords
from cellwise.tasks.speech.data import Clips, Known
from cellwise.tasks.speech.transcripts import Alphabet

__all__ = ["rebuild", "stored"]

MOST_HELD = 900  # seconds of the recordings that were held out: those that a report made later is of


def stored(data: Known) -> dict[str, Tensor]:
    """Tensors by name; of what was held out at most the first 15 minutes."""
    held = None if data.held is None else _first(data.held)
    words = {
        "rate": data.rate,
        "characters": data.alphabet.units,
        "subwords": None if data.alphabet.subwords is None else data.alphabet.subwords.to_json(),
        "counts": data.alphabet.counts,
        "blank": data.blank,
        "notes": data.notes,
        "is_plain": data.is_plain,
        "held": None if held is None else {"names": held.names, "texts": held.texts},
    }
    tensors = {
        "words": _bytes(json.dumps(words, ensure_ascii=False)),
        "mean": data.mean,
        "scale": data.scale,
        "sentences": _bytes("\n".join(data.sentences)),
    }
    if held is not None:
        tensors["held"] = torch.cat(held.samples)
        tensors["held_lengths"] = torch.tensor([len(each) for each in held.samples])
    return tensors


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode("utf8", "surrogatepass")), dtype=torch.uint8)


def _text(tensor: Tensor) -> str:
    return tensor.numpy().tobytes().decode("utf8", "surrogatepass")


def _first(clips: Clips) -> Clips:
    ends = accumulate(map(len, clips.samples))
    return clips.select([row for row, end in enumerate(ends) if row == 0 or end <= MOST_HELD * clips.rate])


def rebuild(tensors: Mapping[str, Tensor], fingerprint: str, bands: int) -> Known:
    """The inverse. Raises ValueError, KeyError or TypeError for what no recogniser wrote."""
    words = json.loads(_text(tensors["words"]))
    rate, blank = words["rate"], float(words["blank"])
    units, counts = tuple(words["characters"]), tuple(words["counts"])
    if type(rate) is not int or not 4_000 <= rate <= 48_000 or not 0 < blank < 1:
        raise ValueError("its rate, or its share of blanks, cannot be")
    if not units or len(set(units)) != len(units):
        raise ValueError("it has no alphabet")
    subwords = words.get("subwords")
    longest = 1 if subwords is None else LONGEST_UNIT
    if not all(isinstance(each, str) and 1 <= len(each) <= longest for each in units):
        raise ValueError("a unit of its alphabet is none")
    if len(counts) != len(units) or not all(type(each) is int and each > 0 for each in counts):
        raise ValueError("its units have no counts")
    alphabet = Alphabet(units, counts, None if subwords is None else Subwords.from_json(subwords))
    mean, scale = tensors["mean"], tensors["scale"]
    if mean.shape != (bands,) or scale.shape != (bands,) or not bool((mean + scale).isfinite().all()):
        raise ValueError("its features have no mean and scale")
    sentences = _sentences(tensors, alphabet)
    notes = tuple(str(note) for note in words["notes"])
    held = None if words["held"] is None else _held(tensors, words["held"], rate)
    is_plain = bool(words.get("is_plain", True))  # version 0.4.0 had one kind of network, and named none
    return Known(rate, alphabet, mean, scale, blank, sentences, held, fingerprint, notes, is_plain)


def _sentences(tensors: Mapping[str, Tensor], alphabet: Alphabet) -> tuple[str, ...]:
    """What the language model learns from; version 0.4.0 kept the numbers of its characters, with zeros between."""
    if "sentences" in tensors:
        return tuple(filter(None, _text(tensors["sentences"]).split("\n")))
    numbers = tensors["language"].tolist()
    if not all(0 <= each <= len(alphabet) for each in numbers):
        raise ValueError("its language model has other characters")
    parts = (list(part) for is_text, part in groupby(numbers, key=bool) if is_text)
    return tuple(alphabet.decode(part) for part in parts)


def _held(tensors: Mapping[str, Tensor], words: Mapping[str, list[str]], rate: int) -> Clips:
    samples, lengths = tensors["held"], tensors["held_lengths"].tolist()
    names, texts = tuple(map(str, words["names"])), tuple(map(str, words["texts"]))
    if samples.dtype != torch.int16 or samples.ndim != 1 or not len(names) == len(texts) == len(lengths):
        raise ValueError("the recordings that were held out are not whole")
    if not all(type(each) is int and each > 0 for each in lengths) or sum(lengths) != len(samples):
        raise ValueError("the recordings that were held out have other lengths")
    return Clips(samples.split(lengths), names, texts, rate)
