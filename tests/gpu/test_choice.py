"""What "auto" chooses on CUDA tensors, by the measured table; layouts, and what a layer too large is told."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from agreement import Normed, Several, ThreeProducts
from compile_only import H100, Listing

from cellwise import Cell, cells, sigmoid, tanh
from cellwise.backends import registry
from cellwise.backends.base import CallContext, LayerSpec, Workload
from cellwise.backends.cuda.choice import chosen, written
from cellwise.backends.cuda.compiler import CudaCompiler
from cellwise.backends.cuda.expressions import LOWERINGS
from cellwise.backends.cuda.layout import BY_CUBLAS, Device, Form, Layout, layout_for, trying
from cellwise.backends.cuda.numbers import BF16, F32
from cellwise.backends.cuda.reductions import TOGETHER
from cellwise.backends.cuda_preference import preferred_on_cuda
from cellwise.graph.ops import POINTWISE, REDUCTIONS
from cellwise.plan.backward import backward_plan

DEVICES = {
    "A100": Device("sm_80", 108, 163 * 1024),
    "a slice of an A100": Device("sm_80", 14, 163 * 1024),
    "RTX 3060": Device("sm_86", 28, 99 * 1024),
    "Orin": Device("sm_87", 8, 163 * 1024),
    "a slice of an H100": Device("sm_90", 16, 227 * 1024),
    "B200": Device("sm_100", 148, 227 * 1024),
    "one multiprocessor": Device("sm_89", 1, 99 * 1024),
    "no blocks together": Device("sm_90", 132, 227 * 1024, together=False),
}


def test_every_op_has_an_expression() -> None:
    assert set(LOWERINGS) == set(POINTWISE) and set(TOGETHER) == set(REDUCTIONS)


def _chosen(
    cell: str,
    T: int,
    B: int,
    H: int,
    dtype: torch.dtype = torch.bfloat16,
    capability: tuple[int, int] = (9, 0),
) -> str | None:
    stack = LayerSpec(cells.get(cell).graph, H, H)
    context = CallContext(torch.device("cuda", 0), dtype)
    found = preferred_on_cuda(stack, context, Workload(T, B, T * B, False, True, True, 1), capability)
    return None if found is None else found.backend


def test_auto_takes_what_was_measured_to_be_faster() -> None:
    assert _chosen("lstm", 512, 64, 256) == "cuda"
    assert _chosen("gru", 1024, 16, 768, torch.float16) == "cuda"
    assert _chosen("lstm", 1024, 16, 64, torch.float32) == "native"
    assert _chosen("lstm", 4, 16, 64, torch.float16) == "native", "a call's own time decides of few steps"


def test_auto_leaves_torchs_operator_where_nothing_was_measured() -> None:
    assert _chosen("rnn", 512, 64, 256) is None
    assert _chosen("lstm", 512, 64, 256, capability=(8, 0)) is None
    assert _chosen("lstm", 512, 64, 4096) is None
    assert _chosen("lstm", 512, 4096, 16) is None


@pytest.mark.parametrize("cell", ["layernorm-gru", "time-aware-lstm", Several(), "lstm-peephole"], ids=str)
def test_auto_takes_them_for_cells_that_torch_has_no_operator_for(
    cell: str | Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in registry.BACKENDS:
        willing = each.name in ("cuda", "reference")
        monkeypatch.setattr(type(each), "supports", lambda *_, yes=willing: None if yes else "it cannot")
    stack = LayerSpec(cells.get(cell).graph, 64, 64)
    context = CallContext(torch.device("cuda", 0), torch.bfloat16)
    assert registry.explain("auto", stack, context).chosen == "cuda"


def test_the_reason_has_the_call_and_the_figure() -> None:
    stack = LayerSpec(cells.get("lstm").graph, 256, 256)
    context = CallContext(torch.device("cuda", 0), torch.bfloat16)
    said = preferred_on_cuda(stack, context, Workload(512, 64, 512 * 64, False, True, True, 1), (9, 0))
    assert said is not None
    assert said.reason.startswith("by measurements on an H100 ") and "T=512, B=64, H=256" in said.reason


def _layout(hidden: int, device: Device, projected: int = 0, batch: int = 64) -> Layout:
    program = backward_plan(cells.get("lstm").graph, projected > 0).program
    width = -(-hidden // 32) * 32
    form = Form(BF16, hidden, width, True, False, True, True, frozenset(), projected, projected)
    return layout_for(program, form, batch, device)


@pytest.mark.parametrize(("hidden", "kind"), [(64, "narrow"), (128, "narrow"), (129, "wide"), (1024, "wide")])
def test_small_layers_keep_to_themselves_and_larger_ones_share(hidden: int, kind: str) -> None:
    layout = _layout(hidden, H100)
    assert layout.kind == kind
    if kind == "wide":
        blocks = -(-hidden // layout.units)
        assert blocks * -(-64 // layout.rows) <= H100.multiprocessors, "all rows are at work at once"


def test_a_block_has_a_thread_for_each_number() -> None:
    with pytest.raises(ValueError, match="fewer than"):
        Layout("wide", units=16, warps=4, tiles=2, at_once=2)


def test_weights_beyond_the_registers_go_step_by_step() -> None:
    few = Device("sm_80", 20, 160 * 1024)
    for hidden, device, kind in ((1024, H100, "wide"), (1536, H100, "stepwise"), (1024, few, "stepwise")):
        assert _layout(hidden, device).kind == kind


class ManyInputs(Cell):
    """One product in time, and more gates of the input than the shared memory of a small device has reads of."""

    gates = tuple(f"g{i}" for i in range(48))
    states = ("h",)

    def step(self, x, h):
        return tanh(sum((sigmoid(getattr(x, gate)) for gate in self.gates[1:]), x.g0 + h.g0))


@pytest.mark.parametrize("name", DEVICES)
def test_whatever_is_chosen_can_be_launched(name: str) -> None:
    """On devices that nobody measured: any size, and never more than a block or the device has."""
    device, kinds = DEVICES[name], set()
    for cell in ("lstm", "gru-reset-before", "mingru", Normed, Several, ThreeProducts, ManyInputs):
        program = backward_plan(cells.get(cell).graph, False).program
        for number, hidden, batch in (
            (BF16, 17, 1),
            (BF16, 128, 300),
            (F32, 64, 5),
            (F32, 100, 5),
            (F32, 520, 64),
            (BF16, 900, 9000),
        ):
            width = -(-hidden * number.bytes // 64) * 64 // number.bytes
            form = Form(number, hidden, width, True, False, frozenset(), False, frozenset())
            layout, because = chosen(program, form, batch, Listing(device))
            blocks = width // layout.units
            if layout.kind == "wide":
                assert width % layout.units == 0 and blocks <= device.multiprocessors and device.together
            assert layout.threads <= 512 and written(program, form, layout)[0].shared_bytes <= device.shared
            assert (because is not None) == (layout.kind in BY_CUBLAS)
            kinds.add(layout.kind)
    assert {"narrow", "stepwise", "rowwise"} <= kinds
    assert ("wide" in kinds) == (device.together and device.multiprocessors > 1)


@pytest.mark.parametrize(
    ("cell", "hidden", "device", "reason"),
    [
        ("lstm", 2048, H100, "the registers of 132 multiprocessors do not hold the weights"),
        ("lstm", 512, DEVICES["one multiprocessor"], "the registers of 1 multiprocessor do not hold the weights"),
        ("lstm", 512, DEVICES["no blocks together"], "this device starts no blocks that wait for each other"),
        (ManyInputs, 128, DEVICES["RTX 3060"], "a block would want more shared memory than the 99 KiB of this device"),
        ("mingru", 2**21, H100, "2097152 units are more than a launch has blocks for"),
        ("layernorm-lstm", 512, H100, "a block, which is to have all units, does not hold the weights"),
    ],
)  # fmt: skip
def test_explain_says_why_a_call_goes_step_by_step(
    cell: str | type[Cell], hidden: int, device: Device, reason: str
) -> None:
    stack = LayerSpec(cells.get(cell).graph, 8, hidden)
    context = CallContext(torch.device("cuda", 0), torch.bfloat16)
    assert CudaCompiler().described(stack, context, 9, 64, Listing(device)).endswith(f", since {reason}")


def test_explain_is_told_the_layouts_of_both_ways() -> None:
    stack = LayerSpec(cells.get("lstm").graph, 8, 4096)
    context = CallContext(torch.device("cuda", 0), torch.bfloat16)
    assert (
        CudaCompiler().described(stack, context, 9, 64, Listing()).startswith("stepwise, products by cuBLAS")
    )
    small = replace(stack, hidden_size=512)
    assert re.fullmatch(
        r"wide, 16 units and \d+ rows a block, \d+ warps",
        CudaCompiler().described(small, context, 9, 64, Listing()),
    )


def test_few_rows_of_a_cell_without_products_run_in_stretches_of_time() -> None:
    stack = LayerSpec(cells.get("mingru").graph, 8, 64)
    context = CallContext(torch.device("cuda", 0), torch.bfloat16)
    told = {
        (T, B): CudaCompiler().described(stack, context, T, B, Listing()).split(",")[0]
        for T, B in ((16384, 4), (100, 4), (16384, 4096))
    }
    assert told == {(16384, 4): "scan", (100, 4): "narrow", (16384, 4096): "solo"}


@pytest.mark.parametrize(
    ("hidden", "kind"), [(64, "narrow"), (128, "narrow"), (256, "rowwise"), (4096, "rowwise")]
)
def test_a_cell_that_adds_up_over_units_has_its_rows_whole(hidden: int, kind: str) -> None:
    stack = LayerSpec(cells.get("layernorm-lstm").graph, 8, hidden)
    context = CallContext(torch.device("cuda", 0), torch.bfloat16)
    told = CudaCompiler().described(stack, context, 9, 64, Listing())
    assert told.startswith(kind) and "backward" not in told
    with trying(Layout("wide"), Layout("narrow", warps=1)):
        assert CudaCompiler().described(stack, context, 9, 64, Listing()) == told, (
            "a layout that parts rows is not taken"
        )


def test_what_the_kernels_have_no_words_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = next(each for each in registry.BACKENDS if each.name == "cuda")
    context = CallContext(torch.device("cuda", 0), torch.float32)
    for name, table in (("tanh", LOWERINGS), ("mean", TOGETHER)):
        graph = replace(cells.get("layernorm-lstm").graph, name=f"without {name}")
        monkeypatch.delitem(table, name)
        assert backend.supports(LayerSpec(graph, 8, 8), context) == f"these kernels know no {name}"
        monkeypatch.undo()


@pytest.mark.parametrize(("batch", "kind"), [(256, "wide"), (512, "stepwise")])
def test_blocks_do_not_go_through_many_rows_in_turn(batch: int, kind: str) -> None:
    assert _layout(512, H100, batch=batch).kind == kind


def test_projected_states_go_step_by_step() -> None:
    assert _layout(64, H100, 32).kind == "stepwise"
