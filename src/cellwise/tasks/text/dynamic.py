"""Dynamic evaluation: the weights follow the text that is read (Krause, Kahembwe, Murray, Renals 2018, "Dynamic
Evaluation of Neural Sequence Models")."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torch.nn import functional

from cellwise.tasks.text.network import CharacterNetwork, detached

__all__ = ["adapting_bits"]

SEGMENT = 50  # characters between two steps
RATE = 3e-4  # of a step, in units of a weight's usual gradient
DECAY = 1e-3  # towards the weights as they were trained, at each step
SMOOTHING = 1e-3  # share of the mean of all root mean squares that is added to each


def adapting_bits(network: CharacterNetwork, ids: Tensor, rate: float = RATE, decay: float = DECAY) -> Tensor:
    """Bits of each character of a text (T,) but the first, float64 (T - 1,): each segment is predicted first, then
    learned from, by a copy of the network.

    A step is the gradient over the root of the mean of its squares so far, with a decay to the trained weights. The
    paper takes the squares from the training text; here they are those of the text read so far, so that any network
    can be adapted."""
    adapted = copy.deepcopy(network).eval()
    device = next(adapted.parameters()).device
    weights = [each for each in adapted.parameters() if each.requires_grad]
    trained = [each.detach().clone() for each in weights]
    squares = [torch.zeros_like(each) for each in weights]
    state, made, text = None, [], ids.long().to(device)
    for number, begin in enumerate(range(0, len(text) - 1, SEGMENT), 1):
        part = text[begin : begin + SEGMENT + 1, None]
        logits, state = adapted(part[:-1], state)
        state = detached(state)
        nats = functional.cross_entropy(logits[:, 0], part[1:, 0], reduction="none")
        made.append(nats.detach().double().cpu())
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(nats.mean(), weights, allow_unused=True)
        with torch.no_grad():
            for weight, gradient, square, start in zip(weights, gradients, squares, trained, strict=True):
                if gradient is None:
                    continue
                square.add_(gradient.square())
                root = (square / number).sqrt_()
                root += SMOOTHING * root.mean() + 1e-12
                weight.addcdiv_(gradient, root, value=-rate)
                weight.lerp_(start, decay)
    return torch.cat(made) / math.log(2)
