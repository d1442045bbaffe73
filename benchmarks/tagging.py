"""Taggers beside a plain loop of torch: training and prediction, in words per CPU second.

    python benchmarks/tagging.py [--data train.conll] [--cell lstm] [--crf] [--seconds 4] [--rounds 5]

Both sides read the letters of each different word of a batch in both directions (64 units each), an embedding of 96 for
each of the same words, and the sentence in both directions (128 units each); one thread, AdamW, the same batches of 64
sentences of like lengths in training, and of about 8,192 words in prediction. The plain side packs its sequences
(`pack_padded_sequence`), and with --crf has a conditional random field as one writes it: the forward recursion by
`logsumexp` under autograd, and Viterbi over all pairs. They take turns, so that what else the machine does weighs on
both. Printed are the medians of the rounds, and the median of the ratios within a round. Ours includes what `predict`
does to text: numbers of words and letters, and tags as words again; the plain side is given tensors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import cycle

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from turns import compare

from cellwise.tasks.tag.batches import by_length, collate
from cellwise.tasks.tag.conll import Sentences, read_conll
from cellwise.tasks.tag.data import bundled
from cellwise.tasks.tag.network import LETTER_SIZE, NO_TAG, TagBatch
from cellwise.tasks.tag.tagger import SequenceTagger

LETTERS, EMBEDDING, HIDDEN, BATCH = 64, 96, 128, 64


class Plain(nn.Module):
    """What one writes with torch."""

    def __init__(self, cell: str, letters: int, words: int, tags: int, crf: bool) -> None:
        super().__init__()
        layer = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.letters = nn.Embedding(letters, LETTER_SIZE)
        self.words = nn.Embedding(words, EMBEDDING)
        self.spell = layer(LETTER_SIZE, LETTERS, bidirectional=True)
        self.layer = layer(EMBEDDING + 2 * LETTERS, HIDDEN, bidirectional=True)
        self.decode = nn.Linear(2 * HIDDEN, tags)
        self.moves = nn.Parameter(torch.zeros(tags, tags)) if crf else None

    def forward(self, batch: TagBatch) -> Tensor:
        packed = pack_padded_sequence(self.letters(batch.letters), batch.letter_lengths, enforce_sorted=False)
        _, state = self.spell(packed)
        last = state[0] if isinstance(state, tuple) else state
        spelled = last.transpose(0, 1).flatten(1)[batch.forms]
        seen = torch.cat([self.words(batch.words), spelled], dim=-1)
        output, _ = self.layer(pack_padded_sequence(seen, batch.lengths, enforce_sorted=False))
        made: Tensor = self.decode(pad_packed_sequence(output)[0])
        return made

    def loss(self, batch: TagBatch) -> Tensor:
        scores = self(batch)
        if self.moves is None:
            return nn.functional.cross_entropy(
                scores.flatten(0, 1), batch.tags.flatten(), ignore_index=NO_TAG
            )
        alpha, tags = scores[0], batch.tags.clamp(min=0)
        path = scores[0].gather(1, tags[0][:, None])[:, 0]
        for t in range(1, len(scores)):
            inside = t < batch.lengths
            step = torch.logsumexp(alpha[:, :, None] + self.moves, 1) + scores[t]
            alpha = torch.where(inside[:, None], step, alpha)
            own = scores[t].gather(1, tags[t][:, None])[:, 0] + self.moves[tags[t - 1], tags[t]]
            path = path + own * inside
        return (alpha.logsumexp(1) - path).sum() / batch.lengths.sum()

    @torch.no_grad()
    def predict(self, batch: TagBatch) -> Tensor:
        scores = self(batch)
        if self.moves is None:
            return scores.argmax(-1)
        alpha, origins = scores[0], []
        for t in range(1, len(scores)):
            best, origin = (alpha[:, :, None] + self.moves).max(1)
            alpha = torch.where((t < batch.lengths)[:, None], best + scores[t], alpha)
            origins.append(origin)
        path = [alpha.argmax(1)]
        for origin in reversed(origins):
            path.append(origin.gather(1, path[-1][:, None])[:, 0])
        return torch.stack(path[::-1])


def trainer(model: nn.Module, batches: list[TagBatch]) -> Callable[[], int]:
    """A step of AdamW on the next batch; returns how many words it has."""
    optimizer, rest = torch.optim.AdamW(model.parameters(), lr=1e-3), cycle(batches)

    def run() -> int:
        batch = next(rest)
        model.train()
        optimizer.zero_grad(set_to_none=True)
        model.loss(batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return int(batch.lengths.sum())

    return run


def plain_predictor(model: Plain, batches: Iterator[TagBatch]) -> Callable[[], int]:
    def run() -> int:
        batch = next(batches)
        model.eval()
        model.predict(batch)
        return int(batch.lengths.sum())

    return run


def our_predictor(tagger: SequenceTagger, words: Sentences) -> Callable[[], int]:
    def run() -> int:
        tagger.predict(words)
        return words.count

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="a file in columns; default: the bundled corpus")
    parser.add_argument("--cell", choices=("lstm", "gru"), default="lstm")
    parser.add_argument("--crf", action="store_true")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sentences = bundled() if options.data is None else read_conll(options.data)
    tagger = SequenceTagger(
        cell=options.cell, crf=options.crf, branch="none", embedding_size=EMBEDDING, batch_size=BATCH
    )
    known, training = tagger._read(sentences, valid=sentences)
    network, lexicon = tagger._new_network(known), known.lexicon
    tagger._take(known, {}, network, network)
    plain = Plain(
        options.cell, len(lexicon.letters) + 1, len(lexicon.embedded) + 1, len(lexicon.tags), options.crf
    )
    lengths = training.forms.sentences.lengths
    order = list(by_length(lengths.tolist()))
    some = Sentences(sentences.words[:2000], None)
    predicted = cycle([collate(training.forms, chosen) for chosen in order[:: max(1, len(order) // 8)]])
    batches = [
        batch
        for batch, _ in zip(tagger._objective(network, known, training).batches(1), range(20), strict=False)
    ]
    sides = {
        "training": (trainer(plain, batches), trainer(network, batches)),
        "prediction": (plain_predictor(plain, predicted), our_predictor(tagger, some)),
    }
    print(
        f"{options.cell}{' with CRF' * options.crf}, {len(lexicon.tags)} tags, {len(lexicon.embedded):,} embeddings, "
        f"torch {torch.__version__}"
    )
    for name, runs in sides.items():
        compare(name, runs, options.seconds, options.rounds)


if __name__ == "__main__":
    main()
