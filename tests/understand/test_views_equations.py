"""The views that are text: LaTeX that an engine would take, and gradients that are the derivative of the equations."""

from __future__ import annotations

import re
from pathlib import Path
from shutil import which
from subprocess import run

import pytest
import torch
from hypothesis import given
from views_cells import ALL, IDS, LeakyClamp, ReadOut, ThreeStates

from cellwise import Cell, cells, sigmoid, stop_gradient, tanh
from cellwise.testing import strategies
from cellwise.understand.backward_equations import backward, gradient_latex, gradient_text
from cellwise.understand.latex import latex

# --- LaTeX ------------------------------------------------------------------------------------------------------


def problems(text: str) -> list[str]:
    """What an engine would refuse: open braces, environments and brackets, bare underscores, unknown letters."""
    found = []
    depth = 0
    for sign in re.sub(r"\\.", "", text):
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            found.append("} without {")
    if depth:
        found.append(f"{depth} braces open")
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            stack.append(name)
        elif not stack or stack.pop() != name:
            found.append(f"\\end{{{name}}} without its \\begin")
    found += [f"{name} is not ended" for name in stack]
    if text.count(r"\left") != text.count(r"\right"):
        found.append("\\left without \\right")
    found += ["a bare underscore in a word" for _ in re.finditer(r"\\(?:mathit|text)\{[^}]*(?<!\\)_", text)]
    found += ["two indices" for _ in re.finditer(r"_(?:\{[^{}]*\}|\w)_", text)]
    found += [
        f"{sign!r} outside of text" for sign in re.sub(r"\\text\{[^}]*\}", "", text) if not sign.isascii()
    ]
    return found


def test_the_check_of_latex_sees_what_an_engine_refuses() -> None:
    assert not problems(r"\begin{aligned} a_{1} &= \left( \mathit{b\_c} \right) \end{aligned}")
    for wrong in ("a_{1", "a}", r"\begin{a}", r"\mathit{b_c}", "a_1_2", "a_{x}_t", r"\left( a", "δ"):
        assert problems(wrong), wrong


@pytest.mark.parametrize("cell", ALL, ids=IDS)
@pytest.mark.parametrize("write", [latex, gradient_latex])
def test_latex_of_every_cell(cell: Cell, write) -> None:
    assert problems(write(cell.graph)) == []


@given(cell=strategies.cells(gradient=False))
def test_latex_of_random_cells(cell: Cell) -> None:
    assert problems(latex(cell.graph)) == []
    assert problems(gradient_latex(cell.graph)) == []


@pytest.mark.parametrize("cell", ALL, ids=IDS)
def test_latex_has_the_products_and_weights_of_the_text(cell: Cell) -> None:
    written = latex(cell.graph)
    assert written.count(r"\odot") == cell.equations.count("⊙")
    assert len(re.findall(r"W_\{", written)) == len(re.findall(r"\bW_", cell.equations))
    assert written.count("&=") == len(cell.equations.splitlines())


def test_latex_of_the_gru_is_that_of_the_literature() -> None:
    assert latex(cells.get("gru").graph).splitlines()[1:-1] == [
        r"r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\",
        r"z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\",
        r"n_t &= \tanh(W_{in} x_t + b_{in} + r_t \odot (W_{hn} h_{t-1} + b_{hn})) \\",
        r"h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}",
    ]


def test_names_of_several_letters_greek_letters_and_choices() -> None:
    three, leaky = latex(ThreeStates().graph), latex(LeakyClamp().graph)
    assert r"\mathit{forget}_t &= \sigma(W_{i\,\mathit{forget\_gate}} x_t" in three
    assert r"\mathit{decay}_t &= \exp(-\lvert \beta \rvert)" in leaky
    assert r"\begin{cases} W_{in} x_t + b_{in} & \text{if } 0 < W_{in} x_t + b_{in} \\" in leaky


@pytest.mark.slow
@pytest.mark.skipif(which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    body = "\n".join(rf"\[ {write(cell.graph)} \]" for cell in ALL for write in (latex, gradient_latex))
    head = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage{amsmath}\begin{document}"
    (tmp_path / "all.tex").write_text(f"{head}\n{body}\n\\end{{document}}", encoding="utf8")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


# --- gradients --------------------------------------------------------------------------------------------------


def equations_of(text: str, gates: tuple[str, ...]) -> list[tuple[list[str], str]]:
    """The lines of a view as (names, expression); a line for several gates is written out for each."""
    found = []
    for line in text.splitlines():
        *names, right = line.split(" = ")
        several = re.search(r"^(.*?)   \((\w+)$", names[-1]) if len(names) > 1 else None
        if several and all(gate in gates for gate in right.rstrip(")").split(", ")):
            index = several[2]
            for gate in right.rstrip(")").split(", "):
                name = re.sub(rf"{index}$", gate, names[0])
                found.append(([name], re.sub(rf"_{index}\b", f"_{gate}", several[1])))
        else:
            found.append((names, right))
    return found


PYTHON = {"⊙": "*", "·": "*", "−": "-", "²": "**2", "≤": "<=", "'": "_new", "σ(": "sigmoid("}


def as_python(expression: str) -> str:
    """An expression of a text view as Python over torch tensors."""
    for sign, word in (
        ("⊙", "*"),
        ("·", "*"),
        ("−", "-"),
        ("²", "**2"),
        ("≤", "<="),
        ("'", "_new"),
        ("σ(", "sigmoid("),
    ):
        expression = expression.replace(sign, word)
    expression = re.sub(r"^(δ\w+) (\w+|\(.*\))ᵀ$", r"outer(\1, \2)", expression)
    expression = re.sub(r"\b(W_\w+)ᵀ ", r"transposed(\1) @ ", expression)
    expression = re.sub(r"\b(W_\w+) (?=[\w(δ])", r"\1 @ ", expression)
    return re.sub(r"^\((.+) if (.+) else (.+)\)$", r"where(\2, \1 + zero, \3 + zero)", expression)


TORCH = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "log": torch.log,
    "outer": torch.outer,
    "where": torch.where,
    "sqrt": torch.sqrt,
    "mean": torch.mean,
    "sum": torch.sum,
    "H": 3,
    "transposed": lambda weight: weight.T,
}


def evaluated(lines: list[tuple[list[str], str]], values: dict[str, torch.Tensor]) -> None:
    for names, expression in lines:
        result = eval(as_python(expression), {}, {**TORCH, **values})
        for name in names:
            values[name.replace("'", "_new")] = result


@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_the_text_of_the_gradient_is_the_derivative(name: str) -> None:
    """Both texts are run as Python: the gradients of autograd through the one are the values of the other."""
    H = 3
    cell = cells.get(name)
    graph = cell.graph
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    given_values = {"x": drawn(H)} | {state: drawn(H) for state in graph.states}
    given_values |= {f"W_i{gate}": drawn(H, H) for gate in graph.input_gates}
    given_values |= {f"W_h{gate}": drawn(H, H) for gate in graph.state_gates}
    given_values |= {f"b_i{gate}": drawn(H) for gate in graph.input_gates}
    given_values |= {f"b_h{gate}": drawn(H) for gate in graph.state_gates}
    given_values |= {vector: drawn(H) for vector in graph.vectors}
    given_values |= {each: drawn(H).detach().abs().requires_grad_() for each in graph.inputs}
    values = {**given_values, "zero": torch.zeros(H, dtype=torch.float64)}
    evaluated(equations_of(cell.equations, graph.gates), values)

    arriving = {f"Δ{state}": drawn(H).detach() for state in graph.states} | {"Δy": drawn(H).detach()}
    loss = (arriving["Δy"] * values[f"{graph.states[0]}_new"]).sum()
    for state in graph.states:
        loss = loss + (arriving[f"Δ{state}"] * values[f"{state}_new"]).sum()
    expected = dict(zip(given_values, torch.autograd.grad(loss, [*given_values.values()]), strict=True))

    values |= arriving
    lines, weights = gradient_text(graph).split("\n\n")[:2]
    evaluated(equations_of(f"{lines}\n{weights}", graph.gates), values)
    for each, gradient in expected.items():
        torch.testing.assert_close(
            values[f"δ{each}"], gradient, rtol=1e-12, atol=1e-12, msg=f"{name}: δ{each}"
        )


@pytest.mark.parametrize("cell", ALL, ids=IDS)
def test_each_gate_has_its_gradient_and_each_name_is_defined_before_it_is_used(cell: Cell) -> None:
    graph = cell.graph
    lines, weights, _ = gradient_text(graph).split("\n\n")
    defined = {f"Δ{state}" for state in graph.states} | {"Δy"}
    for names, expression in equations_of(f"{lines}\n{weights}", graph.gates):
        for used in re.findall(r"[δΔ][\w']+", expression):
            assert used in defined, f"{used} in {' = '.join(names)} = {expression}"
        defined.update(names)
    for gate in graph.input_gates:
        assert {f"δx_{gate}", f"δW_i{gate}", f"δb_i{gate}"} <= defined
    for gate in graph.state_gates:
        assert {f"δW_h{gate}", f"δb_h{gate}"} <= defined
    assert {f"δ{each}" for each in (*graph.states, *graph.vectors, *graph.scalars)} <= defined
    for _, name in graph.names:
        if name not in graph.states and name in cell.equations and not name.startswith("m_"):
            assert f"δ{name}" in defined


@given(cell=strategies.cells(gradient=False))
def test_gradients_of_random_cells_use_only_what_is_defined(cell: Cell) -> None:
    found = backward(cell.graph)
    defined: set[str] = set()
    for line in found.lines:
        for used in re.findall(r"δ[\w']+", line.text):
            assert used in defined, line
        defined.update(line.name.split(" = "))


def test_what_no_gradient_reaches_has_none() -> None:
    class Stopped(Cell):
        gates = ("a", "b")

        def step(self, x, h):
            closed = sigmoid(x.b)
            inner = tanh(x.a + h.a)
            return inner * stop_gradient(closed) + h

    text = gradient_text(Stopped().graph)
    assert "δinner = δh' ⊙ stop_gradient(closed)" in text
    assert "δclosed" not in text
    assert "δx_b" not in text


def test_a_gate_that_multiplies_several_values_sums_their_shares() -> None:
    assert "δW_ha = δh_a1 sᵀ + δh_a2 hᵀ\nδb_ha = δh_a1 + δh_a2" in gradient_text(ReadOut().graph)


def test_the_gradient_of_the_lstm() -> None:
    lines = gradient_text(cells.get("lstm").graph).splitlines()
    assert lines[:4] == [
        "δh' = Δy + Δh",
        "δc' = Δc + δh' ⊙ o ⊙ (1 − tanh(c')²)",
        "δo = δh' ⊙ tanh(c')",
        "δx_o = δh_o = δo ⊙ o ⊙ (1 − o)",
    ]
