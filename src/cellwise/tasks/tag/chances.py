"""Tags with the probabilities that the model gives them, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cellwise.tasks.tag.conll import Sentences
from cellwise.tasks.tag.data import TagPlan
from cellwise.tasks.tag.linear import LinearTagger
from cellwise.tasks.tag.network import TagNetwork
from cellwise.tasks.tag.tagging import blended_chain, decide, favoured, probabilities, scored
from cellwise.tasks.tag.vocabulary import Lexicon

__all__ = ["Tagging", "tagged"]


@dataclass(frozen=True)
class Tagging:
    """The tags of a sentence, the probability of each, and that of the true ones, where they are known. Probabilities
    are of tags as they are learned: of entities in BIOES."""

    tags: Sequence[str]
    chances: Sequence[float]
    true_chances: Sequence[float] | None = None


def tagged(
    network: TagNetwork,
    lexicon: Lexicon,
    linear: LinearTagger | None,
    plan: TagPlan,
    sentences: Sentences,
    bonus: float = 0.0,
) -> list[Tagging]:
    """The tags of each sentence, chosen with a bonus for each entity. A true tag that training has not seen has the
    probability 0."""
    made: list[Tagging] = [Tagging((), ())] * len(sentences)
    weights = network.blend.cpu()
    chain = blended_chain(network, linear, weights)
    choosing = favoured(chain, lexicon.tags, bonus)
    for batch in scored(network, lexicon, linear, sentences.words):
        best, chances = decide(batch, weights, choosing), probabilities(batch, weights, chain)
        of_best = chances.gather(2, best[..., None])[..., 0]
        for column, (number, length) in enumerate(zip(batch.numbers, batch.lengths.tolist(), strict=True)):
            tags = plan.restored([lexicon.tags[i] for i in best[:length, column].tolist()])
            true = None
            if sentences.tags is not None:
                ids = torch.tensor(lexicon.tag_ids(plan.learned(sentences.tags[number])))
                own = chances[:length, column].gather(1, ids.clamp(min=0)[:, None])[:, 0]
                true = own.where(ids >= 0, 0.0).tolist()
            made[number] = Tagging(tags, of_best[:length, column].tolist(), true)
    return made
