"""Random configurations of torch's recurrent layers, each beside ours with the same weights."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import cellwise
from cellwise.testing import Arguments

CLASSES: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "RNN": (nn.RNN, cellwise.RNN),
    "LSTM": (nn.LSTM, cellwise.LSTM),
    "GRU": (nn.GRU, cellwise.GRU),
}
CELLS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "RNNCell": (nn.RNNCell, cellwise.RNNCell),
    "LSTMCell": (nn.LSTMCell, cellwise.LSTMCell),
    "GRUCell": (nn.GRUCell, cellwise.GRUCell),
}
FORMS = ("dense", "dense", "unbatched", "packed", "lengths")


@dataclass(frozen=True)
class Configuration:
    """A layer's constructor arguments, the sizes of a call, and the form in which the batch is given."""

    kind: str
    options: tuple[tuple[str, Any], ...]
    steps: int
    batch: int
    form: str
    initial: bool
    seed: int

    def __str__(self) -> str:
        shown = "-".join(f"{name}={value}" for name, value in self.options if value not in (False, 0, "tanh"))
        return f"{self.seed:03}-{self.kind}-T{self.steps}-B{self.batch}-{self.form}-{shown}".replace(
            "_size", ""
        )

    def torch_layer(self, dtype: torch.dtype) -> nn.Module:
        torch.manual_seed(self.seed)
        return CLASSES[self.kind][0](**dict(self.options)).to(dtype)

    def our_layer(self, dtype: torch.dtype, backend: str) -> nn.Module:
        layer = CLASSES[self.kind][1](**dict(self.options), backend=backend).to(dtype)
        layer.load_state_dict(self.torch_layer(dtype).state_dict(), strict=True)
        return layer

    def arguments(self, dtype: torch.dtype) -> Arguments:
        """With lengths where the batch is ragged; torch's layer is given them packed."""
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator).to(dtype)

        options = dict(self.options)
        leading = [self.batch, self.steps] if options["batch_first"] else [self.steps, self.batch]
        rows = options["num_layers"] * (2 if options["bidirectional"] else 1)
        inner = [rows, self.batch]
        if self.form == "unbatched":
            leading, inner = [self.steps], [rows]
        h = draw(*inner, options.get("proj_size") or options["hidden_size"])
        state = (h, draw(*inner, options["hidden_size"])) if self.kind == "LSTM" else h
        lengths = torch.randint(1, self.steps + 1, (self.batch,), generator=generator)
        lengths[torch.randint(self.batch, (), generator=generator)] = self.steps
        ragged = self.form in ("packed", "lengths")
        x = draw(*leading, options["input_size"])
        return Arguments(x, state if self.initial else None, lengths if ragged else None, None, ragged)


def configuration(seed: int) -> Configuration:
    draw = random.Random(seed)
    kind = draw.choice(("RNN", "LSTM", "GRU"))
    hidden = draw.choice((1, 2, 3, 5, 8, 17))
    options = {
        "input_size": draw.choice((1, 2, 3, 7, 16)),
        "hidden_size": hidden,
        "num_layers": draw.choice((1, 1, 2, 3)),
        "bias": draw.random() < 0.8,
        "batch_first": draw.random() < 0.5,
        "bidirectional": draw.random() < 0.4,
    }
    if kind == "RNN":
        options["nonlinearity"] = draw.choice(("tanh", "relu"))
    if kind == "LSTM" and hidden > 1 and draw.random() < 0.4:
        options["proj_size"] = draw.randint(1, hidden - 1)
    return Configuration(
        kind,
        tuple(options.items()),
        steps=draw.choice((1, 2, 3, 7)),
        batch=draw.choice((1, 2, 5)),
        form=draw.choice(FORMS),
        initial=draw.random() < 0.6,
        seed=seed,
    )


CONFIGURATIONS = tuple(configuration(seed) for seed in range(400))
