"""Equations in two halves, of two rows at once: the bits of one row after the other."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings

from cellwise import cells
from cellwise.backends.compiled.backward_pass import backward_pass
from cellwise.backends.compiled.cell_kernels import kernels_for, kernels_of
from cellwise.backends.compiled.forward_pass import forward_pass
from cellwise.backends.cpu import halves
from cellwise.backends.cpu.halves import Halves, halves_of
from cellwise.cells import Cell
from cellwise.nn import plain
from cellwise.plan.forward import forward_program
from cellwise.plan.program import Program, Stage
from cellwise.testing import Case, Results, results, strategies


def _program(name: str) -> Program:
    return forward_program(cells.get(name).graph, None, False)


def test_what_follows_from_the_gates_of_an_lstm_is_its_second_half() -> None:
    (stage,) = _program("lstm").stages
    found = halves_of(stage)
    assert found is not None
    assert {node.op.name for node in found.early} == {"sigmoid", "tanh", "mul"}
    assert [node.op.name for node in stage.nodes if node not in found.early] == ["add", "tanh", "mul"]
    assert set(found.kept) <= found.early


@pytest.mark.parametrize("name", ["rnn", "layernorm-lstm"])
def test_one_function_is_not_split_and_units_that_are_taken_together_are_not(name: str) -> None:
    assert not any(halves_of(stage) for stage in _program(name).stages if stage.reductions or name == "rnn")


def _found(case: Case, whole: bool) -> tuple[Results, list[Halves]]:
    """What a layer gives, of kernels that are made anew: in two halves, or whole."""
    split = []

    def noted(stage: Stage) -> Halves | None:
        found = None if whole else halves_of(stage)
        split.extend([found] if found else [])
        return found

    def forget() -> None:
        for each in (kernels_of, kernels_for, forward_pass, backward_pass):
            each.cache_clear()
        plain._ROUTES.clear()

    forget()
    with mock.patch.object(halves, "halves_of", noted):
        found = results(case.layer("cpu", torch.float32), case.arguments(torch.float32))
    forget()
    return found, split


def _same_bits(case: Case) -> list[Halves]:
    (found, split), (wanted, _) = (_found(case.fitting, whole) for whole in (False, True))
    for name, value in wanted.items():
        assert torch.equal(found[name].nan_to_num(7.0), value.nan_to_num(7.0)), name
    return split


@pytest.mark.parametrize("name", ["lstm", "gru", "lstm-peephole"])
@pytest.mark.parametrize("options", [{}, {"lengths": (7, 3, 1, 0, 5), "recompute": True}, {"resets": True}])
def test_halves_have_the_bits_of_the_whole(name: str, options: dict[str, Any]) -> None:
    assert _same_bits(Case(cells.get(name), batch=5, hidden_size=40, **options))


@settings(max_examples=10, deadline=None)
@given(cell=strategies.cells())
def test_of_any_cell(cell: Cell) -> None:
    _same_bits(Case(cell, batch=3, hidden_size=17))
