"""Streams that read what they write, beside the same steps one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cellwise.errors import InputError
from cellwise.nn import Recurrent

V, D, H, MOST = 37, 5, 19, 4


def drawn(cell: str, layers: int, dtype: torch.dtype) -> tuple[Any, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    layer = Recurrent(cell, D, H, layers, dtype=dtype)
    table, weight = torch.randn(V, D, dtype=dtype), torch.randn(H, V, dtype=dtype)
    return layer, table, weight, torch.randn(10, V, dtype=dtype), torch.randn(H, dtype=dtype)


def one_by_one(stream: Any, table: Tensor, weight: Tensor, noise: Tensor, read: Tensor) -> list[int]:
    found = []
    for each in noise:
        found.append(int((each + read @ weight).argmax()))
        read = stream(table[found[-1]])
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("cell", "layers"), [("gru", 1), ("lstm", 2), ("rnn", 1)])
def test_it_writes_what_single_steps_write(cell: str, layers: int, dtype: torch.dtype) -> None:
    layer, table, weight, noise, read = drawn(cell, layers, dtype)
    stream, other = layer.stream(), layer.stream()
    write = stream.follower(table, weight, MOST)
    wanted = one_by_one(other, table, weight, noise, read)
    # An odd number of steps; then from its own last output.
    assert write(read, noise[:3]) + write(None, noise[3:7]) + write(None, noise[7:]) == wanted
    for one, other_state in zip(_states(stream), _states(other), strict=True):
        torch.testing.assert_close(one, other_state)


def _states(stream: Any) -> tuple[Tensor, ...]:
    return stream.state if isinstance(stream.state, tuple) else (stream.state,)


def test_steps_by_hand_between_runs_and_weights_that_change_are_seen() -> None:
    layer, table, weight, noise, read = drawn("gru", 1, torch.float32)
    stream, other = layer.stream(), layer.stream()
    write = stream.follower(table, weight, MOST)
    for change in (lambda: None, lambda: layer.weight_hh_l0.data.mul_(-3), layer.reset_parameters):
        change()
        for each in (stream, other):
            read = each(table[2])
        assert write(read, noise[:4]) == one_by_one(other, table, weight, noise[:4], read)


def test_what_does_not_fit_is_refused() -> None:
    layer, table, weight, noise, read = drawn("gru", 1, torch.float32)
    stream = layer.stream()
    write = stream.follower(table, weight, MOST)
    for wrong in (
        (read[:-1], noise[:2]),
        (read, noise[:2, :-1]),
        (read.double(), noise[:2]),
        (read, noise[:2].double()),
        (read, noise[: MOST + 1]),
        (read, noise[0]),
    ):
        with pytest.raises(InputError, match="a run takes"):
            write(*wrong)
    kept = weight.clone()
    write = stream.follower(table, kept, MOST)
    kept.untyped_storage().resize_(0)
    with pytest.raises(InputError, match="other memory"):
        write(read, noise[:2])
    for pair in ((table[:, 1:], weight), (table, weight.T), (table.double(), weight), (table[:-1], weight)):
        assert stream.follower(*pair, MOST) is None
    assert layer.stream(2).follower(table, weight, MOST) is None
    assert Recurrent("gru", D, H, backend="reference").stream().follower(table, weight, MOST) is None


def test_a_score_that_is_no_number_is_chosen_as_torch_chooses_it() -> None:
    layer, table, weight, noise, read = drawn("rnn", 1, torch.float32)
    noise = noise[:2].clone()
    noise[0, 7] = torch.nan
    noise[1] = -torch.inf
    write = layer.stream().follower(table, weight, MOST)
    assert write(read, noise) == [7, 0]
