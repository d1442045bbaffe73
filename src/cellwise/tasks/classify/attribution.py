"""Which words or steps decided: gradient times input, and what the linear model says without a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cellwise.tasks.classify.data import Known
from cellwise.tasks.classify.encoders import TextEncoder
from cellwise.tasks.classify.network import SequenceNetwork
from cellwise.tasks.classify.ngrams import NgramModel

__all__ = ["step_shares"]

MOST_TOKENS = 200  # of a text, beyond which the linear model is not asked word by word


def step_shares(network: SequenceNetwork, known: Known, example: Any, chosen: int) -> np.ndarray:
    """How much each step (T,) of a sequence speaks for class `chosen` against the mean of the others, in logits; of a
    network that says a number, how much it raises that, in units of the targets' spread.

    The network: the gradient of that difference times what it reads of the step (Baehrens et al. 2010 for the
    gradient; the product is a first-order Taylor expansion). The linear model of a text: the change where the word is
    left out. Each by its weight in the blend; what a linear model says of a series is not told apart by steps."""
    encoded = known.encoder.encode(example)
    if not len(encoded):
        return np.zeros(0)
    own, share = network.blend.tolist()
    with torch.enable_grad():
        steps = network.embedded(encoded[:, None]).detach().requires_grad_()
        logits = own * network.read(steps, torch.tensor([len(encoded)]))[0]
        (gradient,) = torch.autograd.grad(_against_others(logits, chosen), steps)
    made = (gradient * steps.detach()).sum(2)[:, 0].double().numpy()
    if isinstance(known.encoder, TextEncoder):
        spans = known.encoder.spans(example)
        gone = known.encoder.left_out(len(spans))  # tokens that were not read have no share
        made = np.insert(made, gone.start, np.zeros(len(gone)))
        if share and isinstance(known.linear, NgramModel) and len(spans) <= MOST_TOKENS:
            made = made + share * _without_each(known.linear, example, spans, chosen)
    return np.asarray(made)


def _against_others(logits: torch.Tensor, chosen: int) -> torch.Tensor:
    rest = logits.shape[-1] - 1
    if not rest:
        return logits[..., 0]
    return logits[..., chosen] * (1 + 1 / rest) - logits.sum(-1) / rest


def _without_each(linear: NgramModel, text: str, spans: Sequence[tuple[int, int]], chosen: int) -> np.ndarray:
    """What the linear model loses of class `chosen` where each token (T,) is left out."""
    whole = [text, *(text[:begin] + text[end:] for begin, end in spans)]
    with torch.no_grad():
        said = _against_others(linear.logits(whole), chosen)
    return np.asarray((said[0] - said[1:]).double().numpy())
