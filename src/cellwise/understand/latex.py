"""The equations in LaTeX: an `aligned` environment with the symbols of the literature.

States carry the time: `h_{t-1}` before the step, `h_t` after it; so do the gates. Weights are those of torch.nn:
`W_{ir}` times the input, `W_{hr}` times the state, `b_{ir}` and `b_{hr}` for gate r. Needs amsmath, or KaTeX.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cellwise.graph.expr import Draw, StepGraph
from cellwise.graph.forms import FormKind
from cellwise.graph.ops import COMPARE
from cellwise.graph.text import Line, Notation, form_lines, lines, output_signs, width_signs
from cellwise.graph.units import Units
from cellwise.graph.widths import widths_of

__all__ = ["LATEX", "LatexNotation", "aligned", "latex", "symbol"]

WRITTEN = {
    "input": "W_{{i{a}}} x_t + b_{{i{a}}}",
    "project": "W_{{h{a}}} {0} + b_{{h{a}}}",
    "transposed": r"W_{{h{a}}}^\top {0}",
    "transposed_input": r"W_{{i{a}}}^\top {0}",
    "share": r"\frac{{{0}}}{{H}}",
    "sum": r"\operatorname{{sum}}({0})",
    "mean": r"\operatorname{{mean}}({0})",
    "amax": r"\operatorname{{amax}}({0})",
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} {1}",  # with a sign between them, which depends on what they are
    "neg": "-{0}",
    "div": r"\frac{{{0}}}{{{1}}}",
    "exp": r"\exp({0})",
    "log": r"\log({0})",
    "sqrt": r"\sqrt{{{0}}}",
    "sigmoid": r"\sigma({0})",
    "tanh": r"\tanh({0})",
    "relu": r"\operatorname{{relu}}({0})",
    "softplus": r"\operatorname{{softplus}}({0})",
    "sin": r"\sin({0})",
    "cos": r"\cos({0})",
    "erf": r"\operatorname{{erf}}({0})",
    "gelu": r"\operatorname{{gelu}}({0})",
    "silu": r"\operatorname{{silu}}({0})",
    "elu": r"\operatorname{{elu}}({0})",
    "hard_sigmoid": r"\operatorname{{hardsigmoid}}({0})",
    "hard_tanh": r"\operatorname{{hardtanh}}({0})",
    "pow": "{{{0}}}^{{{1}}}",
    "floor": r"\lfloor {0} \rfloor",
    "sign": r"\operatorname{{sign}}({0})",
    "abs": r"\lvert {0} \rvert",
    "minimum": r"\min({0}, {1})",
    "maximum": r"\max({0}, {1})",
    "less": "{0} < {1}",
    "less_equal": r"{0} \le {1}",
    "where": r"\begin{{cases}} {1} & \text{{if }} {0} \\ {2} & \text{{otherwise}} \end{{cases}}",
    "clamp": r"\operatorname{{clamp}}({0}, {1}, {2})",
    "stop_gradient": r"\operatorname{{stopgradient}}({0})",
}
_GREEK_NAMES = """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega
"""
# Unicode spells lambda without a b.
_GREEK = {
    unicodedata.lookup(f"GREEK SMALL LETTER {name.replace('lambda', 'lamda')}"): name
    for name in _GREEK_NAMES.split()
}
# What reaches above the line, so that brackets around it must grow.
_TALL = re.compile(r"\\frac|\\begin|\\left")


def symbol(name: str) -> tuple[str, str]:
    """A Python name as a mathematical sign and its index: `p_i` is p with index i, `forget_gate` is one word.

    >>> symbol("p_i"), symbol("forget_gate"), symbol("beta"), symbol("v12")
    (('p', 'i'), ('\\\\mathit{forget\\\\_gate}', ''), ('\\\\beta', ''), ('v', '12'))
    """
    head, underscore, index = name.partition("_")
    if underscore and index and (len(head) == 1 or head in _GREEK.values()):
        return _word(head), _word(index)
    numbered = re.fullmatch(r"([^\W\d_]+?)(\d+)", name)
    if numbered and (len(numbered[1]) == 1 or numbered[1] in _GREEK.values()):
        return _word(numbered[1]), numbered[2]
    return _word(name), ""


def _word(name: str) -> str:
    if name in _GREEK.values():
        return f"\\{name}"
    if name in _GREEK:
        return f"\\{_GREEK[name]}"
    if re.fullmatch(r"[A-Za-z]|\d+", name):
        return name
    plain = name.replace("_", r"\_")
    # Letters beyond ASCII stand in text mode, which every engine with a font for them can set.
    return f"\\mathit{{{plain}}}" if name.isascii() else f"\\text{{{plain}}}"


@dataclass(frozen=True, eq=False)
class LatexNotation(Notation):
    """Signs and names for LaTeX's mathematical mode."""

    written: Mapping[str, str] = field(default_factory=lambda: WRITTEN)
    binds: Mapping[str, int] = field(default_factory=lambda: {"where": COMPARE})
    times: str = r"\odot"
    times_number: str = r"\cdot"
    no_diagonal: tuple[str, str] = (r" - {n}\, I", "")

    def form(self, kind: FormKind) -> tuple[tuple[str, str], ...]:
        return kind.in_latex

    def old(self, state: str) -> str:
        return _indexed(state, "t-1")

    def new(self, state: str) -> str:
        return _indexed(state, "t")

    def value(self, name: str) -> str:
        return _indexed(name, "t")

    def parameter(self, name: str) -> str:
        return _indexed(name, "")

    def gate(self, name: str) -> str:
        # Beneath W stands i or h already, so a gate of several letters is set off by a thin space.
        return name if len(name) == 1 and name.isascii() else r"\," + _word(name)

    def number(self, value: float) -> str:
        if math.isinf(value):
            return r"\infty" if value > 0 else r"-\infty"
        if math.isnan(value):
            return r"\mathrm{NaN}"
        mantissa, e, exponent = f"{value:g}".partition("e")
        return f"{mantissa} \\cdot 10^{{{int(exponent)}}}" if e else mantissa

    def function(self, name: str) -> str:
        return rf"\operatorname{{{{{name}}}}}({{0}})"

    def given(self, rows: int, columns: int) -> str:
        return rf"(a_{{jk}}) \in \mathbb{{R}}^{{{rows} \times {columns}}} \text{{, given}}"

    def brackets(self, text: str) -> str:
        return rf"\left( {text} \right)" if _TALL.search(text) else f"({text})"

    def fill(self, template: str, operands: list[str], gate: str) -> str:
        if any(_TALL.search(each) for each in operands):
            template = re.sub(r"(?<!\\left)\(", r"\\left( ", template)
            template = re.sub(r"(?<!\\right)\)", r" \\right)", template)
            template = re.sub(r"\\(lvert|lfloor)", r"\\left\\\1", template)
            template = re.sub(r"\\(rvert|rfloor)", r"\\right\\\1", template)
        return template.format(*operands, a=gate)


LATEX = LatexNotation()


def _indexed(name: str, time: str) -> str:
    head, index = symbol(name)
    both = ",".join(filter(None, (index, time)))
    return f"{head}_{{{both}}}" if len(both) > 1 else f"{head}_{both}" if both else head


def latex(graph: StepGraph, bias: bool = True) -> str:
    r"""The equations of a step as an `aligned` environment, to be put between \[ and \].

    >>> from cellwise import cells
    >>> print(latex(cells.get("rnn").graph))
    \begin{aligned}
    h_t &= \tanh(W_{in} x_t + b_{in} + W_{hn} h_{t-1} + b_{hn})
    \end{aligned}
    """
    rest = [
        f"{_indexed(draw.name, '' if draw.per_sequence else 't')} &\\sim {_law(draw)}"
        for draw in graph.asked_draws
    ]
    rest += [rf"&\text{{outputs }} {', '.join(output_signs(graph, LATEX))}"] if graph.outputs else []
    units = widths_of(graph).states
    rest += [
        rf"{_indexed(state, '0')} &\in {_space(units[state])} \text{{, learned}}"
        for state in graph.learned_first
    ]
    rest += [rf"{sign} &\in {_space(units)}" for sign, units in width_signs(graph, LATEX)]
    return aligned((*lines(graph, LATEX, bias), *form_lines(graph, LATEX)), rest)


def _space(units: Units) -> str:
    return rf"\mathbb{{R}}^{units}" if len(str(units)) == 1 else rf"\mathbb{{R}}^{{{units}}}"


def aligned(equations: Iterable[Line], rest: Iterable[str] = ()) -> str:
    """Equations as an `aligned` environment, the equality signs beneath each other; then other rows."""
    rows = [*(f"{line.name} &= {line.text}" for line in equations), *rest]
    body = " \\\\\n".join(rows)
    return f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"


def _law(draw: Draw) -> str:
    if draw.probability is None:
        return r"\mathcal{U}(0, 1)"
    return rf"\operatorname{{Bernoulli}}({LATEX.number(draw.probability)})"
