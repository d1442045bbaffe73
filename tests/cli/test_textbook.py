"""The textbook exercise really learns, and is printed as promised."""

import re

import pytest
import torch
from click.testing import CliRunner

from cellwise.cli import app
from cellwise.experiments import textbook

CELLS = ("rnn", "lstm", "gru")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("seed", range(10))
def test_every_output_ends_near_its_target(cell, seed):
    result = textbook.run(textbook.Settings(cell, seed=seed))
    assert (result.outputs - result.targets).abs().max() < 0.1
    assert len(result.losses) == 1000


@pytest.mark.parametrize("cell", CELLS)
def test_every_weight_is_trained(cell):
    settings = textbook.Settings(cell)
    torch.manual_seed(0)
    network = textbook.TextbookNetwork(settings)
    inputs, targets = textbook.sequence(settings)
    torch.nn.functional.mse_loss(network(inputs), targets).backward()
    assert {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()} == set()
    # One set of weights for all steps: nothing grows with the length of the sequence.
    assert sum(p.numel() for p in network.recurrent.parameters()) == {"rnn": 21, "lstm": 84, "gru": 63}[cell]


def test_gradients_flow_through_time():
    settings = textbook.Settings("lstm")
    torch.manual_seed(0)
    network = textbook.TextbookNetwork(settings)
    x = textbook.sequence(settings)[0].requires_grad_()
    network(x)[-1].sum().backward()
    assert x.grad[0].abs().sum() > 0


def test_the_same_seed_gives_the_same_run_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = textbook.run(textbook.Settings("gru", epochs=20, seed=3))
    assert torch.equal(torch.rand(1), expected)
    assert textbook.run(textbook.Settings("gru", epochs=20, seed=3)).losses == first.losses
    assert textbook.run(textbook.Settings("gru", epochs=20, seed=4)).losses != first.losses


def test_other_sizes_follow_the_same_rule():
    inputs, targets = textbook.sequence(textbook.Settings(input_size=5, output_size=7))
    assert inputs.shape == (4, 5)
    assert targets.shape == (4, 7)
    assert torch.equal(targets[:, 4], inputs[:, 0])
    assert torch.equal(targets[:, 5], inputs[:, 1])


def test_the_printed_form():
    result = CliRunner().invoke(app, ["demo", "gru"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [int(re.fullmatch(r"Epoch (\d+), Loss: \S+", line)[1]) for line in lines[:10]] == list(
        range(100, 1001, 100)
    )
    wanted = [("[1.0, 0.0]", "0.0"), ("[0.0, 1.0]", "1.0"), ("[1.0, 1.0]", "1.0"), ("[0.0, 0.0]", "0.0")]
    assert len(lines) == 14
    for line, (x, target) in zip(lines[10:], wanted, strict=True):
        found = re.fullmatch(r"Input: (.*), Target: (.*), Output: (.*)", line)
        assert (found[1], found[2]) == (x, target)
        assert abs(float(found[3]) - float(target)) < 0.1
