"""Options: declared once, checked with a sentence, known by their command line names, quick to import."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cellwise.tasks.errors import OptionError
from cellwise.tasks.options import check_values, option, options_of, with_options
from cellwise.tasks.registry import find_task, tasks


@with_options
class Base:
    cell: Any = option(default="gru", help="A cell.", kw_only=False)
    size: int = option(default=8, help="Units.", at_least=1, at_most=64)
    rate: float = option(default=0.5, help="Rate.", above=0.0, below=1.0)


@with_options
class Narrow(Base):
    known: ClassVar[str] = "no option"
    steps: int = option(default=3, help="Steps.", at_least=1, flag=("--steps", "-s"), kw_only=False)
    season: int | None = option(default=None, help="Season.", at_least=2, none="by frequency")
    names: Sequence[str] = option(default=(), help="Columns.", what="column names")
    by: str = option(default="all", help="What to lay out.", choices=("all", "series"))
    name: str = option(default="y", help="Column.", what="the name of a column")
    quick: bool = option(default=False, help="Whether to hurry.")
    members: int = option(default=1, help="Networks.", at_least=1, flag="--side-by-side")
    pairs: Any = option(
        default=(1, 2), help="Pairs.", what="two numbers", accepts=lambda pair: len(pair) == 2
    )
    size: int = 16


def test_the_constructor_takes_what_was_declared() -> None:
    made = Narrow("lstm", 5, rate=0.25)
    assert (made.cell, made.steps, made.rate, made.size) == ("lstm", 5, 0.25, 16)
    parameters = inspect.signature(Narrow).parameters
    kinds = {name: parameter.kind is parameter.KEYWORD_ONLY for name, parameter in parameters.items()}
    assert [name for name, only in kinds.items() if not only] == ["cell", "steps"]
    with pytest.raises(TypeError, match="stepz"):
        Narrow(stepz=3)  # type: ignore[call-arg]


def test_another_default_keeps_help_and_range() -> None:
    base, narrow = ({each.name: each for each in options_of(cls)} for cls in (Base, Narrow))
    assert (base["size"].default, narrow["size"].default) == (8, 16)
    assert narrow["size"].help == "Units."
    with pytest.raises(OptionError, match="size must be a whole number from 1 to 64, not 65"):
        check_values(Narrow, {"size": 65})


def test_the_order_is_positional_then_own_then_shared() -> None:
    names = [each.name for each in options_of(Narrow)]
    assert names == [
        "cell",
        "steps",
        "season",
        "names",
        "by",
        "name",
        "quick",
        "members",
        "pairs",
        "size",
        "rate",
    ]


def test_flags_are_named_after_the_option_unless_declared() -> None:
    flags = {each.name: each.flags for each in options_of(Narrow)}
    assert flags["steps"] == ("--steps", "-s")
    assert flags["season"] == ("--season",)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("steps", 0, "steps must be a whole number of at least 1, not 0"),
        ("steps", True, "steps must be a whole number of at least 1, not True"),
        ("steps", None, "steps must be a whole number of at least 1, not None"),
        ("size", 2.0, "size must be a whole number from 1 to 64, not 2.0"),
        ("rate", 1.0, "rate must be a number above 0.0 and below 1.0, not 1.0"),
        ("rate", float("nan"), "rate must be a number above 0.0 and below 1.0, not nan"),
        ("members", 0, "members must be a whole number of at least 1, not 0 (--side-by-side)"),
        ("season", 1, "season must be a whole number of at least 2, not 1"),
        ("names", "y", "names must be a list of column names, such as ['y']"),
        ("names", [1], "names must be a list of column names, not [1]"),
        ("names", 3, "names must be a list of column names, not 3"),
        ("by", "none", "by must be 'all' or 'series', not 'none'"),
        ("name", "", "name must be the name of a column, not ''"),
        ("quick", 1, "quick must be True or False, not 1"),
        ("pairs", (1,), "pairs must be two numbers, not (1,)"),
        ("name", ["x" * 100], "name must be the name of a column, not ['" + "x" * 55 + "..."),
    ],
)
def test_a_value_out_of_range_is_one_sentence(name: str, value: object, sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_values(Narrow, {name: value})
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [("season", None), ("steps", np.int64(4)), ("rate", np.float32(0.5)), ("names", ()), ("names", ["a", ""]),
     ("by", "series"), ("quick", True), ("cell", object())],
)  # fmt: skip
def test_what_makes_sense_is_taken(name: str, value: object) -> None:
    check_values(Narrow, {name: value})


def test_stored_is_what_json_holds() -> None:
    by_name = {each.name: each for each in options_of(Narrow)}
    assert by_name["names"].stored(("a", "b")) == ["a", "b"]
    assert type(by_name["steps"].stored(np.int64(4))) is int
    assert type(by_name["rate"].stored(np.float32(0.5))) is float
    assert by_name["quick"].stored(True) is True
    assert by_name["season"].stored(None) is None


def test_an_attribute_that_no_one_declared_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Wrong.sizes is no option yet; declare it with option\(...\)"):

        @with_options
        class Wrong(Base):
            sizes: int = 3


def test_a_task_is_found_by_its_name_and_by_that_of_before() -> None:
    assert {"forecast", "text"} <= set(tasks())
    assert find_task("forecast") is tasks()["forecast"]
    assert find_task("characters") is tasks()["text"]
    assert find_task("nothing") is None


def test_every_task_loads_what_it_names() -> None:
    for task in tasks().values():
        estimator, declared = task.load_estimator(), task.load_options()
        assert estimator.__name__ == task.class_name
        assert list(inspect.signature(estimator).parameters) and options_of(declared)
        assert all(each.help.strip() for each in options_of(declared))
        assert getattr(sys.modules["cellwise.tasks"], task.class_name) is estimator


def test_the_options_of_every_task_are_read_without_torch() -> None:
    code = (
        "import sys\n"
        "from cellwise.tasks.registry import tasks\n"
        "from cellwise.tasks.options import options_of\n"
        "for task in tasks().values():\n"
        "    assert options_of(task.load_options())\n"
        "    task.load_fit_options()\n"
        "loaded = {'torch', 'numpy', 'polars', 'click', 'rich'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_contract_of_imports_names_every_task() -> None:
    contracts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    (contract,) = (
        each
        for each in contracts["tool"]["importlinter"]["contracts"]
        if each.get("containers") == ["cellwise.tasks"]
    )
    folders = {task.folder.rpartition(".")[2] for task in tasks().values()}
    assert set(contract["layers"][0].split(" | ")) == folders


def test_the_constructor_of_every_task_is_its_options() -> None:
    for task in tasks().values():
        estimator = task.load_estimator()
        defaults = {each.name: each.default for each in options_of(task.load_options())}
        assert estimator().get_params() == defaults
        assert {
            name: each.default for name, each in inspect.signature(estimator).parameters.items()
        } == defaults
