"""The views that are pictures: what is drawn, where, and that nothing lies on anything else."""

from __future__ import annotations

import itertools
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from shutil import which
from subprocess import run

import pytest
from hypothesis import given, settings
from views_cells import ALL, IDS, STRANGERS, ReadOut, ThreeStates

from cellwise import Cell, cells, sigmoid, tanh
from cellwise.graph import StepGraph
from cellwise.testing import strategies
from cellwise.understand.diagram.geometry import DiagramError, Drawing, draw, size_of
from cellwise.understand.diagram.picture import picture_of
from cellwise.understand.diagram.routing import center, crossings, faults
from cellwise.understand.views import VIEWS, ViewError, view

SVG = "{http://www.w3.org/2000/svg}"

# --- roles ------------------------------------------------------------------------------------------------------

ROLES = {
    "rnn": {"n": "candidate"},
    "lstm": {"i": "input", "f": "forget", "g": "candidate", "o": "output"},
    "lstm-peephole": {"i": "input", "f": "forget", "g": "candidate", "o": "output"},
    "gru": {"r": "reset", "z": "update", "n": "candidate"},
    "gru-reset-before": {"r": "reset", "z": "update", "n": "candidate"},
    "mingru": {"z": "update", "n": "candidate"},
    "indrnn": {"n": "candidate"},
    "layernorm-lstm": {"i": "input", "f": "forget", "g": "candidate", "o": "output"},
    "layernorm-gru": {"r": "reset", "z": "update", "n": "candidate"},
}
ROLES |= dict.fromkeys(("recurrent-dropout-lstm", "variational-lstm"), ROLES["lstm"])
# In evaluation h is carried on too, and what o opens is an input to it.
ROLES["zoneout-lstm"] = ROLES["lstm"] | {"o": "input"}
ROLES["time-aware-lstm"] = ROLES["lstm"] | {"short": "candidate"}


def roles(graph: StepGraph) -> dict[str, str]:
    return {block.name: block.role for block in picture_of(graph).blocks if block.kind == "gate"}


@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_the_roles_of_shipped_cells(name: str) -> None:
    assert roles(cells.get(name).graph) == ROLES[name]


def test_roles_come_from_the_equations_not_from_names() -> None:
    class Renamed(Cell):
        gates = ("o", "r", "a", "f")  # an LSTM whose letters mean something else
        states = ("c", "h")

        def step(self, x, c, h):
            o = sigmoid(x.o + c.o)
            r = sigmoid(x.r + c.r)
            a = tanh(x.a + c.a)
            f = sigmoid(x.f + c.f)
            h = a * r + h * o
            return tanh(h) * f, h

    assert roles(Renamed().graph) == {"o": "forget", "r": "input", "a": "candidate", "f": "output"}


# --- SVG --------------------------------------------------------------------------------------------------------


def boxes_of(drawing: Drawing) -> dict[str, tuple[float, float, float, float]]:
    found = {}
    for block in drawing.placement.picture.blocks:
        x, y = drawing.middle(block.id)
        width, height = size_of(block)
        found[block.id] = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return found


def check_apart(drawing: Drawing) -> None:
    boxes = boxes_of(drawing)
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one} lies on {other}"
    for edge, way in drawing.routed.by_edge.items():
        others = [box for id, box in boxes.items() if id not in (edge.source, edge.target)]
        turns = [b for a, b, c in zip(way, way[1:], way[2:], strict=False) if a[0] != c[0] and a[1] != c[1]]
        corners = [drawing.point(each) for each in (way[0], *turns, way[-1])]
        for (ax, ay), (bx, by) in itertools.pairwise(corners):
            for left, top, right, bottom in others:
                beside = (
                    max(ax, bx) <= left or right <= min(ax, bx) or max(ay, by) <= top or bottom <= min(ay, by)
                )
                assert beside, f"{edge} runs through another block"


@pytest.fixture(scope="module")
def drawings() -> dict[str, Drawing]:
    return {cell.name: draw(picture_of(cell.graph)) for cell in ALL}


@pytest.mark.parametrize("name", IDS)
def test_nothing_lies_on_anything_else(drawings: dict[str, Drawing], name: str) -> None:
    drawing = drawings[name]
    check_apart(drawing)
    body = {center(place) for place in drawing.placement.places.values()}
    body |= {(x + side, y) for x, y in body for side in (-1, 1)}
    assert faults(body, drawing.routed.by_edge) == 0
    assert set(drawing.routed.by_edge) == set(drawing.placement.picture.edges)


@pytest.mark.parametrize(
    ("name", "fewest"), [("rnn", 0), ("lstm", 0), ("gru", 1), ("mingru", 0), ("indrnn", 0)]
)
def test_lines_cross_only_where_they_must(drawings: dict[str, Drawing], name: str, fewest: int) -> None:
    assert len(crossings(drawings[name].routed.ways)) == fewest


@pytest.mark.parametrize("name", IDS)
def test_states_are_through_lines(drawings: dict[str, Drawing], name: str) -> None:
    drawing = drawings[name]
    for path in drawing.placement.rails:
        assert len({drawing.middle(id)[1] for id in path}) == 1
        assert [drawing.middle(id)[0] for id in path] == sorted(drawing.middle(id)[0] for id in path)
    places = drawing.placement.places
    for i in range(len(drawing.placement.picture.states)):
        if f"old{i}" in places:
            assert places[f"old{i}"][1] == places[f"new{i}"][1], (
                "a state leaves at the height at which it enters"
            )


@settings(max_examples=6)
@given(cell=strategies.cells(gradient=False, most_lines=6))
def test_random_cells_are_drawn_whole(cell: Cell) -> None:
    drawing = draw(picture_of(cell.graph))
    check_apart(drawing)
    assert set(drawing.routed.by_edge) == set(drawing.placement.picture.edges)


@pytest.mark.parametrize("steps", [None, 1, 3])
@pytest.mark.parametrize("cell", [cells.get("lstm"), cells.get("rnn"), ThreeStates(), ReadOut()], ids=str)
def test_an_svg_stands_alone_and_says_what_it_shows(cell: Cell, steps: int | None) -> None:
    text = view(cell, "svg", unrolled=steps)
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and cell.graph.name in (title.text or "")
    assert (
        description is not None
        and root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    )
    if steps is None:
        assert cell.equations in (description.text or "")
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    assert not {"script", "image", "use", "foreignObject"} & {
        each.tag.removeprefix(SVG) for each in root.iter()
    }
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text


def test_an_svg_names_each_gate_with_its_role() -> None:
    words = re.sub(r"<[^>]+>", " ", view("lstm", "svg"))
    for gate in ("f  forget", "i  input", "g  candidate", "o  output"):
        assert gate.split() == re.search(rf"\b{gate[0]}\s+{gate[3:]}", words)[0].split()  # type: ignore[index]


def test_the_same_cell_gives_the_same_picture() -> None:
    assert view("gru", "svg") == view("gru", "svg")


def test_unrolled_over_three_steps() -> None:
    root = ElementTree.fromstring(view("lstm", "svg", unrolled=3))
    labels = ["".join(each.itertext()) for each in root.iter(f"{SVG}text")]
    assert sorted(labels) == sorted(
        ["LSTM"] * 3 + ["x1", "x2", "x3"] + ["h0", "c0"] + ["h1", "h2", "h3"] * 2 + ["c1", "c2", "c3"]
    )


def test_a_step_too_large_for_a_page_says_so() -> None:
    class Long(Cell):
        gates = ("n",)

        def step(self, x, h):
            for _ in range(40):
                h = tanh(h * x.n)
            return h

    with pytest.raises(
        DiagramError, match=r"^The step of Long is 84 blocks, and a picture shows at most 64; "
    ):
        view(Long, "svg")
    check_mermaid(view(Long, "mermaid"))


# --- Mermaid ----------------------------------------------------------------------------------------------------

NODE = re.compile(r'^  (\w+)(?:\(\(|\(\[|\[)"([^"]*)"(?:\)\)|\]\)|\])(?::::(\w+))?$')
LINE = re.compile(r'^  (\w+) (?:-->|==>)(?:\|"([^"]*)"\|)? (\w+)$')


def check_mermaid(text: str) -> None:
    """Each node once, each label escaped, each end of a line declared, each class defined."""
    head, body = text.split("flowchart LR\n")
    assert head.startswith("---\ntitle: ")
    nodes: dict[str, str] = {}
    classes, lines = set(), []
    defined = set(re.findall(r"^  classDef (\w+) ", body, re.M))
    for row in body.splitlines():
        if node := NODE.match(row):
            assert node[1] not in nodes, f"{node[1]} is declared twice"
            nodes[node[1]] = node[2]
            classes |= {node[3]} - {None}
        elif line := LINE.match(row):
            lines.append(line)
        else:
            assert re.match(r"^  (classDef|accTitle:|accDescr:) ?", row), row
    assert classes <= defined
    for line in lines:
        assert line[1] in nodes, line[0]
        assert line[3] in nodes, line[0]
    for label in (*nodes.values(), *(line[2] or "" for line in lines)):
        bare = re.sub(r"#\w+;|<br/>", "", label)
        assert not set(bare) & set('#"<>`|*_~\\+-'), label


def test_the_check_of_mermaid_sees_mistakes() -> None:
    good = view("rnn", "mermaid")
    check_mermaid(good)
    for old, new in (
        ("x --> n1", "q --> n1"),
        ('["x (t)"]', '["x"t"]'),
        ('["x (t)"]', '["x_t"]'),
        ("  classDef candidate", "  classDef other"),
        ('  old0["', '  x["'),
    ):
        assert old in good
        with pytest.raises(AssertionError):
            check_mermaid(good.replace(old, new))


@pytest.mark.parametrize("cell", ALL, ids=IDS)
@pytest.mark.parametrize("steps", [None, 1, 4])
def test_mermaid_of_every_cell(cell: Cell, steps: int | None) -> None:
    check_mermaid(view(cell, "mermaid", unrolled=steps))


@given(cell=strategies.cells(gradient=False))
def test_mermaid_of_random_cells(cell: Cell) -> None:
    check_mermaid(view(cell, "mermaid"))


@pytest.mark.skipif(
    which("node") is None or "MERMAID_MODULES" not in os.environ,
    reason="needs node, and MERMAID_MODULES naming a folder in which mermaid and jsdom are installed",
)
def test_mermaid_reads_every_diagram(tmp_path: Path) -> None:
    files = []
    for cell, steps in itertools.product(ALL, (None, 3)):
        files.append(tmp_path / f"{cell.name}-{steps}.mmd")
        files[-1].write_text(view(cell, "mermaid", unrolled=steps), encoding="utf8")
    script = Path(__file__).parents[2] / "docs" / "check_mermaid.mjs"
    done = run(["node", script, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("flowchart") == len(files)


# --- the table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("cell", [cells.get("gru"), *(kind() for kind in STRANGERS[:2])], ids=str)
def test_every_view_of_a_cell(cell: Cell, name: str) -> None:
    assert view(cell, name) == view(type(cell), name)
    assert view(cell, name).strip()


def test_the_source_is_the_class_with_what_it_inherits() -> None:
    class Other(ThreeStates):
        """The same with another name."""

        name = "other"

    text = view(Other, "source")
    assert text.index("class ThreeStates(Cell)") < text.index("class Other(ThreeStates)")
    made = type("Made", (Cell,), {"gates": ("n",), "step": lambda self, x, h: h + x.n})
    with pytest.raises(ViewError, match=r"^The source of Made cannot be read, since"):
        view(made, "source")


@pytest.mark.parametrize(
    ("name", "steps", "says"),
    [
        ("picture", None, "There is no view called 'picture'; the views are: equations, latex, source, "),
        (
            "latex",
            3,
            "The view latex shows one step and cannot be unrolled; those that can are mermaid and svg.",
        ),
        ("svg", 0, "A network is unrolled over 1 to 1,000 steps, not 0."),
    ],
)
def test_what_cannot_be_seen(name: str, steps: int | None, says: str) -> None:
    with pytest.raises(ViewError) as caught:
        view("gru", name, unrolled=steps)
    assert str(caught.value).startswith(says)
