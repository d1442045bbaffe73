"""The commands as a person types them, right and wrong."""

import re
import subprocess
import sys

import pytest

import cellwise


def test_the_module_is_the_command():
    words = [sys.executable, "-m", "cellwise", "--version"]
    good = subprocess.run(words, capture_output=True, text=True, check=True)
    assert good.stdout == f"cellwise {cellwise.__version__}\n"
    failed = subprocess.run([*words[:-1], "show", "lsmt"], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("closing", "words", "status", "said"),
    [
        ("<&-", ["text", "fit", "-", "--out", "run", "--quiet"], 2, "1,000 characters; this one has 0"),
        ("<&-", ["classify", "fit", "-", "--out", "run"], 2, "standard input is empty"),
        (">&-", ["cells", "lstm"], 0, None),
        (">&-", ["show", "lsmt"], 2, "No cell is called 'lsmt'"),
        (">&- <&- 2>&-", ["show", "lsmt"], 2, None),
        (">/dev/full", ["cells", "lstm"], 2, "No space left on device"),
    ],
)
def test_a_standard_stream_that_is_closed_or_full(closing, words, status, said, tmp_path):
    shell = ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-m", "cellwise", *words]
    done = subprocess.run(shell, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (status, int(said is not None))
    assert said is None or said in done.stderr
    assert not any(tmp_path.iterdir())


def test_help_lists_the_commands(run):
    assert {"demo", "show", "cells"} <= set(run("--help").stdout.split())


def test_cells_lists_all_that_ship_with_their_counts(run):
    out = run("cells").stdout
    for name in cellwise.cells.names():
        assert name in out
    assert "3HD + 3H² + 6H" in out
    assert "4HD + 4H² + 11H" in out


@pytest.mark.parametrize("name", cellwise.cells.names())
def test_the_count_is_that_of_the_layer(name):
    from cellwise.understand.catalogue import parameter_formula

    D, H = 7, 5
    formula = parameter_formula(cellwise.cells.get(name))
    total = 0
    for term in formula.split(" + "):
        number, kind = re.fullmatch("([0-9]*)(.*)", term).groups()
        total += int(number or 1) * {"HD": H * D, "H²": H * H, "D": D, "H": H, "": 1}[kind]
    assert total == sum(p.numel() for p in cellwise.Recurrent(name, D, H).parameters())


def test_show_prints_equations_and_graph(run):
    out = run("show", "gru").stdout
    assert "n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))" in out
    assert "h' = (1 − z) ⊙ n + z ⊙ h" in out
    assert "project n %1" in out


OWN = """
from cellwise import Cell, tanh


class Mine(Cell):
    '''A cell of my own.'''

    gates = ("n",)

    def step(self, x, h):
        return tanh(x.n {sign} h.{gate})
"""


def test_a_cell_of_ones_own_from_a_file(run, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN.format(sign="-", gate="n"))
    assert "h' = tanh(W_in x + b_in − (W_hn h + b_hn))" in run("show", f"{file}:Mine").stdout
    assert "Output:" in run("demo", f"{file}:Mine", "--epochs", "3").stdout


def test_a_mistake_in_ones_own_cell_shows_the_line(run, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN.format(sign="-", gate="q"))
    result = run("show", f"{file}:Mine")
    assert result.returncode == 2
    assert "return tanh(x.n - h.q)" in result.stderr
    assert 'Add "q" to gates' in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "lsmt"), "did you mean 'lstm'?"),
        (("demo", "gur"), "did you mean 'gru'?"),
        (("demo", "gru", "--epochs", "0"), "epochs must be at least 1; got 0"),
        (("demo", "gru", "--hidden-size", "-3"), "hidden size must be at least 1; got -3"),
        (("demo", "gru", "--learning-rate", "0"), "learning rate must be greater than 0"),
        (("demo", "gru", "--learning-rate", "inf"), "greater than 0, and finite; got inf"),
        (("demo", "gru", "--seed", "99999999999999999999"), "seed must be from 0 to 2147483647"),
        (("demo", "gru", "--seed", "-1"), "seed must be from 0 to 2147483647; got -1"),
        (("show", "nowhere.py:Mine"), "nowhere.py, which does not exist"),
        (("show",), "Missing argument"),
        (("dmeo",), "No such command"),
    ],
)
def test_a_wrong_word_gets_one_clear_sentence(run, words, said):
    result = run(*words)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
