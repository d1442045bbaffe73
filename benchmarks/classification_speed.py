"""An epoch of training of a classifier's network beside the plain torch loop that people write.

    python benchmarks/classification_speed.py [--pairs 5] [--few 2000]

Both have an embedding, a GRU of 64 in two directions, the mean over the steps of a sequence, and a linear layer;
batches of 32 and AdamW. torch's goes through the sequences in a random order with pack_padded_sequence; ours sorts like
lengths together, as the command does, and hands the lengths to the kernel. Turns alternate within one process. Printed
are the median processor time of each and the median ratio of the pairs, torch / ours, with its range. Losses are
compared first: after the same batches from equal weights they agree.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from cellwise import cells
from cellwise.tasks.classify.data import Classes
from cellwise.tasks.classify.datasets import japanese_vowels, movie_sentences
from cellwise.tasks.classify.encoders import SeriesEncoder, TextEncoder
from cellwise.tasks.classify.network import Batch, NetworkConfig, SequenceNetwork
from cellwise.tasks.classify.objective import ClassObjective, Encoded, Training

HIDDEN, EMBEDDING, BATCH = 64, 64, 32


class Packed(nn.Module):
    """The plain torch network, with the weights of ours."""

    def __init__(self, own: SequenceNetwork) -> None:
        super().__init__()
        self.embed = copy.deepcopy(own.embed)
        self.layer = nn.GRU(own.config.inputs, HIDDEN, bidirectional=True)
        self.layer.load_state_dict(own.layer.state_dict())
        self.decode = copy.deepcopy(own.decode)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, C)."""
        steps = inputs if self.embed is None else self.embed(inputs)
        packed = nn.utils.rnn.pack_padded_sequence(steps, lengths, enforce_sorted=False)
        output, _ = nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0])
        return self.decode(output.sum(0) / lengths[:, None])


def prepared(name: str, few: int) -> tuple[Encoded, SequenceNetwork]:
    """Encoded training sequences of a bundled set, and our network."""
    train = {"japanese-vowels": japanese_vowels, "movie-sentences": movie_sentences}[name]()[0]
    train = train.select(np.random.default_rng(0).permutation(len(train))[:few])
    is_text = train.kind == "text"
    encoder = TextEncoder.of(train, "words", 2, 2000, 0) if is_text else SeriesEncoder.of(train)
    classes = Classes.of(train.labels)
    tokens = len(encoder) if isinstance(encoder, TextEncoder) else 0
    width = EMBEDDING if is_text else encoder.width
    torch.manual_seed(0)
    config = NetworkConfig(cells.get("gru"), tokens, width, len(classes), HIDDEN, 1, 2, "mean", 0.0)
    targets = torch.from_numpy(classes.encode(train, ""))
    return Encoded([encoder.encode(each) for each in train.inputs], targets), SequenceNetwork(config)


def epoch(network: nn.Module, batches: Iterable[Batch]) -> float:
    """Train on batches; the loss of the last."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    loss = torch.zeros(())
    for batch in batches:
        loss = nn.functional.cross_entropy(network(batch.inputs, batch.lengths), batch.targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return float(loss.detach())


def turn(own: SequenceNetwork, data: Encoded, objective: ClassObjective, number: int) -> tuple[float, float]:
    """Processor time of an epoch of the plain loop and of ours, from the same weights."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(number)).split(BATCH)
    passes = objective.steps // len(order)
    theirs, ours = Packed(own), copy.deepcopy(own)
    began = time.process_time()
    epoch(theirs, (data.batch(rows) for _ in range(passes) for rows in order))
    between = time.process_time()
    epoch(ours, objective.batches(number))
    return between - began, time.process_time() - between


def main() -> None:
    """Print a line for each set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--few", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("japanese-vowels", "movie-sentences"):
        data, own = prepared(name, options.few)
        objective = ClassObjective(own, Training(data, None), batch_size=BATCH, seed=0, augment=0.0)
        shuffled = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).split(BATCH)
        same = [data.batch(rows) for rows in shuffled[:20]]
        losses = [epoch(copy.deepcopy(own), same), epoch(Packed(own), same)]
        assert abs(losses[0] - losses[1]) < 1e-3 * losses[1], losses
        turns = [turn(own, data, objective, number) for number in range(options.pairs + 1)]
        ratios = [plain / ours for plain, ours in turns[1:]]  # the first makes kernels
        plain, ours = (float(np.median([turn[side] for turn in turns[1:]])) for side in (0, 1))
        print(
            f"{name:16} torch {plain:.2f} s, ours {ours:.2f} s: {np.median(ratios):.2f} times as fast "
            f"({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
