"""Training a recogniser beside plain loops of torch: CPU seconds for an epoch.

    python benchmarks/speech.py [DATA] [--cell lstm] [--hidden-size 192] [--batches 4] [--rounds 5]

DATA is a table or a folder as `cellwise speech fit` takes it; without it, the bundled digits. Three sides take turns
on the same batches, with one thread, so that what else the machine does weighs on all:

    plain     what one writes with torch: a packed bidirectional network of two layers over frames of 10 ms
    reduced   the same behind the features and the reduction of ours: torch's layer in the place of ours
    ours      the objective of `SpeechRecognizer`, with its augmentation

Each makes features, the CTC loss, its gradient and a step of AdamW. Printed are the medians of the rounds, for the
whole data, and the medians of the ratios within a round. Before any is timed, `reduced` and ours give the same loss on
the same weights.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from cellwise.tasks import SpeechRecognizer
from cellwise.tasks.speech.datasets import digits
from cellwise.tasks.speech.features import LogMel
from cellwise.tasks.speech.manifest import read_listed
from cellwise.tasks.speech.objective import SpeechBatch, SpeechObjective, mean_loss, padded

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU}


class Plain(nn.Module):
    """Packed torch over all frames."""

    def __init__(self, cell: str, hidden_size: int, inner: Any) -> None:
        super().__init__()
        self.mean, self.scale = inner.mean, inner.scale
        self.layer = LAYERS[cell](len(inner.mean), hidden_size, 2, bidirectional=True)
        self.decode = nn.Linear(2 * hidden_size, inner.decode.out_features)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.decode(packed(self.layer, features, lengths)).log_softmax(-1), lengths


class Reduced(nn.Module):
    """The network of ours, with layers of torch in the place of its recurrent ones."""

    def __init__(self, cell: str, inner: Any) -> None:
        super().__init__()
        self.mean, self.scale, self.inner = inner.mean, inner.scale, copy.deepcopy(inner)
        for number, layer in enumerate(inner.layers):
            theirs = LAYERS[cell](layer.input_size, layer.hidden_size, bidirectional=True)
            theirs.load_state_dict(layer.state_dict())
            self.inner.layers[number] = theirs

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, steps = self.inner.stacked(features), self.inner.steps(lengths)
        for layer, norm in zip(self.inner.layers, self.inner.norms, strict=True):
            x = norm(packed(layer, x, steps))
        return self.inner.scores(x), steps


def packed(layer: nn.Module, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The output of a layer of torch on rows of these lengths."""
    output, _ = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
    return pad_packed_sequence(output)[0]


def plain_loss(
    model: Plain | Reduced, objective: SpeechObjective, mel: LogMel
) -> Callable[[SpeechBatch], torch.Tensor]:
    """The loss of a batch without augmentation."""

    def loss(batch: SpeechBatch) -> torch.Tensor:
        rows = [(mel(objective._clips.sound(row)) - model.mean) * model.scale for row in batch.rows]
        scores, steps = model(*padded(rows))
        return mean_loss(scores, steps, [objective._targets[row] for row in batch.rows])

    return loss


def epoch(loss: Callable[[SpeechBatch], torch.Tensor], model: nn.Module, batches: list[SpeechBatch]) -> Any:
    """A function that trains on the batches, and returns the CPU seconds that it took."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def run() -> float:
        started = time.process_time()
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            loss(batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return time.process_time() - started

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?")
    parser.add_argument("--cell", choices=tuple(LAYERS), default="gru")
    parser.add_argument("--hidden-size", type=int, default=SpeechRecognizer().hidden_size)
    parser.add_argument("--batches", type=int, default=4, help="batches of a round, drawn over all lengths")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    listed = digits() if options.data is None else read_listed(options.data)
    model = SpeechRecognizer(options.cell, hidden_size=options.hidden_size, dropout=0.0)
    known, training = model._read(listed)
    network, mel = model._new_network(known), LogMel(known.rate, model.bands)
    objective = model._objective(network, known, training)
    every = list(objective.batches(2))
    batches = every[: options.batches]
    share = sum(_sound(objective, b) for b in batches) / sum(_sound(objective, b) for b in every)

    reduced, plain = Reduced(options.cell, network), Plain(options.cell, options.hidden_size, network)
    _compare(objective, network, reduced, mel, batches[0])

    sides = {
        "plain": epoch(plain_loss(plain, objective, mel), plain, batches),
        "reduced": epoch(plain_loss(reduced, objective, mel), reduced, batches),
        "ours": epoch(objective.loss, network, batches),
    }
    for run in sides.values():
        run()
    rounds = [{name: run() / share for name, run in sides.items()} for _ in range(options.rounds)]
    minutes = training.clips.seconds / 60
    print(
        f"{options.cell} of {options.hidden_size}, torch {torch.__version__}, {minutes:.1f} minutes of speech"
    )
    for name in sides:
        seconds = median(each[name] for each in rounds)
        ratio = median(each[name] / each["ours"] for each in rounds)
        print(f"{name:<8} {seconds:7.2f} CPU s an epoch   {ratio:5.2f} times ours")


def _sound(objective: SpeechObjective, batch: SpeechBatch) -> float:
    return float(objective._lengths[list(batch.rows)].sum())


def _compare(
    objective: SpeechObjective, network: Any, reduced: Reduced, mel: LogMel, batch: SpeechBatch
) -> None:
    """SystemExit unless both give the same loss on the same weights."""
    with torch.no_grad():
        theirs = float(plain_loss(reduced, objective, mel)(batch))
        rows = [network.normalized(mel(objective._clips.sound(row))) for row in batch.rows]
        features, lengths = padded(rows)
        targets = [objective._targets[row] for row in batch.rows]
        own = float(mean_loss(network(features, lengths), network.steps(lengths), targets))
    if abs(theirs - own) > 1e-4 * abs(theirs):
        raise SystemExit(f"the losses differ: {theirs} and {own}")


if __name__ == "__main__":
    main()
