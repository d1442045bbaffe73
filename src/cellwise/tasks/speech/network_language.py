"""A trained language model, a run of `cellwise text`, in the search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.errors import OptionError, TaskError
from cellwise.tasks.registry import find_task
from cellwise.tasks.speech.language import Language

__all__ = ["NetworkLanguage", "load_language"]

NEWLINE = "\n"  # before the first character of a sentence, and behind the last
UNKNOWN = 0  # the id of a language model for what it has not seen


class NetworkLanguage(Language):
    """What a network over characters or bytes says of the next one, where only those that can be said may come.

    network: with `embed`, `layer` and `decode`, as that of a `LanguageModel`. ids: of its symbols, by name. symbols:
    those of each character, and of the newline."""

    def __init__(self, network: Any, symbols: dict[str, tuple[int, ...]]) -> None:
        self._network, self._symbols = network, symbols
        (self._newline,) = symbols[NEWLINE]
        used = sorted({each for own in symbols.values() for each in own})
        self._columns = {symbol: column for column, symbol in enumerate(used)}
        self._used = torch.tensor(used)
        self._first = _Node(None, self._newline)
        self._compute([self._first])

    @property
    def start(self) -> _Node:
        """Behind the end of a sentence."""
        return self._first.again()

    def following(self, context: _Node, character: str) -> tuple[float, _Node]:
        """See `Language`."""
        total = 0.0
        for symbol in self._symbols[character]:
            total += self._chance(context, symbol)
            context = context.next(symbol)
        return total, context

    def end(self, context: _Node) -> float:
        """See `Language`."""
        return self._chance(context, self._newline)

    def prepare(self, contexts: Sequence[_Node]) -> None:
        """Compute the states behind these contexts, those whose own beginning is known together."""
        waiting = [each for each in dict.fromkeys(contexts) if each.chances is None]
        ready = [each for each in waiting if each.before is not None and each.before.chances is not None]
        if ready:
            self._compute(ready)

    def _chance(self, node: _Node, symbol: int) -> float:
        if node.chances is None:
            self._compute_alone(node)
        assert node.chances is not None
        return float(node.chances[self._columns[symbol]])

    def _compute_alone(self, node: _Node) -> None:
        missing = []
        at: _Node | None = node
        while at is not None and at.chances is None:
            missing.append(at)
            at = at.before
        for each in reversed(missing):
            self._compute([each])

    def _compute(self, nodes: Sequence[_Node]) -> None:
        """One step of the network for several contexts at once."""
        befores = [each.before.state for each in nodes if each.before is not None]
        with torch.no_grad():
            embedded = self._network.embed(torch.tensor([[each.symbol for each in nodes]]))
            output, state = self._network.layer(embedded, _joined(befores) if befores else None)
            logits = self._network.decode(output)[0].index_select(1, self._used)
            chances = logits.double().log_softmax(1).numpy()
        for row, node in enumerate(nodes):
            node.state, node.chances = _row(state, row), chances[row]


class _Node:
    """A beginning of a sentence: its last symbol, behind another beginning. state, chances: once they are computed."""

    __slots__ = ("before", "chances", "later", "state", "symbol")

    def __init__(self, before: _Node | None, symbol: int) -> None:
        self.before, self.symbol = before, symbol
        self.state: Any = None
        self.chances: np.ndarray | None = None
        self.later: dict[int, _Node] = {}

    def next(self, symbol: int) -> _Node:
        """This beginning with a further symbol; always the same one."""
        made = self.later.get(symbol)
        if made is None:
            made = self.later[symbol] = _Node(self, symbol)
        return made

    def again(self) -> _Node:
        """The same, without what was said later, which is forgotten with it."""
        made = _Node(self.before, self.symbol)
        made.state, made.chances = self.state, self.chances
        return made


def _joined(states: Sequence[Any]) -> Any:
    """States of one row each, (L, 1, H) or tuples of them, as one of several rows."""
    if isinstance(states[0], Tensor):
        return torch.cat(list(states), dim=1)
    return tuple(torch.cat(parts, dim=1) for parts in zip(*states, strict=True))


def _row(state: Any, row: int) -> Any:
    if isinstance(state, Tensor):
        return state[:, row : row + 1]
    return tuple(each[:, row : row + 1] for each in state)


def load_language(folder: Path, characters: Iterable[str]) -> tuple[NetworkLanguage, tuple[str, ...]]:
    """The language model in a run folder of `cellwise text`, for a recogniser of these characters, and notes on it.

    RunFolderError for a folder that is none, OptionError for a model that the search cannot use."""
    task = find_task("text")
    if task is None:
        raise TaskError("this installation has no task `text`, so there is no language model to load")
    model = task.load_estimator().load(folder)
    if model.unit == "subwords":
        raise OptionError(
            f"the language model in {folder} reads subwords; the search goes by characters: train one with `cellwise "
            "text fit --unit characters` or `--unit bytes`"
        )
    numbers = {token: number for number, token in enumerate(model.tokens_)}
    symbols = {each: _symbols(each, model.unit, numbers) for each in {*characters, NEWLINE}}
    if symbols[NEWLINE] == (UNKNOWN,):
        raise OptionError(
            f"the language model in {folder} has learned a text of one line; train it on one sentence a line"
        )
    strange = sorted(each for each, own in symbols.items() if own == (UNKNOWN,))
    made = NetworkLanguage(model.network_, symbols)
    if not strange:
        return made, ()
    return made, (
        f"the language model in {folder} has never seen {' '.join(map(repr, strange[:10]))}; its text should be "
        "written as transcripts are normalised",
    )


def _symbols(character: str, unit: str, numbers: dict[str, int]) -> tuple[int, ...]:
    """The ids of a character; of a byte it is one more than its value."""
    if unit == "bytes":
        return tuple(byte + 1 for byte in character.encode())
    return (numbers.get(character, UNKNOWN),)
