"""How much the network counts, and how much the linear model beside it: two weights of their scores, fitted on
sentences that neither has learned from (stacking: Wolpert 1992), and drawn towards equal shares where there are few."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cellwise.tasks.tag.crf import Chain
from cellwise.tasks.tag.network import NO_TAG, tag_loss
from cellwise.tasks.tag.tagging import Scored
from cellwise.tasks.tag.vocabulary import Ragged

__all__ = ["fit_blend"]

EQUAL = math.log(0.5)
SPREAD = 0.7  # of the logarithm of a weight, around an equal share
STEPS = 20


def fit_blend(batches: Sequence[Scored], tags: Ragged, own: Chain | None, linear: Chain | None) -> Tensor:
    """Weights (2,) under which the tags of these sentences are most likely. Sentences with a tag that training has not
    seen are left out."""
    kept = [each for each in (_known(batch, tags) for batch in batches) if each is not None]
    logs = torch.full((2,), EQUAL, requires_grad=True)
    solver = torch.optim.LBFGS([logs], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> float:
        solver.zero_grad()
        prior = ((logs - EQUAL) / SPREAD).square().sum() / 2
        prior.backward()
        total = float(prior.detach())
        for batch, wanted in kept:
            weights = logs.exp()
            part = tag_loss(batch.blended(weights), wanted, batch.lengths, _mixed(own, linear, weights))
            part.backward()
            total += float(part.detach())
        return total

    with torch.enable_grad():
        solver.step(loss)
    return logs.detach().exp()


def _known(batch: Scored, tags: Ragged) -> tuple[Scored, Tensor] | None:
    """The sentences of a batch whose tags are all known, and their tags (T, B)."""
    wanted = tags.padded(torch.tensor(batch.numbers), NO_TAG)
    chosen = ((wanted != NO_TAG).sum(0) == batch.lengths).nonzero()[:, 0]
    if not len(chosen) or batch.linear is None:
        return None
    numbers = [batch.numbers[i] for i in chosen.tolist()]
    part = Scored(numbers, batch.lengths[chosen], batch.network[:, chosen], batch.linear[:, chosen])
    return part, wanted[:, chosen]


def _mixed(own: Chain | None, linear: Chain | None, weights: Tensor) -> Chain | None:
    return None if own is None or linear is None else own.weighted(weights[0], linear, weights[1])
