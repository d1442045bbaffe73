"""Layers on a GPU: the results of a CPU, and one clear error where tensors lie on different devices."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import cellwise
from cellwise import explain
from cellwise.testing import CASES, Arguments, Case, assert_close, results
from cellwise.testing.checks import naive_call, refusal

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="this machine has no GPU that torch can use"
)
STANDARD = ("RNN", "LSTM", "GRU")


def on_gpu(case: Case, backend: str) -> tuple[Any, Arguments]:
    given = case.arguments()
    states = tuple(each.cuda() for each in given.states)
    state = None if not states else states if isinstance(given.state, tuple) else states[0]
    resets = None if given.resets is None else given.resets.cuda()
    beside = {name: each.cuda() for name, each in given.beside.items()}
    return case.layer(backend).cuda(), Arguments(given.x.cuda(), state, given.lengths, resets, beside=beside)


@pytest.fixture
def default_is_cuda() -> Iterator[None]:
    torch.set_default_device("cuda")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("case", [case for case in CASES if case.batch and not case.packed][::3], ids=str)
def test_a_case_gives_on_a_gpu_what_it_gives_on_a_cpu(case: Case, backend: str) -> None:
    layer, arguments = on_gpu(case, backend)
    if refusal(layer, arguments) is not None:
        pytest.skip("this backend does not take the case, on a CPU neither")
    plain = case.layer("reference")
    truth = results(plain, case.arguments(), naive_call)
    found = {name: value.cpu() for name, value in results(layer, arguments).items()}
    assert_close(found, truth, tolerance=1e-9)


@pytest.mark.parametrize("kind", STANDARD)
def test_auto_takes_cudnn_and_converted_models_give_the_same(kind: str) -> None:
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(8, 16, num_layers=2, batch_first=True).cuda()
    x = torch.randn(3, 7, 8, device="cuda")
    wanted = theirs(x)[0]
    ours = cellwise.convert(copy.deepcopy(theirs))
    assert explain(ours, x).chosen == "native"
    torch.testing.assert_close(ours(x)[0], wanted, rtol=0, atol=0)
    lengths = torch.tensor([7, 2, 5])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    torch.testing.assert_close(ours(packed)[0].data, theirs(packed)[0].data, rtol=0, atol=0)
    for given in (lengths, lengths.cuda(), [7, 2, 5]):
        output, _ = ours(x, lengths=given)
        assert output.is_cuda and output[1, 2:].eq(0).all() and output[1, :2].ne(0).all()


@pytest.mark.parametrize("backend", ["auto", "cpu", "native", "reference"])
@pytest.mark.parametrize("cell", ["gru", "lstm", "mingru"])
def test_tensors_on_different_devices_are_one_clear_error(cell: str, backend: str) -> None:
    if (cell, backend) == ("mingru", "native"):
        pytest.skip("torch has no operator for it")
    x, layer = torch.randn(5, 2, 3), cellwise.Recurrent(cell, 3, 4, backend=backend)
    with pytest.raises((RuntimeError, ValueError), match=r"(?i)device|cuda"):
        layer(x.cuda())
    with pytest.raises((RuntimeError, ValueError), match=r"(?i)device|cuda"):
        state = torch.zeros(1, 2, 4, device="cuda")
        layer(x, (state, state) if cell == "lstm" else state)
    weight = next(
        name for name, _ in layer.named_parameters() if name.startswith("weight_hh") or cell == "mingru"
    )
    with pytest.raises((RuntimeError, ValueError), match=r"(?i)device|cuda"):
        torch.func.functional_call(layer, {weight: getattr(layer, weight).detach().cuda()}, (x,))
    if backend in ("auto", "cpu"):
        with pytest.raises((RuntimeError, ValueError), match=r"(?i)device|cuda"):
            layer.stream()(torch.zeros(3, device="cuda"))


@pytest.mark.parametrize("backend", ["auto", "native", "reference"])
def test_a_stream_on_a_gpu_gives_the_whole_sequence(backend: str) -> None:
    layer = cellwise.GRU(3, 4, backend=backend).cuda()
    x = torch.randn(6, 2, 3, device="cuda")
    stream = layer.stream(2)
    steps = torch.stack([stream(each) for each in x])
    torch.testing.assert_close(steps, layer(x)[0].detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("default_is_cuda")
@pytest.mark.parametrize("cell", ["gru", "lstm", "mingru"])
def test_a_default_device_leaves_layers_on_a_cpu_alone(cell: str) -> None:
    layer = cellwise.Recurrent(cell, 3, 4, device="cpu")
    x = torch.ones(6, 2, 3, device="cpu")
    for lengths in (None, [6, 3], torch.tensor([6, 3], device="cpu")):
        output, _ = layer(x, lengths=lengths)
        output.sum().backward()
        assert output.device.type == "cpu"
    resets = torch.zeros(6, 2, dtype=torch.bool, device="cpu")
    assert layer(x, resets=resets)[0].device.type == "cpu"
    assert layer.stream()(x[0, 0]).device.type == "cpu"
    made = cellwise.Recurrent(cell, 3, 4)
    assert all(each.is_cuda for each in made.parameters())
    assert made(torch.ones(6, 2, 3))[0].is_cuda


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", STANDARD)
def test_half_precision_and_autocast_run_as_in_torch(kind: str, dtype: torch.dtype) -> None:
    theirs = getattr(torch.nn, kind)(8, 16).cuda().to(dtype)
    x = torch.randn(5, 2, 8, device="cuda", dtype=dtype)
    wanted = theirs(x)[0]
    torch.testing.assert_close(cellwise.convert(theirs)(x)[0], wanted, rtol=0, atol=0)
    plain = getattr(torch.nn, kind)(8, 16).cuda()
    with torch.autocast("cuda", dtype=dtype):
        wanted = plain(x.float())[0]
        found = cellwise.convert(plain)(x.float())[0]
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
