"""What runs before the loop, what in it, and which parameters a cell has: read from its equations."""

from __future__ import annotations

from typing import Any

import pytest

from cellwise import Cell, Scalar, Vector, cells, sigmoid, tanh
from cellwise.graph.ops import OPS
from cellwise.plan import parameter_layout, plan_of, state_sizes
from cellwise.plan.backward import projects
from cellwise.plan.sequence_plan import SequencePlan


def plan(name: str) -> SequencePlan:
    return plan_of(cells.get(name).graph)


def plan_for(step: Any, gates: tuple[str, ...], **body: Any) -> SequencePlan:
    made: Cell = type("Mine", (Cell,), {"gates": gates, "step": step, **body})()
    return plan_of(made.graph)


# The gates of the products of each stage.
STAGES = {
    "rnn": [[("n",)]],
    "lstm": [[("i", "f", "g", "o")]],
    "gru": [[("r", "z", "n")]],
    "gru-reset-before": [[("r", "z")], [("n",)]],
    "lstm-peephole": [[("i", "f", "g", "o")]],
    "mingru": [],
    "indrnn": [],
}


@pytest.mark.parametrize("name", STAGES)
def test_products_of_shipped_cells(name: str) -> None:
    products = [
        [product.gates for product in stage.products] for stage in plan(name).stages if stage.products
    ]
    assert products == STAGES[name]


def test_the_reset_before_gru_multiplies_its_own_product_second() -> None:
    first, second = [stage for stage in plan("gru-reset-before").stages if stage.products]
    assert first.products[0].operand.op is OPS["state"]
    assert second.products[0].operand.op is OPS["mul"]
    assert second.products[0].operand in first.pointwise


@pytest.mark.parametrize("name", cells.names())
def test_every_node_runs_once_and_after_its_operands(name: str) -> None:
    made = plan(name)
    seen = {node for node in made.graph.nodes if not node.inputs}
    ran = [node for node in made.before if node.inputs]
    order = [(node, node.inputs) for node in ran]
    for stage in made.stages:
        order += [(node, (product.operand,)) for product in stage.products for node in product.results]
        order += [(node, node.inputs) for node in stage.pointwise]
    for node, needed in order:
        assert all(each in seen for each in needed)
        assert node not in seen
        seen.add(node)
    assert seen == set(made.graph.nodes)


def test_what_sees_no_state_is_hoisted_out_of_the_loop() -> None:
    def step(self, x, h):
        z = sigmoid(x.z) * self.q
        return z * h + tanh(x.n)

    made = plan_for(step, ("z", "n"), q=Scalar())
    hoisted = {node.op.name for node in made.before}
    assert {"sigmoid", "tanh"} <= hoisted
    (stage,) = made.stages
    assert [node.op.name for node in stage.pointwise] == ["mul", "add"]
    assert [node.op.name for node in made.carried_in] == ["mul", "tanh"], (
        "only what the loop reads is carried in"
    )


def test_mingru_hoists_all_that_the_input_decides() -> None:
    made = plan("mingru")
    assert {node.op.name for node in made.before} == {"input", "sigmoid", "constant", "sub", "mul"}
    assert [node.op.name for node in made.stages[0].pointwise] == ["mul", "add"]


def test_a_projection_of_the_input_alone_is_still_a_product_of_a_stage() -> None:
    made = plan_for(lambda self, x, h: tanh(x.n).m + h, ("n", "m"))
    (product,) = made.stages[1].products if made.stages[0].products == () else made.stages[0].products
    assert product.gates == ("m",)
    assert product.operand in made.before


def test_one_product_per_operand() -> None:
    made = plan_for(lambda self, x, h, c: (h.b + h.a + c.a + x.a, c), ("a", "b"), states=("h", "c"))
    (stage,) = [stage for stage in made.stages if stage.products]
    assert sorted(product.gates for product in stage.products) == [("a",), ("a", "b")]


def test_layout_of_the_lstm_is_that_of_torch() -> None:
    layout = parameter_layout(plan("lstm"), 5, 3, bias=True, proj_size=2)
    assert [(spec.stem, spec.shape) for spec in layout] == [
        ("weight_ih", (12, 5)),
        ("weight_hh", (12, 2)),
        ("bias_ih", (12,)),
        ("bias_hh", (12,)),
        ("weight_hr", (2, 3)),
    ]
    assert layout[0].name(1, True) == "weight_ih_l1_reverse"
    assert state_sizes(plan("lstm"), 3, 2) == (2, 3)


def test_layout_has_only_what_the_equations_ask_for() -> None:
    assert [spec.stem for spec in parameter_layout(plan("mingru"), 5, 3, bias=True)] == [
        "weight_ih",
        "bias_ih",
    ]
    indrnn = parameter_layout(plan("indrnn"), 5, 3, bias=False)
    assert [(spec.stem, spec.shape) for spec in indrnn] == [("weight_ih", (3, 5)), ("u", (3,))]

    def step(self, x, h):
        return tanh(x.a + h.b) * self.q + self.u

    mixed = plan_for(step, ("a", "b"), q=Scalar(), u=Vector())
    assert [(spec.stem, spec.shape) for spec in parameter_layout(mixed, 5, 3, bias=True)] == [
        ("weight_ih", (3, 5)),
        ("weight_hh", (3, 3)),
        ("bias_ih", (3,)),
        ("bias_hh", (3,)),
        ("u", (3,)),
        ("q", ()),
    ]


def test_one_plan_per_graph() -> None:
    assert plan("gru") is plan("gru")


class _Second(Cell):
    """A gate of another value than the first state, which a projected weight has no room for."""

    gates = ("a", "b")
    states = ("h",)

    def step(self, x, h):
        return tanh(x.a + h.a + tanh(x.b).b)


def test_only_cells_that_ask_the_first_state_alone_for_gates_can_be_projected() -> None:
    assert projects(cells.get("lstm").graph) and projects(cells.get("rnn").graph)
    assert not projects(_Second().graph)
    assert not projects(cells.get("gru").graph)  # it is read unit by unit
