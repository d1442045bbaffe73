"""Operators called with damaged arguments, graphs with damaged texts: `python tests/trials/trial_foreign_calls.py`.

Each must be refused, or give finite memory-safe results; the process must not end. Printed: how many of each.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from cellwise import cells
from cellwise.backends.compiled.cell_kernels import kernels_of, key_of
from cellwise.graph.stored import restore, store
from cellwise.graph.verify import GraphError

NAMES = ("rnn", "gru", "lstm-peephole", "indrnn", "mingru")
STRINGS = (
    "",
    "h",
    "x\n",
    "a\rb",
    "\u2028",
    "\0",
    '"',
    "h'",
    "weight_ih",
    "__class__",
    "é",
    "n" * 2000,
    "lambda",
)
NUMBERS = (-1, 0, 1, 2, 7, 10**6, 2**63, 10**400, 0.0, -0.0, 1e308, float("inf"), float("nan"), True, None)


def call(draw: random.Random) -> dict[str, Any]:
    """Arguments that fit."""
    graph = cells.get(draw.choice(NAMES)).graph
    hidden, width = draw.choice((1, 3, 8, 17)), draw.choice((1, 4, 9))
    sizes = sorted((draw.randint(0, 5) for _ in range(draw.randint(0, 5))), reverse=True)
    batch, offsets = max([1, *sizes]), [0]
    for size in sizes:
        offsets.append(offsets[-1] + size)
    rows = {"ih": len(graph.input_gates) * hidden, "hh": len(graph.state_gates) * hidden}
    weights = [torch.randn(rows["ih"], width)] if rows["ih"] else []
    weights += [torch.randn(rows["hh"], hidden)] if rows["hh"] else []
    weights += [torch.randn(count) for count in rows.values() if count]
    weights += [torch.randn(hidden) for _ in graph.vectors] + [torch.randn(()) for _ in graph.scalars]
    return {
        "key": key_of(graph, False, draw.random() < 0.3, "cpu"),
        "x": torch.randn(offsets[-1], width),
        "offsets": torch.tensor(offsets),
        "states": [torch.randn(batch, hidden) for _ in graph.states],
        "resets": torch.randint(0, 2, (offsets[-1],), dtype=torch.uint8) if draw.random() < 0.5 else None,
        "weights": weights,
        "bias": True,
        "reverse": draw.random() < 0.5,
    }


def damaged(draw: random.Random, tensor: Tensor) -> Tensor:
    """Another shape, dtype, device, layout or other numbers."""
    kind = draw.randrange(8)
    if kind == 0 and tensor.dim():
        place = draw.randrange(tensor.dim())
        return tensor.narrow(place, 0, draw.randint(0, tensor.shape[place]))
    if kind == 1:
        return tensor.to(
            draw.choice((torch.float64, torch.float32, torch.int32, torch.int64, torch.float16, torch.bool))
        )
    if kind == 2:
        return tensor.reshape(-1)
    if kind == 3:
        return torch.cat([tensor.reshape(-1)] * 2)
    if kind == 4:
        return tensor.unsqueeze(0)
    if kind == 5:
        return tensor.to("meta")
    if kind == 6 and tensor.numel() and not tensor.is_floating_point():
        other, far = tensor.clone(), 2**40 if tensor.dtype == torch.int64 else 100
        other.reshape(-1)[draw.randrange(tensor.numel())] = draw.choice((0, 1, far))
        return other
    return tensor.t() if tensor.dim() == 2 else tensor[:0] if tensor.dim() else tensor.expand(3)


def damage(draw: random.Random, arguments: dict[str, Any]) -> None:
    for _ in range(draw.randint(1, 2)):
        name = draw.choice([name for name, value in arguments.items() if isinstance(value, (Tensor, list))])
        if isinstance(arguments[name], Tensor):
            arguments[name] = damaged(draw, arguments[name])
        elif arguments[name]:
            values = list(arguments[name])
            place = draw.randrange(len(values))
            if draw.random() < 0.2:
                values = draw.choice((values[:place], [*values, values[place]]))
            else:
                values[place] = damaged(draw, values[place])
            arguments[name] = values


def run_call(draw: random.Random) -> str:
    arguments = call(draw)
    backward = draw.random() < 0.5
    if backward:
        with torch.no_grad():
            output, *rest = torch.ops.cellwise.direction(**arguments, tape=True)
        count = len(arguments["states"])
        arguments |= {
            "output": output,
            "kept": rest[count:],
            "output_gradient": torch.ones_like(output),
            "state_gradients": [torch.ones_like(each) for each in arguments["states"]],
        }
    damage(draw, arguments)
    try:
        if backward:
            torch.ops.cellwise.direction_backward(**arguments, wants_input=True)
        else:
            torch.ops.cellwise.direction(**arguments, tape=draw.random() < 0.5)
    except (RuntimeError, GraphError):
        return "calls refused"
    return "calls run"


def changed_graph(draw: random.Random, value: Any) -> Any:
    """A graph's JSON with one or a few of its values exchanged."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(list(value))
        return value | {name: changed_graph(draw, value[name])}
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        kind = draw.randrange(4)
        if kind == 0:
            return value[:place] + value[place + 1 :]
        if kind == 1:
            return [*value[:place], value[draw.randrange(len(value))], *value[place:]]
        return [*value[:place], changed_graph(draw, value[place]), *value[place + 1 :]]
    return draw.choice([draw.choice(STRINGS), draw.choice(NUMBERS), [], {}, "tanh", "where", "constant"])


def run_graph(draw: random.Random) -> str:
    found = json.loads(store(cells.get(draw.choice(NAMES)).graph))
    for _ in range(draw.randint(1, 3)):
        found = changed_graph(draw, found)
    text = json.dumps(found)
    if draw.random() < 0.1:
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice(("[" * 100_000, "\0", "}", "1e999999", '"')) + text[place:]
    try:
        graph = restore(text)
    except GraphError:
        return "graphs refused"
    names = (*graph.gates, *graph.states, *graph.vectors, *graph.scalars, *(name for _, name in graph.names))
    assert all(name.isidentifier() for name in names), names
    assert graph.name.isprintable(), graph.name
    _ = kernels_of(f"|{text}", torch.float32, "cpu").plan
    return "graphs read"


def main(calls: int, graphs: int, seed: int) -> None:
    draw, tally, start = random.Random(seed), Counter[str](), time.perf_counter()
    torch.manual_seed(seed)
    for _ in range(calls):
        tally[run_call(draw)] += 1
    for _ in range(graphs):
        tally[run_graph(draw)] += 1
    print(
        ", ".join(f"{count} {what}" for what, count in sorted(tally.items())),
        f"in {time.perf_counter() - start:.0f} s",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--graphs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    main(asked.calls, asked.graphs if asked.calls > 1000 else 5 * asked.calls, asked.seed)
