"""Products of bfloat16 on tile registers.

Loops that stand for the instructions run on every machine. The instructions themselves run where there is a C compiler,
on an emulator (`amx_emulator.c`); a processor that has them is asked for by the last test alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_bf16 import BF16, Bf16Call, Own, check
from test_products import STRIDE

import cellwise
from cellwise.backends.compiled.cell_kernels import kernels_for, kernels_of
from cellwise.backends.cpu import amx_support
from cellwise.backends.cpu.amx import FEWEST_ROWS, INSTRUCTIONS, LOOPS, NUMBERS
from cellwise.backends.cpu.amx_support import VARIABLE, Support, computes_what_it_must, on_configured_tiles
from cellwise.backends.cpu.bf16_kernel import emit_bf16, with_wide_states
from cellwise.backends.cpu.bf16_products import Bf16Products
from cellwise.backends.cpu.compile import optimized
from cellwise.backends.cpu.products import TERM
from cellwise.backends.cpu.target import Target, host, with_vectors_of
from cellwise.errors import CellwiseError
from cellwise.nn import plain
from cellwise.plan.forward import forward_program

SAPPHIRE_RAPIDS = Target(
    "x86_64-unknown-linux-gnu", "sapphirerapids", "", 64, 32, dots=True, tiles=INSTRUCTIONS
)
EMULATOR = Path(__file__).with_name("amx_emulator.c")


def on_loops(vector_bytes: int) -> Target:
    return replace(with_vectors_of(vector_bytes), tiles=LOOPS)


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Layers of bfloat16 multiply on tiles, by loops."""

    def forget() -> None:
        plain._ROUTES.clear()
        for remembered in (amx_support.support, amx_support.may_have_tiles, kernels_for, kernels_of):
            remembered.cache_clear()

    monkeypatch.setenv(VARIABLE, LOOPS)
    forget()
    yield
    monkeypatch.undo()
    forget()


# --- the routine ------------------------------------------------------------------------------------------------------


class TileCall(Bf16Call):
    """All rows of an operand lie in one place, with zeros up to a whole tile and NaN behind; so do those of weights."""

    def term(self, length: int, limit: int) -> list[int]:
        wide = -(-length // NUMBERS) * NUMBERS
        rows, row = torch.randn(self.rows, length).to(BF16), wide + 3
        weights = torch.randn(2, self.panels, length, self.width, self.lanes).to(BF16)
        self.sums += torch.einsum("rk,pkvl->prvl", rows.double(), weights[1].double()).numpy()
        packed = torch.zeros(2, self.panels, wide, self.width, self.lanes).to(BF16)
        packed[:, :, :length] = weights
        packed = packed.unflatten(2, (wide // 2, 2)).permute(0, 1, 2, 4, 5, 3).contiguous()
        given = torch.full((self.rows, row), torch.nan).to(BF16)
        given[:, :wide] = 0
        given[:, :length] = rows
        nowhere = np.full((self.rows, row), np.nan, np.float32).view(np.int16)
        given, packed = (each.view(torch.int16).numpy() for each in (given, packed))
        self.held += [given, nowhere, packed]
        first, second = (given, nowhere) if limit else (nowhere, given)
        told = {"operand": first.ctypes.data, "first": second.ctypes.data, "limit": self.rows if limit else 0}
        told |= {"row": row, "length": length, "run": 0, "weights": packed.ctypes.data}
        return [told[name] for name in TERM]


@pytest.mark.parametrize(("vector_bytes", "width"), [(64, 2), (64, 3), (64, 4), (32, 2), (16, 2)])
def test_sums_are_those_of_numpy(vector_bytes: int, width: int) -> None:
    """Every number of rows around one and two tiles, and below those that take tiles."""
    target = on_loops(vector_bytes)
    run = on_configured_tiles(width, target)
    for rows in (1, 3, 7, FEWEST_ROWS, 9, 15, 16, 17, 31, 32, 33, STRIDE):
        for panels, lengths in ((1, []), (3, [1]), (2, [32, 5]), (1, [64, 33, 96])):
            call = TileCall(rows, panels, width, target.lanes(4), lengths, np.float32)
            run(call.table.ctypes.data, 1)
            told = f"{rows} {panels} {lengths}"
            np.testing.assert_allclose(call.room[:, :rows], call.sums, rtol=1e-4, atol=1e-4, err_msg=told)
            assert np.isnan(call.room[:, rows:]).all(), told


def test_the_last_pair_may_want_some_of_its_panels() -> None:
    run = on_configured_tiles(2, on_loops(64))
    call = TileCall(20, 6, 2, 16, [40], np.float32, of_last=3)
    run(call.table.ctypes.data, 1)
    assert np.isfinite(call.room[:, :20]).all(axis=(1, 2, 3)).tolist() == [True] * 3 + [False] * 3


# --- layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "sizes"),
    [("lstm", (6, 20, 7, 33)), ("gru", (6, 9, 64, 32)), ("rnn", (6, 40, 32, 65)), (Own, (12, 17, 5, 33))],
)
def test_every_result_is_as_near_as_torchs(loops: None, cell: str, sizes: tuple[int, int, int, int]) -> None:
    check(cell, *sizes)


def test_a_projection(loops: None) -> None:
    check("lstm", 12, 19, 24, 48, proj_size=31)


@pytest.mark.parametrize(("inputs", "hidden"), [(20, 37), (32, 64)])
def test_ragged_rows(loops: None, inputs: int, hidden: int) -> None:
    """Rows whose states lie in two places, numbers of rows that change from step to step, NaN behind all rows."""
    torch.manual_seed(0)
    lengths = torch.tensor([9, 9, 9, 8, 8, 8, 7, 6, 5, 5, 5, 4, 4, 3, 3, 2, 1, 1])
    x = torch.randn(9, 18, inputs).to(BF16)
    options = {"bidirectional": True, "dtype": BF16}
    layers = [
        cellwise.Recurrent("gru", inputs, hidden, backend=each, **options) for each in ("cpu", "reference")
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    ours, other = (layer(x, lengths=lengths) for layer in layers)
    for a, b in zip(ours, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)


def test_bits_do_not_depend_on_other_rows(loops: None) -> None:
    """From eight rows on, and whatever the tiles are that a row is in."""
    layer = cellwise.Recurrent("lstm", 5, 50, backend="cpu", dtype=BF16)
    x = torch.randn(4, 45, 5).to(BF16)
    wanted = layer(x)[0]
    for first, count in ((3, 9), (10, 17), (1, 44), (0, 33)):
        assert torch.equal(layer(x[:, first : first + count])[0], wanted[:, first : first + count]), count


# --- the instructions -------------------------------------------------------------------------------------------------


def assembly(source: str) -> str:
    module, machine = optimized(source, SAPPHIRE_RAPIDS)
    return machine.emit_assembly(module)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_loops_are_loads_and_products_alone(width: int) -> None:
    """LLVM makes them for a processor that has them: four loads for four products, and no tile is put away."""
    module = Bf16Products(width, SAPPHIRE_RAPIDS).emit()
    text = assembly(str(module))
    assert text.count("tilestored") == str(module).count('call void @"llvm.x86.tilestored64"')
    bodies = re.findall(r"\n(\.LBB\d+_\d+):((?:(?!\n\.LBB)[\s\S])*?)\tj\w+\t\1\n", text)
    loops = [body for _, body in bodies if "tdpbf16ps" in body]
    assert any(body.count("tdpbf16ps") == 4 == body.count("tileloadd") for body in loops)
    for body in loops:
        assert not re.search(r"tilestored|call|ldtilecfg|zmm|\(%rsp", body), body


def test_a_kernel_configures_tiles_and_releases_them() -> None:
    program = with_wide_states(forward_program(cellwise.cells.get("lstm").graph, None))
    text = assembly(str(emit_bf16(program, SAPPHIRE_RAPIDS)))
    assert text.count("\tldtilecfg") == text.count("\ttilerelease") == 1
    without = assembly(str(emit_bf16(program, replace(SAPPHIRE_RAPIDS, tiles=""))))
    assert "tile" not in without


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or not host().triple.startswith("x86_64") or host().vector_bytes < 64:
        pytest.skip("the emulator of AMX needs a C compiler, and a processor with AVX-512")
    made = tmp_path_factory.mktemp("amx") / "emulator.so"
    options = ["-O2", "-mfma", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", made, EMULATOR, "-lm"], check=True)
    return made


def told(emulator: Path, how: str) -> list[str]:
    script = Path(__file__).with_name("amx_runs.py")
    done = subprocess.run(
        [sys.executable, script, emulator, how], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_instructions_have_the_bits_of_the_loops(emulator: Path) -> None:
    """All kernels of four cells, on an emulator that refuses tiles which are not configured, or do not fit."""
    support, runs, counts = told(emulator, "right")
    assert support == str(Support(INSTRUCTIONS))
    assert runs == "28 runs"
    done = dict(re.findall(r"'(\w+)': (\d+)", counts))
    assert int(done["products"]) > 1000 and int(done["configurations"]) >= int(done["releases"]) > 0


def test_wrong_sums_are_found_out(emulator: Path) -> None:
    assert "products of known numbers by AMX came out wrong" in told(emulator, "wrong")[0]


# --- who has them -----------------------------------------------------------------------------------------------------


def test_a_system_that_refuses_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(amx_support, "processor_has_tiles", lambda: True)
    monkeypatch.setattr(amx_support, "refusal", lambda: "Operation not supported")
    amx_support.support.cache_clear()
    found = amx_support.support()
    amx_support.support.cache_clear()
    assert not found.form and found.why_not.endswith(
        "does not grant AMX to this process: Operation not supported"
    )


def test_another_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "on")
    amx_support.support.cache_clear()
    with pytest.raises(CellwiseError, match="CELLWISE_AMX is 'on'; it must be off or loops, or not set"):
        amx_support.support()


def test_the_loops_pass_the_check_that_instructions_must_pass() -> None:
    assert computes_what_it_must(on_loops(64))


@pytest.mark.skipif(
    not amx_support.processor_has_tiles(),
    reason="this processor has no AMX: its instructions ran emulated at most",
)
def test_this_processor_computes_what_it_must() -> None:
    assert not amx_support.refusal()
    assert computes_what_it_must(replace(host(), tiles=INSTRUCTIONS))
