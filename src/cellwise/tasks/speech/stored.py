"""What a run folder holds of the data, and back, with nothing in it trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate

import torch
from torch import Tensor

from cellwise.tasks.speech.data import Clips, Known
from cellwise.tasks.speech.transcripts import Alphabet

__all__ = ["rebuild", "stored"]

MOST_HELD = 900  # seconds of the recordings that were held out: those that a report made later is of


def stored(data: Known) -> dict[str, Tensor]:
    """Tensors by name; of what was held out at most the first 15 minutes."""
    held = None if data.held is None else _first(data.held)
    words = {
        "rate": data.rate,
        "characters": data.alphabet.characters,
        "counts": data.alphabet.counts,
        "blank": data.blank,
        "notes": data.notes,
        "held": None if held is None else {"names": held.names, "texts": held.texts},
    }
    text = json.dumps(words, ensure_ascii=False).encode("utf8", "surrogatepass")
    tensors = {
        "words": torch.frombuffer(bytearray(text), dtype=torch.uint8),
        "mean": data.mean,
        "scale": data.scale,
        "language": torch.from_numpy(data.language).to(torch.int32),
    }
    if held is not None:
        tensors["held"] = torch.cat(held.samples)
        tensors["held_lengths"] = torch.tensor([len(each) for each in held.samples])
    return tensors


def _first(clips: Clips) -> Clips:
    ends = accumulate(map(len, clips.samples))
    return clips.select([row for row, end in enumerate(ends) if row == 0 or end <= MOST_HELD * clips.rate])


def rebuild(tensors: Mapping[str, Tensor], fingerprint: str, bands: int) -> Known:
    """The inverse. Raises ValueError, KeyError or TypeError for what no recogniser wrote."""
    words = json.loads(tensors["words"].numpy().tobytes().decode("utf8", "surrogatepass"))
    rate, blank = words["rate"], float(words["blank"])
    characters, counts = tuple(words["characters"]), tuple(words["counts"])
    if type(rate) is not int or not 4_000 <= rate <= 48_000 or not 0 < blank < 1:
        raise ValueError("its rate, or its share of blanks, cannot be")
    if not characters or len(set(characters)) != len(characters):
        raise ValueError("it has no alphabet")
    if not all(isinstance(each, str) and len(each) == 1 for each in characters):
        raise ValueError("a character is none")
    if len(counts) != len(characters) or not all(type(each) is int and each > 0 for each in counts):
        raise ValueError("its characters have no counts")
    mean, scale = tensors["mean"], tensors["scale"]
    if mean.shape != (bands,) or scale.shape != (bands,) or not bool((mean + scale).isfinite().all()):
        raise ValueError("its features have no mean and scale")
    language = tensors["language"].long()
    if (
        language.ndim != 1
        or not len(language)
        or int(language.min()) < 0
        or int(language.max()) > len(characters)
    ):
        raise ValueError("its language model has other characters")
    notes = tuple(str(note) for note in words["notes"])
    held = None if words["held"] is None else _held(tensors, words["held"], rate)
    alphabet = Alphabet(characters, counts)
    return Known(rate, alphabet, mean, scale, blank, language.numpy(), held, fingerprint, notes)


def _held(tensors: Mapping[str, Tensor], words: Mapping[str, list[str]], rate: int) -> Clips:
    samples, lengths = tensors["held"], tensors["held_lengths"].tolist()
    names, texts = tuple(map(str, words["names"])), tuple(map(str, words["texts"]))
    if samples.dtype != torch.int16 or samples.ndim != 1 or not len(names) == len(texts) == len(lengths):
        raise ValueError("the recordings that were held out are not whole")
    if not all(type(each) is int and each > 0 for each in lengths) or sum(lengths) != len(samples):
        raise ValueError("the recordings that were held out have other lengths")
    return Clips(samples.split(lengths), names, texts, rate)
