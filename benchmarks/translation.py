"""Training a translator beside a plain loop of torch, in words of targets per CPU second.

    python benchmarks/translation.py [--hidden 128] [--seconds 4] [--rounds 5] [--words 4000] [--options]

The plain side is what one writes with torch: packed sequences, a GRU in both directions, a GRU as decoder with
attention after it (Luong et al. 2015), cross-entropy over all logits. Ours is the network of `cellwise translate`
without alignments. Both have the same sizes, the same random sentences of 10 to
30 words, 64 a batch, and AdamW. They take turns, so that what else the machine does weighs on both. Printed are the
medians of the rounds, and the median of the ratios within a round. --options: what each option costs, beside our
network without it (which then is the "plain" side).
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from turns import compare

from cellwise.tasks.translate.network import BEGIN, END, Pairs, TranslateNetwork, TranslateSizes

EMBEDDING, BATCH, SHORTEST, LONGEST = 128, 64, 10, 30


class Plain(nn.Module):
    """What one writes with torch."""

    def __init__(self, words: int, hidden: int) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(words, EMBEDDING), nn.Embedding(words, EMBEDDING)
        self.encoder = nn.GRU(EMBEDDING, hidden // 2, bidirectional=True, batch_first=True)
        self.decoder = nn.GRU(EMBEDDING, hidden, batch_first=True)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.combine = nn.Linear(2 * hidden, EMBEDDING)
        self.output = nn.Linear(EMBEDDING, words)

    def forward(self, batch: Pairs) -> Tensor:
        sources, targets = batch.sources.t(), batch.targets.t()
        packed = pack_padded_sequence(
            self.source(sources), batch.source_lengths, batch_first=True, enforce_sorted=False
        )
        memory, state = self.encoder(packed)
        memory, _ = pad_packed_sequence(memory, batch_first=True)
        before = functional.pad(targets[:, :-1], (1, 0), value=BEGIN)
        start = torch.cat([state[0], state[1]], -1)[None]
        queries, _ = self.decoder(self.target(before), start)
        scores = queries @ self.key(memory).transpose(1, 2)
        beyond = torch.arange(memory.shape[1]) >= batch.source_lengths[:, None]
        weights = scores.masked_fill(beyond[:, None], float("-inf")).softmax(-1)
        made = torch.tanh(self.combine(torch.cat([queries, weights @ memory], -1)))
        inside = torch.arange(targets.shape[1]) < batch.target_lengths[:, None]
        aims = targets.masked_fill(~inside, -100)
        return functional.cross_entropy(self.output(made).flatten(0, 1), aims.flatten(), label_smoothing=0.1)


def batches(words: int, count: int) -> list[Pairs]:
    """Random sentences."""
    generator = torch.Generator().manual_seed(0)

    def draw() -> tuple[Tensor, Tensor]:
        lengths = torch.randint(SHORTEST, LONGEST + 1, (BATCH,), generator=generator)
        ids = torch.randint(END + 1, words, (int(lengths.max()), BATCH), generator=generator)
        return ids, lengths

    made = []
    for _ in range(count):
        (sources, ends), (targets, stops) = draw(), draw()
        made.append(Pairs(sources, ends, torch.zeros_like(sources), targets, stops))
    return made


def trainer(model: nn.Module, loss: Callable[[Pairs], Tensor], given: list[Pairs]) -> Callable[[], int]:
    """A step for each batch; returns how many words of targets were trained on."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def run() -> int:
        for batch in given:
            optimizer.zero_grad(set_to_none=True)
            loss(batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return sum(int(batch.target_lengths.sum()) for batch in given)

    return run


OPTIONS: dict[str, dict[str, Any]] = {
    "an upper layer": {"upper_layers": 1},
    "a lexicon": {"lexicon": True},
    "coverage": {"coverage": 0.1},
    "input feeding": {"input_feeding": True},
    "scheduled sampling": {},
}


def network(words: int, hidden: int, **changed: Any) -> TranslateNetwork:
    """Ours."""
    form: dict[str, Any] = {
        "num_layers": 1,
        "upper_layers": 0,
        "attention": "general",
        "copy": False,
        "tied": False,
    }
    form |= {"shared": False, "dropout": 0.0, "word_dropout": 0.0, "smoothing": 0.1, "guide": 0.0} | changed
    sizes = TranslateSizes(sources=words, targets=words, embedding_size=EMBEDDING, hidden_size=hidden, **form)
    return TranslateNetwork("gru", sizes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--words", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--options", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given = batches(options.words, 2)
    ours = network(options.words, options.hidden)
    own = trainer(ours, ours.loss, given)
    print(f"H {options.hidden}, {options.words:,} words, torch {torch.__version__}")
    if not options.options:
        plain = Plain(options.words, options.hidden)
        compare("training", (trainer(plain, plain, given), own), options.seconds, options.rounds)
        return
    for name, changed in OPTIONS.items():
        other = network(options.words, options.hidden, **changed)
        share = 0.25 if name == "scheduled sampling" else 0.0
        loss = functools.partial(other.loss, sampling=share)
        compare(name, (own, trainer(other, loss, given)), options.seconds, options.rounds)


if __name__ == "__main__":
    main()
