"""Which words or steps decided: gradient times input, and what the linear model says without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cellwise.tasks.classify.data import Known
from cellwise.tasks.classify.encoders import TextEncoder
from cellwise.tasks.classify.network import SequenceNetwork
from cellwise.tasks.classify.ngrams import NgramModel
from cellwise.tasks.classify.tokens import spans_of, tokens_of

__all__ = ["step_shares"]

MOST_TOKENS = 200  # of a text, beyond which the linear model is not asked word by word


def step_shares(network: SequenceNetwork, known: Known, example: Any, chosen: int) -> np.ndarray:
    """How much each step (T,) of a sequence speaks for class `chosen` against the mean of the others, in logits.

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
        made = _with_gap(made, known.encoder, example)
    if share and isinstance(known.linear, NgramModel) and len(made) <= MOST_TOKENS:
        made = made + share * _without_each(known.linear, example, chosen)
    return np.asarray(made)


def _with_gap(shares: np.ndarray, encoder: TextEncoder, text: str) -> np.ndarray:
    """Shares of the tokens that were read, with zeros for those that were not."""
    gone = encoder.left_out(len(tokens_of(text, encoder.unit)))
    return np.insert(shares, gone.start, np.zeros(len(gone)))


def _against_others(logits: torch.Tensor, chosen: int) -> torch.Tensor:
    rest = logits.shape[-1] - 1
    return logits[..., chosen] * (1 + 1 / rest) - logits.sum(-1) / rest


def _without_each(linear: NgramModel, text: str, chosen: int) -> np.ndarray:
    """What the linear model loses of class `chosen` where each token (T,) is left out."""
    whole = [text, *(text[:begin] + text[end:] for begin, end in spans_of(text, linear.unit))]
    with torch.no_grad():
        said = _against_others(linear.logits(whole), chosen)
    return np.asarray((said[0] - said[1:]).double().numpy())
