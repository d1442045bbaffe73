"""What `cellwise show --stage` prints: plans, LLVM code and assembly that can be read, of every cell."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from click.testing import CliRunner

from cellwise import cells
from cellwise.backends.cpu.kernel import widths_of
from cellwise.backends.cpu.products import routine_name
from cellwise.backends.cpu.stages import PASSES, STAGES, stage_text
from cellwise.backends.cpu.target import Target, host
from cellwise.cli import app, main
from cellwise.graph.text import lines
from cellwise.plan.listing import equation_of, listing
from cellwise.plan.program import StorageClass

ARM = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon", 16, 32)


@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_the_plan_has_every_equation_of_the_cell(name: str) -> None:
    graph = cells.get(name).graph
    text = listing(PASSES["forward"](graph), graph)
    for line in lines(graph):
        if line.node is not None:
            assert f"{line.name} = {line.text}" in text or f"]  {line.text}" in text


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_a_plan_names_every_array_product_and_write(name: str, which: str) -> None:
    graph = cells.get(name).graph
    program = PASSES[which](graph)
    text = listing(program, graph)
    for array in program.buffers:
        assert re.search(rf"^  {array.name}  +\(", text, re.MULTILINE)
    for stage in program.stages:
        for term in stage.terms:
            assert f"{term.operand.buffer.name}" in text
            assert f"× {term.weight.stem}[{', '.join(term.weight.gates)}]" in text
        for node, slot in stage.writes:
            where = f"{slot.buffer.name}[{slot.column}]" if slot.buffer.columns > 1 else slot.buffer.name
            adds = "added to " if slot.buffer.storage is StorageClass.REDUCTION else ""
            assert f"{adds}{where}" in text.split("writes", 1)[1]
            assert equation_of(program, node, graph)
    assert "pullback" not in text
    assert "gradient output" not in text or "Δ" in text


def test_the_backward_plan_is_the_derivative_of_a_gru() -> None:
    graph = cells.get("gru").graph
    text = listing(PASSES["backward"](graph), graph)
    assert "δx_n = δh' ⊙ (1 − z) ⊙ (1 − n ⊙ n)" in text
    assert "[0]  W_hrᵀ δx_r + W_hzᵀ δx_z + W_hnᵀ δh_n" in text
    assert "δh = δh' ⊙ z + (W_hrᵀ δx_r + W_hzᵀ δx_z + W_hnᵀ δh_n)" in text


def test_every_value_of_a_program_has_an_equation_in_names_of_the_cell() -> None:
    graph = cells.get("lstm").graph
    program = PASSES["forward"](graph)
    (stage,) = program.stages
    found = [equation_of(program, node, graph) for node in (*stage.accumulators, *stage.nodes)]
    assert found[0] == "W_ii x + b_ii + W_hi h + b_hi"
    assert "c' = f ⊙ c + i ⊙ g" in found
    assert "tanh(c')" in found


@pytest.mark.parametrize("which", PASSES)
def test_llvm_code_is_llvm_code_with_its_equations(which: str) -> None:
    graph = cells.get("mingru").graph
    text = stage_text(graph, "llvm", which)
    module = llvm.parse_assembly(text)
    routines = [routine_name(width, 4, host()) for width in widths_of(PASSES[which](graph), host())]
    assert [function.name for function in module.functions if not function.is_declaration] == [
        PASSES[which](graph).name,
        *routines,
    ]
    assert "; " + listing(PASSES[which](graph), graph).splitlines()[-1] in text.splitlines()


def test_assembly_is_that_of_the_target() -> None:
    graph = cells.get("rnn").graph
    text = stage_text(graph, "asm", target=ARM)
    assert "fmla" in text
    assert text.startswith("// RNN_forward")
    other = 64 if host().vector_bytes == 32 else 32
    shaped = stage_text(graph, "asm", target=replace(host(), vector_bytes=other, registers=16))
    assert shaped != stage_text(graph, "asm")
    assert "RNN_forward:" in shaped


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_show_prints_a_stage_or_writes_it(stage: str, tmp_path: Path) -> None:
    graph = cells.get("indrnn").graph
    printed = CliRunner().invoke(app, ["show", "indrnn", "--stage", stage])
    assert printed.stdout.rstrip("\n") == stage_text(graph, stage)
    done = CliRunner().invoke(
        app, ["show", "indrnn", "--stage", stage, "--pass", "backward", "--out", str(tmp_path / "it")]
    )
    assert done.stdout == f"{stage}: {tmp_path / 'it'}\n"
    assert (tmp_path / "it").read_text() == stage_text(graph, stage, "backward") + "\n"


def test_help_names_the_stages_that_there_are() -> None:
    from cellwise.cli.show import _STAGES

    assert list(_STAGES) == list(STAGES)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--stage", "c"], "There is no stage called 'c'; the stages are: plan, llvm, asm."),
        (["--stage", "plan", "--as", "svg"], "--stage and --as cannot be combined; give one of them."),
        (
            ["--stage", "plan", "--unrolled", "3"],
            "--stage and --unrolled cannot be combined; give one of them.",
        ),
        (
            ["--stage", "asm", "--pass", "back"],
            "There is no pass called 'back'; did you mean 'backward'? Else, the passes are: forward, hoisted, "
            "training, backward, recomputing.",
        ),
        (
            ["--pass", "forward"],
            "--pass needs --stage plan, llvm or asm.",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    asked: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["cellwise", "show", "gru", *asked])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"cellwise: {told}\n"
