"""What the book is made with: formulas, styles, loops found in assembly, and code that must not fail."""

from __future__ import annotations

import doctest
import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from book import bakeoff
from book.kernel import busiest_loop, excerpt, first_product_block, instructions, is_product, tidy
from book.math import FormulaError, mathml
from book.measured import FOLDER, study, written
from book.theme import diagram_css
from bs4 import BeautifulSoup

from cellwise import cells
from cellwise.experiments.bakeoff.problems import PROBLEMS
from cellwise.experiments.bakeoff.ranking import table_of
from cellwise.experiments.bakeoff.record import RUNS, read_runs
from cellwise.experiments.bakeoff.study import BakeoffSettings, Job
from cellwise.understand.diagram.style import STYLE
from cellwise.understand.views import view

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", cells.FAMILIAR)
@pytest.mark.parametrize("kind", ["latex", "gradient-latex"])
def test_every_formula_becomes_mathml(name: str, kind: str) -> None:
    latex = view(name, kind)
    made = mathml(latex, display=True)
    rows = latex.count(r"\\") + 1 + latex.count(r"\begin{cases}")
    assert made.startswith("<math") and made.count("<mtr>") == rows


def test_a_formula_the_converter_does_not_know_is_refused() -> None:
    with pytest.raises(FormulaError, match="nosuch"):
        mathml(r"\nosuch{x} = 1")


def test_the_diagrams_style_stays_inside_diagrams() -> None:
    made = diagram_css(STYLE)
    assert made.count("{") == made.count("}")
    assert made.count("#e4e9ee") == 2 * STYLE.count("#e4e9ee")  # dark by choice, dark by the system
    assert all(line.startswith((".diagram", "body[", "@media")) for line in _outermost(made))


def _outermost(css: str) -> list[str]:
    depth, found, text = 0, [], ""
    for letter in css:
        text += letter
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth == 0 and letter == "}":
            found.append(text.strip())
            text = ""
    return found


ASSEMBLY = """kernel:
	movq	(%rdi), %rax
.LBB0_1:
	vbroadcastss	(%rsi,%rcx,4), %ymm0     # one number
	vfmadd231ps	(%rax), %ymm0, %ymm1
	incq	%rcx
	jl	.LBB0_1
	jmp	.LBB0_3
.LBB0_2:
	vfmadd231ps	(%rax), %ymm0, %ymm1
	vfmadd231ps	32(%rax), %ymm0, %ymm2
	jl	.LBB0_2
.LBB0_3:
	vfmadd231ps	(%rax), %ymm0, %ymm1
	vfmadd231ps	(%rax), %ymm0, %ymm1
	vfmadd231ps	(%rax), %ymm0, %ymm1
	retq
"""


def test_the_busiest_loop_goes_round() -> None:
    loop = busiest_loop(ASSEMBLY)
    assert loop.startswith(".LBB0_2:") and len(instructions(loop)) == 3
    assert sum(map(is_product, instructions(loop))) == 2


def test_a_loop_ends_where_it_jumps_back() -> None:
    loop = busiest_loop(ASSEMBLY.replace("jl\t.LBB0_2", "jl\t.LBB0_9"))
    assert tidy(loop).splitlines() == [
        ".LBB0_1:",
        "    vbroadcastss (%rsi,%rcx,4), %ymm0",
        "    vfmadd231ps  (%rax), %ymm0, %ymm1",
        "    incq         %rcx",
        "    jl           .LBB0_1",
    ]


def test_a_loop_with_few_products_is_no_sum_of_products() -> None:
    padded = ASSEMBLY.replace(".LBB0_2:\n", ".LBB0_2:\n" + "\taddq\t$1, %rax\n" * 6)
    assert busiest_loop(padded).startswith(".LBB0_1:")


def test_an_excerpt_says_what_it_leaves_out() -> None:
    block = "\n".join("abcdef")
    assert excerpt(block, 2, 1).splitlines() == ["a", "b", "  … 3 lines …", "f"]
    assert excerpt(block, 3, 2) == block


def test_code_without_products_is_no_answer() -> None:
    with pytest.raises(ValueError, match="no loop"):
        busiest_loop("kernel:\n\tretq\n")


def test_the_first_block_with_products() -> None:
    code = 'entry:\n  br label %"k"\nk:\n  %1 = call <8 x float> @"llvm.fma.v8f32"(...)\n  br label %"k"'
    declared = f'declare <8 x float> @"llvm.fma.v8f32"(...)\n{code}'
    assert first_product_block(declared).startswith("k:")
    kernel = code.replace("k", "pointwise")
    both = f"define void @kernel()\n{{\n{kernel}\n}}\ndefine void @products()\n{{\n{code}\n}}"
    assert first_product_block(both).startswith("k:")


def test_small_numbers_are_written_for_people() -> None:
    assert written("1.1e-05 and 2e+06, gate e-1") == "1.1\xa0×\xa010⁻⁵ and 2\xa0×\xa010⁶, gate e-1"


@pytest.mark.parametrize("name", ["gradients", "memory", "scaling"])
def test_measurements_say_where_they_come_from(name: str) -> None:
    about = json.loads((FOLDER / f"{name}.json").read_text("utf8"))
    assert about["command"].startswith("cellwise ") and about["measured_on"]["processor"]
    made = study(name)
    assert made.curves if name != "memory" else made.trials


@pytest.mark.parametrize("name", sorted(path.stem for path in (DOCS / "book").glob("[a-z]*.py")))
def test_examples_in_the_books_own_code(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"book.{name}")).failed == 0


PAGES = {
    "code that fails": ("```{run}\n1 / 0\n```", "ZeroDivisionError"),
    "code that should fail and does not": ("```{run}\n:fails: UnknownGateError\n1 + 1\n```", "was to fail"),
    "a command that fails": ("```{shell}\ncellwise show nosuchcell\n```", "nosuchcell"),
    "a link to nowhere": ("[there](nowhere.md)", "nowhere"),
    "a cell that is not": ("```{equations} nosuchcell\n```", "nosuchcell"),
}


@pytest.mark.slow
@pytest.mark.parametrize("text, complaint", PAGES.values(), ids=PAGES)
def test_a_mistake_ends_the_build(tmp_path: Path, text: str, complaint: str) -> None:
    done = _build(tmp_path, text)
    assert done.returncode != 0 and complaint in done.stderr + done.stdout


@pytest.mark.slow
def test_code_and_its_result(tmp_path: Path) -> None:
    done = _build(tmp_path, "```{run}\nfor i in range(3):\n    print(i * 7)\n```\n\n$a^2$")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "index.html").read_text("utf8")
    assert "0\n7\n14" in page and "<msup><mi>a</mi><mn>2</mn></msup>" in page


def _build(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "index.md").write_text(f"# A page\n\n{text}\n", encoding="utf8")
    settings = (DOCS / "conf.py").read_text("utf8").replace("str(Path(__file__).parent)", repr(str(DOCS)))
    (folder / "conf.py").write_text(settings, encoding="utf8")
    (folder / "_static").mkdir()
    for name in ("book.css",):
        (folder / "_static" / name).write_text("", encoding="utf8")
    return _sphinx(str(folder), str(folder / "site"))


def _sphinx(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-E", "-W", "-q", "-b", "html", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_cells_that_the_book_compares_are_those_that_ship() -> None:
    runs = read_runs(bakeoff.FOLDER / RUNS)
    settings = BakeoffSettings(parameters=runs[0].parameter_budget, updates=runs[0].update_budget)
    for run in runs:
        job = Job(PROBLEMS[run.problem], cells.get(run.cell), run.seed, settings)
        assert not run.differs(job.expected), (
            f"{bakeoff.COMMAND.replace(' all ', f' {run.cell} ')} --overwrite"
        )


def test_what_is_said_of_the_comparison_follows_from_its_runs() -> None:
    run = next(each for each in read_runs(bakeoff.FOLDER / RUNS) if each.problem == "adding")
    scores = {"gru": 0.1, "lstm": 0.15, "rnn": None, "mgu": 0.5}
    found = table_of([replace(run, cell=cell, seed=0, score=score) for cell, score in scores.items()])
    assert bakeoff.sentences(found) == [
        "On adding, the best are gru (0.1), lstm (0.15), mgu (0.5); 2 of 4 cells are better than “always the mean” "
        "(0.163).",
        "By mean rank, gru, lstm, mgu, rnn come first of 4 cells; rnn is number 4, lstm is number 2, gru is number 1.",
        "Trainings diverged of rnn.",
        "Not measured yet for every cell: recall, digits, characters, forecast.",
    ]


def test_every_page_of_a_run_is_its_own_though_all_are_called_report(tmp_path: Path) -> None:
    source, built = tmp_path / "source", tmp_path / "built"
    source.mkdir()
    for name in ("one", "two"):
        (source / f"{name}.md").write_text(
            f"# {name}\n\n```{{run}}\nfrom pathlib import Path\n\nPath('runs/{name}').mkdir(parents=True)\n"
            f"length = Path('runs/{name}/report.html').write_text('report of {name}')\n```\n\n"
            f"```{{page}} runs/{name}/report.html\n:title: The report\n```\n"
        )
    (source / "index.md").write_text("# Index\n\n```{toctree}\none\ntwo\n```\n")
    done = _sphinx("-c", str(DOCS), str(source), str(built))
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("one", "two"):
        page = BeautifulSoup((built / f"{name}.html").read_text("utf8"), "html.parser")
        frame, link = page.select_one(".page iframe"), page.select_one(".page + .legend a")
        assert frame is not None and link is not None and frame["src"] == link["href"]
        assert (built / str(frame["src"])).read_text("utf8") == f"report of {name}"
