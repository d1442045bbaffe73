"""The package as a whole: a light import, and every public name is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cellwise
import cellwise.testing

HEAVY = (
    "polars",
    "narwhals",
    "pandas",
    "matplotlib",
    "jinja2",
    "click",
    "rich",
    "hypothesis",
    "torch_geometric",
)


def loaded_by(code: str) -> set[str]:
    # Torch loads some of them itself where it finds them; what counts is what cellwise adds.
    script = (
        f"import sys, torch\nbefore = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_import_is_light() -> None:
    loaded = loaded_by("import cellwise")
    assert "cellwise" in loaded
    assert not loaded & set(HEAVY)


def test_testing_needs_hypothesis_for_its_strategies_alone() -> None:
    assert not loaded_by("import cellwise.testing") & set(HEAVY)
    assert "hypothesis" in loaded_by("import cellwise.testing.strategies")


@pytest.mark.parametrize(
    "module", [cellwise, cellwise.cells, cellwise.nn, cellwise.testing], ids=lambda m: m.__name__
)
def test_every_public_name_is_there_and_documented(module: object) -> None:
    names = module.__all__  # type: ignore[attr-defined]
    assert len(set(names)) == len(names)
    for name in names:
        value = getattr(module, name)
        if callable(value):
            assert value.__doc__, name


FIRST = (
    "cellwise.backends.base",
    "cellwise.backends.cpu.target",
    "cellwise.backends.native",
    "cellwise.backends.registry",
    "cellwise.graph.interpret",
    "cellwise.nn.checks",
    "cellwise.plan.cost",
    "cellwise.runtime.compiling",
    "cellwise.runtime.stream",
    "cellwise.torch_internals",
    "cellwise.tasks",
    "cellwise.testing.compare",
    "cellwise.understand.complexity",
)


@pytest.mark.parametrize("name", FIRST)
def test_any_module_may_be_the_first_that_is_imported(name: str) -> None:
    code = f"import {name}, cellwise; cellwise.GRU(3, 4)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_asking_whether_there_is_torch_loads_none_and_layers_still_come_with_it() -> None:
    code = (
        "import sys, importlib.util, cellwise; importlib.util.find_spec('torch'); assert 'torch' not in sys.modules; "
        "import torch; assert 'cellwise.nn' in sys.modules; importlib.util.find_spec('torch._dynamo'); "
        "import torch._dynamo; torch.compile(cellwise.GRU(3, 4), backend='eager', fullgraph=True)(torch.ones(2, 1, 3))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
