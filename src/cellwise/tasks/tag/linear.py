"""A linear model of tags: features of words and of their neighbours, with a conditional random field or a softmax.

It is what a person would pick for tagging instead of a recurrent network, and knows at once what a network learns
slowly from few sentences: which words, endings and capitals go with which tag. It is the baseline of a report, and what
the network is blended with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cellwise.tasks.tag.batches import by_length
from cellwise.tasks.tag.crf import Chain, Crf
from cellwise.tasks.tag.features import OFFSETS, FeatureIndex
from cellwise.tasks.tag.network import NO_TAG, new_crf, tag_loss
from cellwise.tasks.tag.schemes import kinships
from cellwise.tasks.tag.vocabulary import Forms, Ragged

__all__ = ["LinearTagger", "Tables"]

STEPS = 60
DECAY = 0.1  # of half the squared length of the weights, over the words of the training
WORDS = 4096  # of a batch, about


@dataclass(frozen=True, eq=False)
class Tables:
    """What the words of some sentences say: for each offset (F + 1, K), the last row for the edge of a sentence."""

    scores: Sequence[Tensor]

    def emissions(self, forms: Ragged, rows: Tensor) -> Tensor:
        """Scores (T, B, K) of the sentences of these numbers."""
        edge = len(self.scores[0]) - 1
        padded = functional.pad(forms.padded(rows, edge), (0, 0, -OFFSETS[0], OFFSETS[-1]), value=edge)
        steps = len(padded) + OFFSETS[0] - OFFSETS[-1]
        begin = -OFFSETS[0]
        parts = [
            functional.embedding(padded[begin + offset : begin + offset + steps], table)
            for offset, table in zip(OFFSETS, self.scores, strict=True)
        ]
        return torch.stack(parts).sum(0)


class LinearTagger(nn.Module):
    """weights (N + 1, K): of N features, and of one that every word has; `crf`, None for a softmax."""

    def __init__(self, index: FeatureIndex, tags: Sequence[str], crf: Crf | None) -> None:
        super().__init__()
        self.index, self.crf = index, crf
        self.weights = nn.Parameter(torch.zeros(len(index) + 1, len(tags)))

    @classmethod
    def fit(
        cls, forms: Forms, tags: Ragged, names: Sequence[str], *, crf: bool, is_bioes: bool
    ) -> LinearTagger:
        """Fit to sentences and their tags, by L-BFGS (Liu and Nocedal 1989).

        Where tags mark entities, a feature has weights for what tags have in common too: that a word belongs to an
        entity, or to one of some type, can be learned from more words than that it ends one of that type."""
        counts = forms.sentences.values.bincount(minlength=len(forms)).tolist()
        made = cls(FeatureIndex.of(forms.forms, counts), names, new_crf(names, is_bioes) if crf else None)
        shares = _shares(names) if is_bioes else None
        own = made.weights
        if shares is not None:
            own = nn.Parameter(own.new_zeros(len(own), len(shares)))
        features = made._features(forms)
        lengths = forms.sentences.lengths
        batches = [torch.tensor(chosen) for chosen in by_length(lengths.tolist(), WORDS)]
        count = int(lengths.sum())
        parameters = [own, *(made.crf.parameters() if made.crf is not None else ())]
        solver = torch.optim.LBFGS(
            parameters,
            max_iter=STEPS,
            history_size=5,
            tolerance_change=1e-7,
            line_search_fn="strong_wolfe",
        )

        def loss() -> float:
            solver.zero_grad()
            tables = _tables(features, own, shares)
            cut = Tables([table.detach().requires_grad_() for table in tables.scores])
            total = 0.0
            for rows in batches:  # each is differentiated by itself, so that one is in memory
                scores = cut.emissions(forms.sentences, rows)
                part = tag_loss(scores, tags.padded(rows, NO_TAG), lengths[rows], made.chain) / count
                part.backward()
                total += float(part.detach())
            torch.autograd.backward(list(tables.scores), [table.grad for table in cut.scores])
            for parameter in parameters:
                assert parameter.grad is not None
                parameter.grad.add_(parameter.detach(), alpha=DECAY / count)
                total += float(parameter.detach().square().sum()) * DECAY / (2 * count)
            return total

        with torch.enable_grad():
            solver.step(loss)
        if shares is not None:
            made.weights.data = own.detach() @ shares
        return made.requires_grad_(False)

    @property
    def chain(self) -> Chain | None:
        """Scores of neighbouring tags; None for a softmax."""
        return None if self.crf is None else self.crf.chain()

    def tables(self, forms: Forms) -> Tables:
        """What the words of some sentences say."""
        return _tables(self._features(forms), self.weights)

    def _features(self, forms: Forms) -> list[Ragged]:
        return [self.index.rows(forms.forms, offset) for offset in OFFSETS]

    def tensors(self) -> dict[str, Tensor]:
        """What a run folder holds of it."""
        return {"linear/hashes": self.index.hashes} | {
            f"linear/{key}": value for key, value in self.state_dict().items()
        }

    @classmethod
    def restored(
        cls, tensors: Mapping[str, Tensor], tags: Sequence[str], *, is_bioes: bool
    ) -> LinearTagger | None:
        """The inverse of `tensors`; None if there are none. Raises KeyError or ValueError for others."""
        own = {
            key.removeprefix("linear/"): value for key, value in tensors.items() if key.startswith("linear/")
        }
        if not own:
            return None
        hashes = own.pop("hashes")
        if hashes.dtype != torch.int64 or hashes.dim() != 1 or not bool((hashes.diff() > 0).all()):
            raise ValueError("the features of its linear model are none")
        crf = new_crf(tags, is_bioes) if "crf.moves" in own else None
        made = cls(FeatureIndex(hashes), tags, crf)
        shapes = {key: value.shape for key, value in made.state_dict().items()}
        found = {key: value.shape for key, value in own.items()}
        if found != shapes or any(value.dtype != torch.float32 for value in own.values()):
            raise ValueError("the weights of its linear model are none")
        made.load_state_dict(own)
        return made.requires_grad_(False)


def _tables(features: Sequence[Ragged], weights: Tensor, shares: Tensor | None = None) -> Tables:
    """What words with these features at each offset say; weights (N + 1, M), of which a tag has `shares` (M, K)."""
    made = []
    for offset, rows in zip(OFFSETS, features, strict=True):
        table = functional.embedding_bag(rows.values, weights, rows.starts[:-1], mode="sum")
        table = table + weights[-1] if offset == 0 else table
        made.append(table if shares is None else table @ shares)
    return Tables(made)


def _shares(tags: Sequence[str]) -> Tensor:
    """Of weights of tags, and of what tags of BIOES have in common, the share that each tag has, (M, K). A tag has four
    of them in all, each a half, so that its squares weigh as much as those of one weight would."""
    return torch.cat([torch.eye(len(tags)), torch.tensor(kinships(tags)).float()]) / 2
