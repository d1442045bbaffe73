"""The network through time: the same cell at every step, states flowing along the sequence."""

from __future__ import annotations

from cellwise.graph.expr import StepGraph
from cellwise.understand.diagram.mermaid import escaped
from cellwise.understand.diagram.svg import arrow, document, indexed, text

__all__ = ["unrolled_mermaid", "unrolled_svg"]

_GAP, _MARGIN, _LANE = 74.0, 30.0, 34.0
_BELOW, _ABOVE = 66.0, 66.0


def unrolled_mermaid(graph: StepGraph, steps: int) -> str:
    """`steps` steps as a flowchart: inputs enter, states go from each step to the next, outputs leave."""
    name = escaped(graph.name)
    rows = ["---", f"title: {graph.name}, unrolled over {steps} steps", "---", "flowchart LR"]
    rows += [
        f'  start{i}(["{escaped(state)} (0){_learned(graph, state)}"])'
        for i, state in enumerate(graph.states)
    ]
    for t in range(1, steps + 1):
        rows.append(f'  cell{t}["{name}"]:::cell')
        if graph.reads_input:
            rows += [f'  x{t}(["x ({t})"])', f"  x{t} --> cell{t}"]
        rows += [f'  y{t}(["{escaped(_output(graph))} ({t})"])', f"  cell{t} --> y{t}"]
    rows += [f'  end{i}(["{escaped(state)} ({steps})"])' for i, state in enumerate(graph.states)]
    for i, state in enumerate(graph.states):
        rows.append(f"  start{i} ==> cell1")
        rows += [f'  cell{t} ==>|"{escaped(state)} ({t})"| cell{t + 1}' for t in range(1, steps)]
        rows.append(f"  cell{steps} ==> end{i}")
    rows.append("  classDef cell fill:#eceff2,stroke:#66717d,color:#1d2329")
    return "\n".join(rows)


def unrolled_svg(graph: StepGraph, steps: int) -> str:
    """`steps` steps side by side: the input enters below, the output leaves above, states are through-lines."""
    lanes = len(graph.states)
    width = max(96.0, 11.0 * len(graph.name) + 30)
    gap = max(_GAP, 11.0 * max(map(len, graph.states)) + 56)
    height = max(84.0, _LANE * (lanes + 1))
    top = _MARGIN + _ABOVE
    left = _MARGIN + 40 + 11.0 * max(map(len, graph.states))
    body: list[str] = []
    for t in range(1, steps + 1):
        x = left + (t - 1) * (width + gap)
        middle = x + width / 2
        body.append(f"<g><title>step {t}</title>")
        body.append(
            f'<rect class="cell" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{height}" rx="10"/>'
        )
        body.append(text(middle, top + height / 2, indexed(graph.name, ""), "cellname"))
        if graph.reads_input:
            body += arrow((middle, top + height + _BELOW - 26), (middle, top + height))
            body.append(text(middle, top + height + _BELOW - 12, indexed("x", str(t)), "end"))
        body += arrow((middle, top), (middle, top - _ABOVE + 26))
        body.append(text(middle, top - _ABOVE + 12, indexed(_output(graph), str(t)), "end"))
        body.append("</g>")
        for lane, state in enumerate(reversed(graph.states)):
            y = top + height * (lane + 1) / (lanes + 1)
            if t == 1:
                body.append(text(left - 40 - 5.5 * len(state), y, indexed(state, "0"), "end"))
                body += arrow((left - 24, y), (left, y), "line rail")
            end = x + width + (gap if t < steps else gap / 2)
            body += arrow((x + width, y), (end, y), "line rail")
            if t < steps:
                body.append(text(x + width + gap / 2 - 4, y - 12, indexed(state, str(t)), "end"))
            else:
                body.append(text(end + 14 + 5.5 * len(state), y, indexed(state, str(t)), "end"))
    whole = left + steps * (width + gap) - gap / 2 + 28 + 11.0 * max(map(len, graph.states)) + _MARGIN
    flowing = " and ".join(graph.states)
    return document(
        f"{graph.name}, unrolled over {steps} step{'s' * (steps > 1)}",
        f"The same cell with the same weights at each of {steps} steps. Step t reads the input x_t and, from the step "
        f"before it, {flowing}; it gives the output {_output(graph)}_t and hands {flowing} on."
        + (
            f" Learned: {' and '.join(f'{state}_0' for state in graph.learned_first)}."
            if graph.learned_first
            else ""
        ),
        whole,
        top + height + _BELOW + _MARGIN - 10,
        body,
    )


def _learned(graph: StepGraph, state: str) -> str:
    return ", learned" if state in graph.learned_first else ""


def _output(graph: StepGraph) -> str:
    return ", ".join(graph.outputs) or (graph.states[0] if graph.output_is_state else "y")
