"""The page of a model of characters: a passage, what it expects after each character, and why."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cellwise import cells
from cellwise._version import __version__
from cellwise.tasks.text.model import CharacterModel
from cellwise.tasks.text.units import UNKNOWN
from cellwise.tasks.training.loop import torch_threads
from cellwise.understand.trace.connectivity import sensitivity
from cellwise.understand.trace.errors import TraceError
from cellwise.understand.trace.page import Dependence, Page, TracedLayer, reach
from cellwise.understand.trace.recording import Recording, record

__all__ = ["MOST_STEPS", "characters_page"]

MOST_STEPS = 2000
SUGGESTIONS = 6
MEANING = (
    "Shaded by the norm of the gradient of the explained character's score (its logit) with respect to each character "
    "read. The table gives each one's share of the whole."
)


def characters_page(model: CharacterModel, text: str, source: str) -> Page:
    """Trace a model over a text of 2 to 2000 characters; `source` says where the text is from.

    Raises:
        TraceError: the text is too short or too long, or the model knows none of its characters.
    """
    text = text.replace("\r\n", "\n")
    unknown = _check(model, text, source)
    places = torch.tensor([max(0, model.characters_.find(character)) for character in text])
    recording, chances, values = _trace(model, places)
    several = len(recording.layers) > 1
    cell = cells.get(model.cell)
    near, far = (round(reach(values[0], share)) for share in (0.5, 0.9))
    return Page(
        kind="characters",
        title=f"Inside the {cell.name.upper()} that reads a text",
        subtitle=_subtitle(model, source, len(text), chances, places),
        equations=cell.equations,
        cell=cell.name.upper(),
        labels=list(text),
        layers=[TracedLayer(f"layer {n}" * several, each) for n, each in enumerate(recording.layers, 1)],
        targets=["the character it expects", "the character that came"],
        dependences=[Dependence("what was read", MEANING, values)],
        reader={"suggestions": _suggestions(model, chances), "chances": _chances(chances, places)},
        start=_interesting(text, chances, places),
        notes=[
            f"Half of what a prediction depends on lies, on average, within the last {near} characters, nine tenths "
            f"within the last {far}.",
            *_unknown_note(unknown),
        ],
        footer=_footer(model),
    )


def _check(model: CharacterModel, text: str, source: str) -> dict[str, int]:
    """The characters of a text that the model does not know. Raises TraceError if there is nothing to trace."""
    if model.unit == "subwords":
        raise TraceError(
            "trace looks at single characters, and this model reads subwords; "
            "cellwise text score RUN FILE --html PAGE shades those by how much they surprise it"
        )
    if not 2 <= len(text) <= MOST_STEPS:
        raise TraceError(f"a trace shows 2 to {MOST_STEPS:,} characters; this text has {len(text):,}")
    unknown = model.unknown(text)
    if sum(unknown.values()) == len(text):
        known = _shown(model.characters_[1:])
        raise TraceError(f"the model knows none of the characters of {source}; it knows {known}")
    return unknown


def _trace(model: CharacterModel, places: Tensor) -> tuple[Recording, Tensor, Tensor]:
    """The recording, the chances (T, V) of the next characters, and the dependences (2, T, T) of the scores of the
    expected one and of the one that came."""
    network = model.network_
    with torch.no_grad(), torch_threads(1):
        recording = record(network.layer, network.embed(places))
        logits = network.decode(recording.output)
        expected = logits.argmax(-1)
        came = torch.cat([places[1:], expected[-1:]])  # nothing came after the last character
        seeds = network.decode.weight[torch.stack([expected, came])]
        return recording, logits.double().softmax(-1), sensitivity(recording, seeds)


def _subtitle(model: CharacterModel, source: str, length: int, chances: Tensor, places: Tensor) -> str:
    cross_entropy = -chances[:-1].gather(1, places[1:, None]).clamp(min=1e-300).log2().mean()
    right = float((chances[:-1].argmax(-1) == places[1:]).double().mean())
    units = model.network_.layer.hidden_size
    return (
        f"{length:,} characters of {source}, which a network of {units} units reads one by one. It is "
        f"right about the next one {right:.0%} of the time and needs {float(cross_entropy):.2f} bits per character."
    )


def _suggestions(model: CharacterModel, chances: Tensor) -> list[list[Any]]:
    """For each step the likeliest characters, as one text, and their chances."""
    top = chances.topk(min(SUGGESTIONS, chances.shape[1]), dim=-1)
    return [
        ["".join(model.characters_[place] for place in row), [round(chance, 4) for chance in values]]
        for row, values in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]


def _chances(chances: Tensor, places: Tensor) -> list[float]:
    """The chance that each step gave to the character that came."""
    return [round(value, 4) for value in chances[:-1].gather(1, places[1:, None])[:, 0].tolist()]


def _interesting(text: str, chances: Tensor, places: Tensor) -> int:
    """A step to open with: the surest right prediction of a letter well inside a word, once something was read."""
    right = chances[:-1].gather(1, places[1:, None])[:, 0].tolist()
    begin = min(len(right) // 3, 60)
    inside = [t for t in range(begin, len(right)) if t >= 3 and text[t - 3 : t + 2].isalpha()]
    return max(inside or range(len(right)), key=right.__getitem__)


def _unknown_note(unknown: dict[str, int]) -> list[str]:
    if not unknown:
        return []
    total = sum(unknown.values())
    return [
        f"{total:,} characters of the text do not occur in what the model was trained on ({_shown(''.join(unknown))}); "
        f"it reads each of them as the one sign {UNKNOWN} that it never learned."
    ]


def _shown(characters: str, most: int = 12) -> str:
    some = " ".join(repr(each)[1:-1] for each in characters[:most])
    return some + (" …" if len(characters) > most else "")


def _footer(model: CharacterModel) -> str:
    weights = sum(parameter.numel() for parameter in model.network_.parameters())
    return f"cellwise {__version__}, torch {torch.__version__}; {weights:,} weights, seed {model.seed}."
