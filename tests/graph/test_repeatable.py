"""A step is read once: what it draws, counts or reads off a clock is refused, with the line."""

from __future__ import annotations

import cProfile
import datetime
import gc
import itertools
import os
import random
import secrets
import sys
import time
import uuid
from typing import Any

import numpy as np
import pytest
import torch

from cellwise import Cell, tanh
from cellwise.errors import UnrepeatableStepError
from cellwise.graph.values import Value

GENERATOR = np.random.default_rng(0)
LEGACY = np.random.RandomState(0)
OWN = random.Random(0)
OF_TORCH = torch.Generator()
COUNT = itertools.count()
CALLS: list[int] = []


class Counting:
    calls = 0

    @classmethod
    def more(cls) -> int:
        cls.calls += 1
        return cls.calls


def helper() -> float:
    return random.random()


# What a number in the step is.
NUMBERS: dict[str, Any] = {
    "random": random.random,
    "gauss": lambda: random.gauss(0, 1),
    "choice": lambda: random.choice(range(1000)),
    "own Random": OWN.random,
    "numpy": np.random.rand,
    "numpy Generator": GENERATOR.normal,
    "numpy RandomState": LEGACY.rand,
    "fresh Generator": lambda: np.random.default_rng().random(),
    "torch": lambda: torch.rand(1).item(),
    "torch Generator": lambda: torch.rand(1, generator=OF_TORCH).item(),
    "in place": lambda: torch.empty(1).uniform_().item(),
    "secrets": lambda: secrets.randbelow(10**9),
    "urandom": lambda: int.from_bytes(os.urandom(4), "big"),
    "uuid": lambda: uuid.uuid4().int % 10**9,
    "time": time.time,
    "clock": lambda: time.perf_counter_ns() % 10**9,
    "now": lambda: datetime.datetime.now().timestamp(),
    "counter": lambda: next(COUNT),
    "list that grows": lambda: (CALLS.append(1), len(CALLS))[1],
    "attribute": Counting.more,
    "helper": helper,
}
# Those that leave a trace where they only choose a branch, and happen to choose the same one twice.
SEEN = sorted(set(NUMBERS) - {"fresh Generator", "counter", "list that grows", "attribute"})


def _cell(number: Any, branch: bool) -> type[Cell]:
    class Noisy(Cell):
        gates = ("n",)

        def step(self, x, h):
            if branch:
                return tanh(x.n + h.n) if number() > -1e18 else h
            return tanh(x.n + h.n) * number()

    return Noisy


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_is_another_each_time_is_refused(name: str) -> None:
    with pytest.raises(UnrepeatableStepError, match=r"what is random is written with cellwise") as raised:
        _ = _cell(NUMBERS[name], branch=False)().graph
    assert f"{__file__}:" in str(raised.value)


@pytest.mark.parametrize("name", SEEN)
def test_a_branch_by_chance_is_refused_even_if_it_goes_the_same_way_twice(name: str) -> None:
    with pytest.raises(UnrepeatableStepError, match=r"it (asks|draws)"):
        _ = _cell(NUMBERS[name], branch=True)().graph


def test_the_line_is_that_of_the_noise() -> None:
    with pytest.raises(UnrepeatableStepError, match=r"return random\.random\(\)"):
        _ = _cell(helper, branch=False)().graph
    with pytest.raises(UnrepeatableStepError, match=r"a number in it was .* and then [\s\S]*\* number\(\)"):
        _ = _cell(NUMBERS["counter"], branch=False)().graph


def test_equations_that_change_are_refused() -> None:
    class Flipping(Cell):
        gates = ("n",)

        def step(self, x, h):
            return tanh(x.n + h.n) if next(COUNT) % 2 else tanh(x.n - h.n)

    with pytest.raises(UnrepeatableStepError, match="equations were others"):
        _ = Flipping().graph


def test_what_is_the_same_each_time_is_taken() -> None:
    table = [0.5, 0.25]

    class Steady(Cell):
        gates = ("n",)

        def step(self, x, h):
            noise = np.random.default_rng(0).random()
            return tanh(x.n + noise * h) * sum(table)

    assert "0.636962" in Steady().equations


def test_nothing_is_left_changed() -> None:
    before = random.getstate(), torch.get_rng_state()
    profile = cProfile.Profile()
    profile.enable()
    _ = _cell(lambda: 0.5, branch=False)().graph  # a profiler at work is left at work
    profile.disable()
    assert any("step" in str(entry.code) for entry in profile.getstats())
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert gc.isenabled()


def test_a_profiler_does_not_hide_the_noise() -> None:
    profile = cProfile.Profile()
    profile.enable()
    try:
        with pytest.raises(UnrepeatableStepError):
            _ = _cell(NUMBERS["random"], branch=False)().graph
    finally:
        profile.disable()


def test_what_another_thread_draws_is_not_the_steps_doing(monkeypatch) -> None:
    class Plain(Cell):
        gates = ("n",)
        rate: float = 0.5

        def step(self, x, h):
            n = tanh(x.n + h.n)
            return self.rate * n + (1 - self.rate) * h

    # In the middle of the step, in code that is not the user's, as another thread would.
    words = {"of": Value._of, "torch": torch}
    code = compile(
        "lambda *each: (torch.rand(1), of(*each))[1]", sys.modules[Value.__module__].__file__, "eval"
    )
    monkeypatch.setattr(Value, "_of", eval(code, words))
    before = torch.get_rng_state()
    assert "tanh" in Plain().equations
    assert not torch.equal(torch.get_rng_state(), before)
