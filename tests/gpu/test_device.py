"""The kernels on a device: every conformance case, larger layers, and what torch does around them. `make test-gpu`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from agreement import BOUNDS, Given, Normed, Several, ThreeProducts, check, on_streams
from torch import Tensor

from cellwise import Cell, Recurrent, cells
from cellwise.backends.cuda.driver import CudaMachine
from cellwise.backends.cuda.layout import Layout
from cellwise.errors import InputError
from cellwise.nn import explain
from cellwise.testing import CASES, Case, cases_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

OURS = [case for case in CASES if not case.proj_size]
# Whose derivatives do not jump where a number is rounded, not many layers one upon the other, no norms of few units.
SMOOTH = [
    case
    for case in OURS
    if case.cell.name not in ("indrnn", "layernorm-gru") and "relu" not in str(case) and case.num_layers < 3
]
WIDE = Layout("wide", units=8, warps=4, hold=300)
LOOPS = Layout("wide", units=8, warps=2, tiles=4, at_once=1, chunk=1)


@pytest.mark.parametrize("case", OURS, ids=str)
def test_a_case_agrees_with_float64(case: Case) -> None:
    check(case, "cuda", device="cuda")


@pytest.mark.parametrize("number", ["bfloat16", "float16", "tf32"])
@pytest.mark.parametrize("case", SMOOTH[::5], ids=str)
def test_a_case_agrees_in_fewer_digits(case: Case, number: str) -> None:
    check(case, "cuda", number, device="cuda")


@pytest.mark.parametrize("layout", [WIDE, LOOPS], ids=str)
@pytest.mark.parametrize("case", OURS[::4], ids=str)
def test_a_case_agrees_in_other_layouts(case: Case, layout: Layout) -> None:
    check(case, "cuda", layout=layout, device="cuda")


@pytest.mark.parametrize("case", OURS[::6], ids=str)
def test_a_case_agrees_where_steps_are_recomputed(case: Case) -> None:
    check(replace(case, recompute=True), "cuda", device="cuda")


@pytest.mark.parametrize("number", ["bfloat16", "float16", "tf32", "float32"])
@pytest.mark.parametrize("hidden", [33, 100, 256, 500, 512])
@pytest.mark.parametrize("cell", ["lstm", "gru", "gru-reset-before", ThreeProducts], ids=str)
def test_larger_layers_agree(cell: str | type[Cell], hidden: int, number: str) -> None:
    case = replace(cases_of(cell)[0], steps=20, batch=37, input_size=40, hidden_size=hidden, initial=True)
    check(case, "cuda", number, device="cuda")


@pytest.mark.parametrize("number", BOUNDS)
@pytest.mark.parametrize("hidden", [64, 128, 256])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_layers_of_some_units_come_as_near_as_their_numbers_allow(
    cell: str, hidden: int, number: str
) -> None:
    case = replace(cases_of(cell)[0], steps=20, batch=37, input_size=32, hidden_size=hidden)
    check(case, "cuda", number, device="cuda", bound=BOUNDS[number])


@pytest.mark.parametrize("number", ["tf32", "float32"])
@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("cell", ["lstm", "gru-reset-before", "layernorm-gru", ThreeProducts], ids=str)
def test_lanes_that_share_a_unit_agree(cell: str | type[Cell], rows: int, number: str) -> None:
    case = replace(
        cases_of(cell)[0], steps=20, batch=37, input_size=9, hidden_size=50, initial=True, resets=True
    )
    check(case, "cuda", number, layout=Layout("lanes", warps=8, tiles=rows), device="cuda")


@pytest.mark.parametrize("number", ["bfloat16", "float16", "tf32", "float32"])
@pytest.mark.parametrize("hidden", [33, 128, 500])
@pytest.mark.parametrize("cell", ["layernorm-lstm", "zoneout-lstm", Given, Normed, Several], ids=str)
def test_norms_masks_inputs_and_several_outputs_agree(
    cell: str | type[Cell], hidden: int, number: str
) -> None:
    lengths = tuple(1 + 5 * row % 12 for row in range(21)) if hidden == 128 else None
    case = replace(
        cases_of(cell)[0], steps=12, batch=21, input_size=40, hidden_size=hidden, initial=hidden > 33, lengths=lengths,
        resets=hidden == 500,
    )  # fmt: skip
    check(case, "cuda", number, device="cuda")


@pytest.mark.parametrize("number", ["bfloat16", "float32"])
def test_large_layers_agree_with_lengths_and_resets(number: str) -> None:
    lengths = tuple(1 + 7 * row % 23 for row in range(61))
    case = replace(
        cases_of("lstm")[0], steps=23, batch=61, hidden_size=384, initial=True, resets=True, lengths=lengths,
        bidirectional=True, num_layers=2,
    )  # fmt: skip
    check(case, "cuda", number, device="cuda")


@pytest.mark.parametrize(
    ("cell", "hidden"),
    [("lstm", 64), ("lstm", 768), ("lstm", 1024), ("layernorm-lstm", 64), ("layernorm-lstm", 300)],
)
def test_two_runs_give_the_same_bits(cell: str, hidden: int) -> None:
    layer = Recurrent(cell, 32, hidden, device="cuda", dtype=torch.bfloat16, backend="cuda")
    x = torch.randn(100, 16, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    sources = [x, *layer.parameters()]

    def run() -> list[Tensor]:
        y = layer(x)[0]
        return [y, *torch.autograd.grad(y.float().square().sum(), sources)]

    first = run()
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def test_nan_and_infinity_travel_and_nobody_waits_for_them() -> None:
    x = torch.randn(30, 16, 8, device="cuda")
    x[3, 2] = float("nan")
    x[5, 7] = float("inf")
    for dtype, hidden in ((torch.float32, 256), (torch.bfloat16, 256), (torch.bfloat16, 64)):
        layer = Recurrent("rnn", 8, hidden, device="cuda", dtype=dtype, backend="cuda")
        state = torch.randn(1, 16, hidden, device="cuda", dtype=dtype)
        state.view(torch.int16)[0, 1] = -1  # every bit set: what a place looks like that nobody wrote yet
        y = layer(x.to(dtype), state)[0]
        assert y[3:, 2].isnan().all() and y[:, 1].isnan().all()
        assert y[:, 3].isfinite().all() and not y[:3, 2].isnan().any()


def test_auto_takes_them_for_a_cell_of_ones_own_and_says_so() -> None:
    layer = Recurrent(ThreeProducts, 8, 24, device="cuda")
    x = torch.randn(5, 3, 8, device="cuda")
    assert explain(layer, x).chosen == "cuda"
    torch.testing.assert_close(layer(x)[0], layer.cpu()(x.cpu())[0].cuda(), atol=1e-5, rtol=1e-5)


def test_norms_masks_and_inputs_run_and_explain_names_the_layout() -> None:
    x, dt = torch.randn(5, 3, 8, device="cuda"), torch.rand(5, 3, device="cuda", requires_grad=True)
    for hidden, layout in ((24, "narrow"), (300, "rowwise")):
        layer = Recurrent("layernorm-lstm", 8, hidden, device="cuda", backend="cuda")
        explained = explain(layer, x)
        assert explained.chosen == "cuda" and layout in str(explained)
    layer = Recurrent("time-aware-lstm", 8, 24, device="cuda", backend="cuda")
    assert explain(layer, x, dt=dt).chosen == "cuda"
    layer(x, dt=dt)[0].sum().backward()
    layer.cpu().zero_grad()
    layer.backend = "reference"
    other = dt.detach().cpu().requires_grad_()
    layer(x.cpu(), dt=other)[0].sum().backward()
    torch.testing.assert_close(dt.grad.cpu(), other.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0), reason="measured on an H100"
)
def test_auto_takes_them_for_torchs_cells_where_they_were_measured_to_be_faster() -> None:
    layer = Recurrent("lstm", 256, 256, device="cuda", dtype=torch.bfloat16)
    x = torch.randn(256, 64, 256, device="cuda", dtype=torch.bfloat16)
    assert explain(layer, x).chosen == "cuda"
    layer.backend = "cuda"
    wanted = layer(x)[0]
    layer.backend = "auto"
    assert torch.equal(layer(x)[0], wanted)


def test_inside_torch_compile() -> None:
    layer = Recurrent("gru-reset-before", 8, 48, device="cuda", backend="cuda")
    compiled = torch.compile(layer, fullgraph=True)
    x = torch.randn(9, 5, 8, device="cuda", requires_grad=True)
    sources = [x, *layer.parameters()]
    found, wanted = [
        [y, *torch.autograd.grad(y.square().sum(), sources)] for y in (compiled(x)[0], layer(x)[0])
    ]
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("hidden", [64, 256])
@pytest.mark.parametrize("cell", ["lstm", "layernorm-lstm", "time-aware-lstm"])
def test_inside_a_cuda_graph(cell: str, hidden: int) -> None:
    layer = Recurrent(cell, 16, hidden, device="cuda", dtype=torch.bfloat16, backend="cuda")
    x = torch.randn(20, 16, 16, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            layer(x)
            layer(x)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(x)[0]
        x.copy_(torch.randn_like(x))
        graph.replay()
        assert torch.equal(y, layer(x)[0])


@pytest.mark.parametrize("hidden", [37, 72, 1543])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_first_call_inside_a_cuda_graph(cell: str, hidden: int) -> None:
    """Of sizes that no other test has: kernels are loaded and plans are made while the graph is recorded."""
    layers = [Recurrent(cell, hidden, hidden, device="cuda", backend=each) for each in ("cuda", "reference")]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(7, 11, hidden, device="cuda", requires_grad=True)

    def step(layer: torch.nn.Module) -> list[Tensor]:
        y = layer(x)[0]
        return [y, *torch.autograd.grad(y.square().mean(), [x, *layer.parameters()])]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # cuBLAS and torch's own kernels
        stream.wait_stream(torch.cuda.default_stream())
        wanted = step(layers[1])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        held = step(layers[0])
    torch.testing.assert_close(step(layers[0]), wanted, rtol=1e-4, atol=1e-5)
    graph.replay()
    torch.testing.assert_close(held, wanted, rtol=1e-4, atol=1e-5)
    del held
    graph.reset()
    torch.cuda.empty_cache()
    filled = torch.full((2**20,), float("nan"), device="cuda")
    torch.testing.assert_close(step(layers[0]), wanted, rtol=1e-4, atol=1e-5)
    assert filled.isnan().all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
def test_two_devices() -> None:
    layer = Recurrent("lstm", 8, 48, device="cuda:0", backend="cuda")
    x = torch.randn(20, 4, 8, device="cuda:0")
    with torch.no_grad():
        wanted, stream = layer(x)[0], layer.stream(4)
        layer.to("cuda:1")
        there = x.to("cuda:1")
        torch.testing.assert_close(layer(there)[0].cpu(), wanted.cpu())
        with torch.cuda.device(1):
            torch.testing.assert_close(layer(there)[0].cpu(), wanted.cpu())
        torch.testing.assert_close(torch.stack([stream(row) for row in there]).cpu(), wanted.cpu())
        with pytest.raises(InputError, match="at the same device"):
            layer(x)
        state = tuple(torch.zeros(1, 4, 48, device="cuda:1") for _ in range(2))
        layer(there, state)
        with pytest.raises(InputError, match="Move them to one device"):
            layer(there, (state[0], state[1].to("cuda:0")))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_training_step_inside_a_cuda_graph(bidirectional: bool) -> None:
    layers = [
        Recurrent("lstm", 16, 96, 2, bidirectional=bidirectional, device="cuda", backend="cuda")
        for _ in range(2)
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    batches = [torch.randn(20, 16, 16, device="cuda") for _ in range(4)]
    x = batches[0].clone()

    def step(layer: torch.nn.Module, x: Tensor) -> Tensor:
        layer.zero_grad(set_to_none=True)
        loss = layer(x)[0].square().mean()
        loss.backward()
        with torch.no_grad():
            for each in layer.parameters():
                each.sub_(each.grad)
        return loss

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step(layers[0], x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(layers[0], x)
    layers[0].load_state_dict(layers[1].state_dict())
    for batch in batches:
        x.copy_(batch)
        graph.replay()
        torch.testing.assert_close(loss, step(layers[1], batch), rtol=1e-5, atol=1e-7)
    for mine, theirs in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("hidden", [48, 256])
@pytest.mark.parametrize("given", [False, True])
def test_directions_beside_each_other_give_the_same_bits(
    hidden: int, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Recurrent(
        "lstm", 32, hidden, 2, bidirectional=True, device="cuda", dtype=torch.bfloat16, backend="cuda"
    )
    x = torch.randn(120, 16, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    state = torch.randn(2, 4, 16, hidden, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    sources = [x, *layer.parameters(), *([state] if given else [])]

    def run() -> list[Tensor]:
        y, finals = layer(x, tuple(state) if given else None)
        score = y.float().square().sum() + sum(each.float().sum() for each in finals)
        return [y, *finals, *torch.autograd.grad(score, sources)]

    forks = []
    fork = CudaMachine.fork
    with monkeypatch.context() as patched:
        patched.setattr(CudaMachine, "fork", lambda *_: None)
        wanted = run()
        patched.setattr(CudaMachine, "fork", lambda *tensors: forks.append(1) or fork(*tensors))
        for stream in (torch.cuda.current_stream(), torch.cuda.Stream(), torch.cuda.current_stream()):
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                for _ in range(4):
                    found = run()
                    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
                    # Memory that is given back on either stream is soon written to again.
                    torch.full((40, 16, 2 * hidden), float("nan"), device="cuda", dtype=torch.bfloat16)
    assert len(forks) == 2 * 3 * 4


def test_in_a_thread_that_asked_nothing_of_the_device_yet() -> None:
    layer = Recurrent("lstm", 16, 64, device="cuda", dtype=torch.bfloat16, backend="cuda")
    x = torch.randn(20, 16, 16, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    wanted = layer(x)[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: layer(x)[0], range(16)))
    assert all(torch.equal(each, wanted) for each in found)


def test_under_autocast() -> None:
    layer = Recurrent("lstm-peephole", 8, 48, device="cuda", backend="cuda")
    x = torch.randn(9, 5, 8, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        y, _ = layer(x)
        y.float().square().sum().backward()
    assert y.dtype is torch.bfloat16 and all(each.grad is not None for each in layer.parameters())
    torch.testing.assert_close(y.float(), layer(x)[0], atol=2e-2, rtol=2e-2)


def test_on_two_streams_at_once() -> None:
    layer = Recurrent("lstm", 16, 512, device="cuda", dtype=torch.bfloat16, backend="cuda")
    x = torch.randn(200, 16, 16, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        wanted = layer(x)[0]
        found = on_streams(layer, x, 3)
    assert all(torch.equal(each, wanted) for each in found)


def test_second_derivatives() -> None:
    layer = Recurrent("gru", 3, 17, device="cuda", backend="cuda")
    x = torch.randn(4, 2, 3, device="cuda", requires_grad=True)

    def penalty(run: torch.nn.Module) -> Tensor:
        (g,) = torch.autograd.grad(run(x)[0].square().sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), x)[0]

    found = penalty(layer)
    layer.backend = "reference"
    torch.testing.assert_close(found, penalty(layer), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["auto", "native", "reference", "cuda"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_every_backend_agrees_on_cuda_tensors(cell: str, backend: str) -> None:
    case = replace(cases_of(cell)[0], batch=5, hidden_size=17, lengths=(3, 7, 1, 5, 5), bidirectional=True)
    found, wanted = (case.layer(name, torch.float32).cuda() for name in (backend, "reference"))
    x = case.arguments(torch.float32).x.cuda()
    lengths = torch.tensor(case.lengths)
    torch.testing.assert_close(found(x, lengths=lengths), wanted(x, lengths=lengths), atol=2e-3, rtol=2e-3)


def test_a_stream_of_steps() -> None:
    layer = Recurrent(cells.get("gru"), 8, 32, device="cuda", backend="cuda")
    x = torch.randn(6, 2, 8, device="cuda")
    with torch.no_grad():
        stream = layer.stream(2)
        steps = torch.stack([stream(each) for each in x])
        torch.testing.assert_close(steps, layer(x)[0], atol=1e-5, rtol=1e-5)
