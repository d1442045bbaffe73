"""From a cell's `step`, called with stand-ins, to its StepGraph."""

from __future__ import annotations

from typing import Any

from cellwise.errors import CellDefinitionError, CellError, ReturnError, ShapeError
from cellwise.graph.expr import ONLY_OUTPUT, Node, Shape, Source, StepGraph, ready_part
from cellwise.graph.failing import step_error
from cellwise.graph.forms import FORMS
from cellwise.graph.ops import BESIDE, CONSTANT, DRAW, INPUT, SCALAR, STATE, VECTOR
from cellwise.graph.repeatable import check_repeatable
from cellwise.graph.tracer import Definition, Tracer, describe, tracing
from cellwise.graph.units import Units
from cellwise.graph.values import Input, Value
from cellwise.graph.verify import mixed_biases, mixed_forms, mixes_parts, shared_stems, verify
from cellwise.graph.widths import WidthError, widths_of

# What has a name of its own, whatever variable holds it.
_NAMED = (STATE, VECTOR, SCALAR, CONSTANT, BESIDE, DRAW)


def trace(cell: Definition) -> StepGraph:
    """Call `cell.step` with stand-ins and return its equations, verified, and the same when it is called again.

    Those of evaluation, where training has others.

    Raises:
        CellError: the cell's definition is wrong; the text shows the line and the way out.
    """
    return trace_both(cell)[0]


def trace_both(cell: Definition) -> tuple[StepGraph, StepGraph]:
    """The equations of evaluation and those of training: one graph, where a step does not depend on which it is.

    Raises:
        CellError: as `trace`; also where the two ask for other weights.
    """
    tracer, graph = _read(cell, training=False)
    if not tracer.asked_training:
        _check_used(tracer, graph, graph)
        check_repeatable((tracer, graph), again=lambda: _read(cell, training=False))
        return verify(graph), graph
    learner, training = _read(cell, training=True)
    _check_same_weights(learner, graph, training)
    _check_used(tracer, graph, training)
    check_repeatable((tracer, graph), again=lambda: _read(cell, training=False))
    check_repeatable((learner, training), again=lambda: _read(cell, training=True))
    return verify(graph), verify(training)


def _read(cell: Definition, training: bool) -> tuple[Tracer, StepGraph]:
    tracer = Tracer(cell, training)
    states = [Value(tracer, tracer.node(STATE, attribute=name)) for name in cell.states]
    beside = {name: Value(tracer, tracer.node(BESIDE, attribute=name)) for name in cell.inputs}
    with tracing(tracer):
        try:
            returned = cell.step(Input(tracer), *states, **beside)
        except CellError:
            raise
        except Exception as error:
            raise step_error(tracer, error) from error
    ends = _returned(tracer, returned)
    outputs = output_names(cell)
    output, *others = [ends[name] for name in outputs]
    graph = StepGraph(
        name=tracer.name,
        gates=(*cell.gates, *tracer.fixed_gates),
        states=cell.states,
        vectors=cell.vectors,
        scalars=cell.scalars,
        output=output,
        new_states=tuple([ends[name] for name in cell.states]),
        names=_names(tracer),
        inputs=tuple(cell.inputs),
        draws=tuple(tracer.draws),
        learned_first=cell.learned_first,
        outputs=outputs if others else (),
        others=tuple(others),
        widths=(*_widths(cell, outputs), *_given_widths(tracer)),
    )
    _check_widths(tracer, graph)
    return tracer, graph


def _widths(cell: Definition, outputs: tuple[str, ...]) -> tuple[tuple[str, Units], ...]:
    """What a cell says of widths; its only output goes by no name in a graph."""
    only = {} if len(outputs) > 1 or outputs[0] in cell.states else {outputs[0]: ONLY_OUTPUT[0]}
    found = [(only.get(name, name), units) for name, units in cell._widths]
    found += [(name, units) for name, units in cell._widths if name in only and name in cell.gates]
    return tuple(found)


def _given_widths(tracer: Tracer) -> tuple[tuple[str, Units], ...]:
    """The rows of matrices that are given."""
    sizes = {name: (FORMS[form.kind].size, form.number) for name, (_, form) in tracer.fixed_gates.items()}
    return tuple((name, Units(size(number)[0], 0)) for name, (size, number) in sizes.items() if size)


def _check_widths(tracer: Tracer, graph: StepGraph) -> None:
    """Raise ShapeError, with the user's line, if values of several widths meet unit by unit."""
    if not graph.widths:
        return
    try:
        widths_of(graph)
    except WidthError as error:
        raise ShapeError(
            problem=f"{error}.",
            where=error.node.source,
            remedy="A gate leads from one width to another: linear(s.n) has the units of what it meets; a number of "
            "the row, as mean(s), meets any.",
        ) from None
    if graph.input_parts:
        raise ShapeError(
            problem=f"{graph.name} takes x as it is, unit by unit, and has states, gates or outputs of other widths "
            "than H.",
            where=next(node.source for node in graph.nodes if node in graph.part_nodes),
            remedy="Ask x for a gate, x.n; a cell with widths takes no part of the input as it is.",
        )


def output_names(cell: Definition) -> tuple[str, ...]:
    """What a cell gives at each step, the output of the layer first; of a state among them the new value."""
    return cell.outputs or (cell.output or cell.states[0],)


def _returned(tracer: Tracer, returned: Any) -> dict[str, Node]:
    """What a step returned, by name: outputs that are no states, then states."""
    cell = tracer.cell
    wanted = (*(name for name in output_names(cell) if name not in cell.states), *cell.states)
    values = returned if isinstance(returned, tuple) else (returned,)
    where = Source(tracer.code.co_filename, _return_line(tracer))
    remedy = "Write: return " + ", ".join(wanted) + " (each with its new value)."
    if returned is None or len(values) != len(wanted):
        raise ReturnError(
            cell=tracer.name,
            wanted=f"{len(wanted)} value{'s' * (len(wanted) > 1)} ({', '.join(wanted)})",
            found=f"{len(values)}" if returned is not None else "None",
            where=where,
            remedy=remedy,
        )
    for name, value in zip(wanted, values, strict=True):
        shape = value._node.shape if isinstance(value, Value) else None
        if shape is not Shape.BATCH or value._node.is_mask:
            found = (
                "a comparison"
                if shape is Shape.BATCH
                else f"a value of shape {shape}"
                if shape is not None
                else describe(value)
            )
            is_row = shape is Shape.ROWS and name not in cell.states
            raise ReturnError(
                cell=tracer.name,
                wanted=f"a value of shape (B, H) for {name}",
                found=found,
                where=where,
                remedy=f"One number of a row is given to all units: {name} + 0 * {cell.states[0]}."
                if is_row
                else "A state is computed from x.gate or from the states."
                if shape is not Shape.BATCH
                else remedy,
            )
    return {name: value._node for name, value in zip(wanted, values, strict=True)}


def _return_line(tracer: Tracer) -> int:
    # After the call the frame stands on the line that returned.
    frame = tracer.frame
    return frame.f_lineno if frame is not None else tracer.code.co_firstlineno


def _names(tracer: Tracer) -> tuple[tuple[Node, str], ...]:
    """The user's variables, read from the finished call's frame; they make the printed equations readable."""
    found: dict[Node, str] = {}
    for name, value in dict(tracer.frame.f_locals if tracer.frame else {}).items():
        if isinstance(value, Value) and not isinstance(value, Input) and value._node.op not in _NAMED:
            found.setdefault(value._node, name)
    return tuple(found.items())


def _check_same_weights(tracer: Tracer, graph: StepGraph, training: StepGraph) -> None:
    if graph.widths and _weight_units(graph) != _weight_units(training):
        raise CellDefinitionError(
            problem=f"{graph.name} has weights of other widths in training than in evaluation.",
            where=Source(tracer.code.co_filename, tracer.code.co_firstlineno),
            remedy="A layer has the same weights in both: have each gate and parameter meet the same states in both.",
        )
    if graph.forms != training.forms:
        raise CellDefinitionError(
            problem=f"{graph.name} makes a weight in training in another way than in evaluation.",
            where=Source(tracer.code.co_filename, tracer.code.co_firstlineno),
            remedy="A layer has the same weights in both: make each alike whatever self.training is.",
        )
    for what in ("input_gates", "state_gates"):
        one, other = set(getattr(graph, what)), set(getattr(training, what))
        if one != other:
            gate, where = min(one ^ other), "training" if other - one else "evaluation"
            raise CellDefinitionError(
                problem=f"{graph.name} asks for the gate '{gate}' in {where} alone.",
                where=Source(tracer.code.co_filename, tracer.code.co_firstlineno),
                remedy="A layer has the same weights in both: ask for each gate whatever self.training is.",
            )


def _weight_units(graph: StepGraph) -> tuple[object, ...]:
    """How many units all that has weights has."""
    found = widths_of(graph)
    return found.gates, found.columns, found.vectors, found.outputs


def _check_used(tracer: Tracer, graph: StepGraph, training: StepGraph) -> None:
    learned = {*graph.input_gates, *graph.state_gates} - {*graph.functions}
    if not (learned or graph.vectors or graph.scalars):
        raise CellDefinitionError(
            problem=f"{graph.name} has nothing to learn: its equations ask for no gate with weights and no parameter.",
            where=Source(tracer.code.co_filename, tracer.code.co_firstlineno),
            remedy='Name a gate and use it: gates = ("n",), and x.n in step.',
        )
    for op, gate in mixed_biases(graph):
        raise CellDefinitionError(
            problem=f"{graph.name} asks for the gate '{gate}' of {'the input' if op is INPUT else 'a state'} both with "
            "its bias and without it, by linear().",
            where=Source(tracer.code.co_filename, tracer.code.co_firstlineno),
            remedy="A gate has a bias or none: write linear() around it everywhere, or give it a name of its own.",
        )
    for op, gate in (*mixed_forms(graph), *mixed_forms(training)):
        raise CellDefinitionError(
            problem=f"{graph.name} asks for the gate '{gate}' of {'the input' if op is INPUT else 'a state'} with "
            "weights that are made in two ways.",
            where=Source(tracer.code.co_filename, tracer.code.co_firstlineno),
            remedy="A gate has one weight: make it alike wherever it stands, or give the other a name of its own.",
        )
    for stem in shared_stems(graph):
        raise CellDefinitionError(
            problem=f"{graph.name} has two weights that a layer would call {stem}.",
            where=Source(tracer.code.co_filename, tracer.code.co_firstlineno),
            remedy="Give one of the gates another name.",
        )
    if mixes_parts(graph) or mixes_parts(training):
        raise CellDefinitionError(
            problem=f"{graph.name} has gates of the input that arrive ready, and asks the input for more.",
            where=Source(tracer.code.co_filename, tracer.code.co_firstlineno),
            remedy="Write ready() around all gates of the input, or around none: its numbers are those of the gates.",
        )
    cell_has_options = bool(tracer.cell.options)
    asked = {*graph.input_gates, *graph.state_gates}
    asked |= {gate for gate in graph.gates if ready_part(gate) in graph.input_parts}
    unused = [gate for gate in graph.gates if gate not in asked]
    if cell_has_options:
        return  # an option may leave a gate or a parameter out; what is not asked for is not made
    if unused:
        raise CellDefinitionError(
            problem=f"{graph.name} has the gate '{unused[0]}', but no equation that matters asks for it.",
            where=Source(tracer.code.co_filename, tracer.code.co_firstlineno),
            remedy=f"Use x.{unused[0]} or a state's .{unused[0]} in step, or take it out of gates.",
        )
    used = {node.attribute for each in (graph, training) for op in (VECTOR, SCALAR) for node in each.of(op)}
    for name in (*graph.vectors, *graph.scalars):
        if name not in used:
            raise CellDefinitionError(
                problem=f"{graph.name} has the parameter '{name}', but no equation that matters uses it.",
                where=Source(tracer.code.co_filename, tracer.code.co_firstlineno),
                remedy=f"Use self.{name} in step, or take it out.",
            )
    for name in graph.inputs:
        if name not in (*graph.asked_inputs, *training.asked_inputs):
            raise CellDefinitionError(
                problem=f"{graph.name} has the input '{name}' beside x, but no equation that matters uses it.",
                where=Source(tracer.code.co_filename, tracer.code.co_firstlineno),
                remedy=f"Use {name} in step, or take it out of inputs.",
            )
