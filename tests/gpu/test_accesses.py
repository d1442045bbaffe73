"""What kernels do to memory, each read and write of it: where a device would stop, or read what is not there yet.

The emulation looks at every kernel that it runs (`sanitizer.h`), in all tests. Here is shown that it sees each kind of
fault, and that calls whose tensors lie in unusual places are without.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from emulated import Emulated, EmulatedLauncher, MemoryFaultError, Schedule
from torch import Tensor

from cellwise import Cell, Recurrent, cells, tanh
from cellwise.backends import registry
from cellwise.backends.compiled.cell_kernels import kernels_for
from cellwise.backends.compiled.forward_pass import ForwardPass
from cellwise.backends.compiled.time_schedule import even_schedule
from cellwise.backends.cuda.layout import STEPWISE, Layout, trying
from cellwise.backends.reference.loop import run_direction
from cellwise.errors import InputError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation is compiled by g++")
EMULATED = Emulated(run_direction)
WIDE = Layout("wide", units=16, warps=4, hold=1)
SOLO, LANES = Layout("solo", warps=2), Layout("lanes", warps=4, tiles=2)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, EMULATED))
    monkeypatch.setattr(Schedule, "seed", 0)


# --- faults are seen ------------------------------------------------------------------------------------------------

SHARED = "SHARED_MEMORY; const int t = threadIdx.x; float* s = (float*)shared; "


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (None, SHARED + "s[t] = x[t]; __syncthreads(); y[t] = s[63 - t] + s[t];"),
        (None, SHARED + "copy_ahead((u32*)s + t, x + t, true); end_group(); wait_until_left<0>(); y[t] = s[t];"),
        ("misaligned: read of 4", SHARED + "y[t] = *(const float*)((const char*)x + 2);"),
        ("misaligned: read of 16", SHARED + "y[t] = load_posted(x + 1).w[0];"),
        ("outside: read of 4", SHARED + "y[t] = x[t + 1];"),
        ("outside: write of 4", SHARED + "y[t - 1] = 0;"),
        ("outside: write of 4", SHARED + "((float*)x)[t] = 0;"),
        ("outside: write of 4", SHARED + "s[t + 64] = 0;"),
        ("race", SHARED + "s[t] = x[t]; y[t] = s[63 - t];"),
        ("race", SHARED + "s[t] = x[t]; __syncthreads(); y[t] = s[63 - t]; s[t] = 0;"),
        ("race", SHARED + "y[0] = s[t];"),
        ("race", SHARED + "if (blockIdx.x == 0) y[t] = 0; __syncthreads(); if (blockIdx.x) s[t] = y[t];"),
        ("stale: read of 4", SHARED + "y[t] = 0; s[t] = load_u32(y + t);"),
        ("overflow", SHARED + "if (t == 5) y[t] = n * 2;"),
    ],
)  # fmt: skip
def test_each_kind_of_fault_is_seen(kind: str | None, body: str) -> None:
    """A kernel of a block of 64 threads, or of two blocks, which has a number of each array for each thread."""
    declarations = ("const float* x", "float* y", "int n")
    source = f'extern "C" __global__ void cellwise_kernel({", ".join(declarations)}) {{ {body} }}\n'
    values = [torch.randn(64), torch.zeros(64), 2**31 - 1]
    launcher = EmulatedLauncher(source, 64 * 4, declarations)
    blocks = 2 if "blockIdx" in body else 1
    if kind is None:
        launcher.launch((blocks, 1), 64, values, False)
    else:
        with pytest.raises(MemoryFaultError, match=kind):
            launcher.launch((blocks, 1), 64, values, False)


def test_copies_that_nobody_waited_for_are_not_there() -> None:
    body = SHARED + "copy_ahead((u32*)s + t, x + t, true); end_group(); y[t] = s[t];"
    declarations = ("const float* x", "float* y")
    source = f'extern "C" __global__ void cellwise_kernel({", ".join(declarations)}) {{ {body} }}\n'
    x, y = torch.randn(32), torch.zeros(32)
    Schedule.seed = 1
    EmulatedLauncher(source, 32 * 4, declarations).launch((1, 1), 32, [x, y], False)
    assert y.isnan().all()


# --- and there are none ---------------------------------------------------------------------------------------------


class Early(Cell):
    """Backward its gradient is carried on before the product that is multiplied by it, the only one of a step."""

    gates = ("a", "b")
    states = ("h",)
    outputs = ("y", "z")

    def step(self, x, h):
        return tanh(x.a) + tanh(h), x.b + h, tanh(x.b).b


class ReadOut(Cell):
    """The same forward: its state goes on without a product, and its output is one of the state before."""

    gates = ("a", "b")
    states = ("h",)
    outputs = ("y", "h")

    def step(self, x, h):
        return tanh(x.a + h.a), 0.5 * h + tanh(x.b)


@pytest.mark.parametrize("cell", [Early, ReadOut])
@pytest.mark.parametrize("layout", [None, SOLO, LANES, WIDE], ids=str)
def test_no_warp_writes_the_state_after_next_where_another_still_reads(
    cell: type[Cell], layout: Layout | None
) -> None:
    dtype = torch.float32 if layout is LANES else torch.bfloat16
    layer = Recurrent(cell, 3, 32, backend="emulated", dtype=dtype, bias=False)
    x = torch.randn(4, 3, 3, dtype=dtype)
    with trying(layout, layout):
        one, other = layer(x)[0]
        (one.sum() + other.sum()).backward()


@pytest.mark.parametrize(("layout", "dtype"), [(LANES, torch.float32), (SOLO, torch.bfloat16)], ids=str)
def test_rows_that_two_stages_multiply_by_are_put_in_place_once(layout: Layout, dtype: torch.dtype) -> None:
    layer = Recurrent("scrn", 3, 32, backend="emulated", dtype=dtype)
    layer.recompute = True
    with trying(layout, layout):
        layer(torch.randn(2, 3, 3, dtype=dtype))[0].sum().backward()


def _elsewhere(tensor: Tensor, by: int = 1) -> Tensor:
    """The same numbers one after the other, behind so many others."""
    flat = torch.zeros(by + tensor.numel(), dtype=tensor.dtype)
    flat[by:] = tensor.detach().reshape(-1)
    return flat[by:].view(tensor.shape)


def _results(layer: Recurrent, given: dict[str, Any], joins: bool) -> list[Tensor]:
    """Of a call and its backward pass, in which the gradient may arrive as part of a larger one."""
    x, h, dt = (given[name].detach().requires_grad_() for name in ("x", "h", "dt"))
    y, state = layer(x, (h, h), dt=dt, lengths=given["lengths"])
    total = (y * torch.linspace(0, 1, y.numel()).to(y).view(y.shape)).sum()
    if joins:
        weights = torch.linspace(0, 1, y.numel()).to(y)
        total = (torch.cat([y.new_ones(1), y.reshape(-1)]) * torch.cat([y.new_ones(1), weights])).sum()
    return [y, *state, *torch.autograd.grad(total, [x, h, dt, *layer.parameters()])]


def _weights(layer: Recurrent) -> None:
    for name, each in list(layer.named_parameters()):
        setattr(layer, name, torch.nn.Parameter(_elsewhere(each)))


CHANGES: dict[str, Callable[[Recurrent, dict[str, Any]], object]] = {
    **{name: lambda _, given, name=name: given.update({name: _elsewhere(given[name])}) for name in ("x", "h", "dt")},
    "weights": lambda layer, _: _weights(layer),
    "gradient": lambda _, given: None,
}  # fmt: skip


@pytest.mark.parametrize("lengths", [None, [3, 1, 2, 3]], ids=["dense", "ragged"])
@pytest.mark.parametrize(
    ("layout", "dtype"), [(None, torch.bfloat16), (WIDE, torch.float32), (STEPWISE, torch.float16)], ids=str
)
def test_what_a_caller_gives_may_begin_anywhere(
    layout: Layout | None, dtype: torch.dtype, lengths: list[int] | None
) -> None:
    """A view of a larger tensor begins at any number: a flat tensor of all weights, a gradient of what was joined."""
    torch.manual_seed(0)
    layer = Recurrent("time-aware-lstm", 5, 32, backend="emulated", dtype=dtype)
    plain = {name: torch.rand(shape).to(dtype) for name, shape in (("x", (3, 4, 5)), ("h", (1, 4, 32)))}
    plain |= {"dt": torch.rand(3, 4, 32).to(dtype), "lengths": lengths}
    with trying(layout, layout):
        wanted = _results(layer, plain, False)
        for name, change in CHANGES.items():
            given = dict(plain)
            change(layer, given)
            found = _results(layer, given, name == "gradient")
            assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)), name


FAR = 2**25  # steps: of 4 rows with 32 numbers each these are 2**32 numbers


def _begun_far(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """After each launch the same of its later steps, as if FAR others came first: what it writes must be the same.

    Returns:
        The names of what was compared.
    """
    launch, compared = EmulatedLauncher.launch, []

    def again(
        launcher: EmulatedLauncher,
        grid: tuple[int, int],
        threads: int,
        values: list[Tensor | int],
        together: bool,
    ) -> None:
        launch(launcher, grid, threads, values, together)
        given = {
            each.rsplit(" ", 1)[1]: value for each, value in zip(launcher.arguments, values, strict=True)
        }
        written = {each.rsplit(" ", 1)[1] for each in launcher.arguments if not each.startswith("const ")}
        steps, batch = given["T"], given["B"]
        assert isinstance(steps, int) and isinstance(batch, int)
        held = {name: each.clone() for name, each in given.items() if isinstance(each, Tensor)}
        numbers = {name: each if isinstance(each, int) else each.data_ptr() for name, each in given.items()}
        numbers |= {"T": steps + FAR, "begin": FAR + 1, "end": steps + FAR}
        begins: dict[str, Tensor] = {}
        rows = {name: each for name, each in held.items() if each[..., 0].numel() == steps * batch}
        for name in rows:
            tensor = given[name]
            assert isinstance(tensor, Tensor)
            numbers[name] -= FAR * batch * tensor.shape[-1] * tensor.element_size()
            if name in written:
                tensor[batch:].view(torch.int32 if tensor.element_size() == 4 else torch.int16).fill_(-1)
            if name.startswith("history_") and not given["backwards"]:  # what the step before left
                begins[name.replace("history", "first")] = rows[name][:batch].clone()
        numbers |= {name: each.data_ptr() for name, each in begins.items()}
        known = launcher._ranges([begins.get(name, each) for name, each in given.items()])
        launcher.start(grid, threads, [numbers[name] for name in given], known)
        for name, wanted in held.items():
            tensor = given[name]
            assert isinstance(tensor, Tensor)
            if name in rows and name in written:
                assert torch.equal(tensor[batch:], wanted[batch:]), name
                compared.append(name)
            tensor.copy_(wanted)

    monkeypatch.setattr(EmulatedLauncher, "launch", again)
    return compared


@pytest.mark.parametrize("layout", [SOLO, LANES, WIDE], ids=str)
def test_numbers_whose_place_no_int_holds_are_found(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = _begun_far(monkeypatch)
    layer = Recurrent("time-aware-lstm", 5, 32, backend="emulated")
    x, dt = torch.randn(3, 4, 5), torch.rand(3, 4, 32)
    with trying(layout, layout):
        layer(x.requires_grad_(), dt=dt.requires_grad_())[0].sum().backward()
    assert {"rows_output", "history_h_before", "rows_tape", "rows_gates"} <= {*compared}, compared


def test_more_rows_than_an_int_counts_are_refused() -> None:
    kernels = kernels_for(cells.get("gru").graph, torch.float32, EMULATED.compiler(), False, False)
    schedule = even_schedule(2**15, 2**16, False)
    made = ForwardPass(kernels, True, (1, 1, 0), schedule, False, False, torch.device("cpu"))
    with pytest.raises(InputError, match=r"T=32768 and B=65536 has 2,147,483,648 rows.* fewer sequences"):
        kernels.inference.open(made.shape)
