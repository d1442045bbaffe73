"""The routine that sums products, by itself: every block of rows and panels, any number of terms, against numpy."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from llvmlite import ir
from test_cpu import SHAPED

from cellwise import cells
from cellwise.backends.cpu.bf16_products import BF16_MADE_BY
from cellwise.backends.cpu.code import Code
from cellwise.backends.cpu.compile import load, object_code_by
from cellwise.backends.cpu.compiler import llvm_compiler
from cellwise.backends.cpu.kernel import widths_of
from cellwise.backends.cpu.products import CALL, LONGEST, TERM, routine, routine_name
from cellwise.backends.cpu.target import WIDTHS, host, with_vectors_of
from cellwise.backends.cpu.tiles import most_rows
from cellwise.plan.forward import forward_program

KIND = {4: np.float32, 8: np.float64}
STRIDE, PAIRS = 40, 2  # rows that a panel of the room has


def run_length(length: int) -> int:
    """As the kernels cut a term: as few runs as can be, about equal, of whole rounds."""
    count = max(1, -(-length // LONGEST))
    return -(-length // (count * 8)) * 8


@dataclass
class Call:
    """One call's numbers and what they should become. A row of an operand has numbers beyond those that are used."""

    rows: int
    panels: int
    width: int
    lanes: int
    lengths: list[int]
    kind: type
    of_last: int = 0  # if not 0, how many of the panels are wanted
    held: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.rows * 100 + self.panels)
        self.room = np.full((self.panels, STRIDE, self.width, self.lanes), np.nan, self.kind)
        biases = self.drawn(PAIRS, self.panels, self.width, self.lanes)
        self.sums = np.repeat(biases[1].astype(float)[:, None], self.rows, axis=1)
        words = {"rows": self.rows, "stride": STRIDE, "panels": self.panels, "terms": len(self.lengths)}
        words |= {"last": 1 if self.of_last else -1, "of last": self.of_last}
        words |= {"room": self.room.ctypes.data, "biases": biases.ctypes.data}
        told = [words[name] for name in CALL]
        for number, length in enumerate(self.lengths):
            told += self.term(length, limit=(number * 3) % (self.rows + 1) if number else self.rows)
        self.table = np.array(told, np.int64)

    def drawn(self, *shape: int) -> np.ndarray:
        self.held.append(self.random.standard_normal(shape).astype(self.kind))
        return self.held[-1]

    def term(self, length: int, limit: int) -> list[int]:
        """An operand whose rows from `limit` on lie elsewhere."""
        here, there = self.drawn(self.rows, length + 3), self.drawn(self.rows, length + 3)
        weights = self.drawn(PAIRS, self.panels, length, self.width, self.lanes)
        operand = np.concatenate([here[:limit], there[limit:]])[:, :length]
        self.sums += np.einsum("rk,pkvl->prvl", operand.astype(float), weights[1].astype(float))
        here[limit:], there[:limit] = np.nan, np.nan
        words = {"operand": here.ctypes.data, "first": there.ctypes.data, "limit": limit, "row": length + 3}
        words |= {"length": length, "run": run_length(length), "weights": weights.ctypes.data}
        return [words[name] for name in TERM]


@pytest.mark.parametrize("element_bytes", [4, 8])
@pytest.mark.parametrize(("shape", "width"), [("avx2", 2), ("avx512", 2), ("avx512", 3), ("avx512", 4)])
def test_sums_are_those_of_numpy(shape: str, element_bytes: int, width: int) -> None:
    target, kind = SHAPED[shape], KIND[element_bytes]
    run = load(routine_name(width, element_bytes, target), routine(width, element_bytes, target))
    most = 2 * most_rows(width, target) + 1
    for rows in range(1, most + 1):
        for panels in range(1, 8):
            for lengths in ([], [0], [1], [7], [5, 0, 6], [33, 2], [150, 2 * LONGEST + 3, 9, 1]):
                call = Call(rows, panels, width, target.lanes(element_bytes), lengths, kind)
                run(call.table.ctypes.data, 1)
                found, beyond = call.room[:, :rows], call.room[:, rows:]
                tolerance = 1e-4 if element_bytes == 4 else 1e-12
                np.testing.assert_allclose(
                    found, call.sums, rtol=tolerance, atol=tolerance, err_msg=f"{rows} {panels} {lengths}"
                )
                assert np.isnan(beyond).all()


@pytest.mark.parametrize("vector_bytes", WIDTHS)
def test_all_cells_share_it(vector_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWISE_CACHE", str(tmp_path))
    target, widths = with_vectors_of(vector_bytes), set()
    for number, name in enumerate(("rnn", "lstm", "gru"), start=1):
        routine.cache_clear()  # as a process that starts
        program = forward_program(cells.get(name).graph, None)
        llvm_compiler(target).compile(program, torch.float32)
        widths |= set(widths_of(program, target))
        assert len(list((tmp_path / "kernels").iterdir())) == number + len(widths)
    # Sixteen registers hold panels of two vectors only; thirty-two hold the four gates of an LSTM in one.
    assert widths == ({2} if target.registers == 16 else {2, 4})


@pytest.mark.parametrize("shape", ["avx2", "avx512"])
def test_the_last_pair_may_want_some_of_its_panels(shape: str) -> None:
    target = SHAPED[shape]
    run = load(routine_name(2, 4, target), routine(2, 4, target))
    for rows in (1, 2, 3, 9):
        for pair, wanted in ((1, 3), (0, 6)):
            call = Call(rows, 6, 2, target.lanes(4), [5, 7], np.float32, of_last=3)
            run(call.table.ctypes.data, pair)
            is_there = np.isfinite(call.room[:, :rows]).all(axis=(1, 2, 3))
            assert is_there.tolist() == [True] * wanted + [False] * (6 - wanted)
            if pair == 1:
                np.testing.assert_allclose(
                    call.room[:wanted, :rows], call.sums[:wanted], rtol=1e-4, atol=1e-4
                )


def test_it_is_made_anew_when_its_emitter_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWISE_CACHE", str(tmp_path))
    emitter, made = tmp_path / "emitter.py", []

    def emit() -> ir.Module:
        made.append(emitter.read_text())
        nothing = Code("nothing", 4, host())
        nothing.b.ret_void()
        return nothing.module

    for text in ("a", "a", "b", "a"):
        emitter.write_text(text)
        object_code_by(emit, "nothing", [emitter], host())
    assert made == ["a", "b"]


def test_all_that_makes_it_is_watched() -> None:
    names = {f"cellwise.backends.cpu.{file.stem}" for file in BF16_MADE_BY}
    for file in BF16_MADE_BY:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cellwise.backends"):
                assert node.module in names | {"cellwise.backends.cpu.compile"}, file.name
