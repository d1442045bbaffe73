"""`cellwise bench [CELL ...]`: cellwise's kernels against torch.nn and onnxruntime."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from cellwise.bench.settings import (
    CUDA_SHAPES,
    DEFAULT_MODES,
    DEVICES,
    DTYPES,
    MODES,
    SHAPES,
    BenchError,
    Settings,
    Shape,
    parse_modes,
)
from cellwise.cells.base import Cell
from cellwise.cli.cell_argument import HELP, cell_of, complete
from cellwise.cli.command import argument, option
from cellwise.cli.output import Quiet, is_quiet, say

if TYPE_CHECKING:
    from cellwise.bench.measure import Row
    from cellwise.bench.memory import Probe
    from cellwise.bench.results import BenchResults

_CELLS = ("gru", "rnn", "lstm")
_DEFAULT = Settings(cells={})


def bench(
    names: Annotated[
        list[str] | None,
        argument(
            metavar="[CELL ...]", help=f"{HELP}  [default: {' '.join(_CELLS)}]", shell_complete=complete
        ),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        option(
            metavar="T,B,D,H ...",
            help="Length, batch, input and hidden size; several may follow.  [default: "
            f"{' '.join(map(str, SHAPES))}; on a GPU {' '.join(map(str, CUDA_SHAPES))}]",
        ),
    ] = None,
    modes: Annotated[
        str,
        option(
            help=f"Comma-separated, from {', '.join(MODES)}; small is all of small calls and steps, none measures "
            "memory alone."
        ),
    ] = ",".join(DEFAULT_MODES),
    repeats: Annotated[int, option(help="Timed runs per implementation, at most.")] = _DEFAULT.repeats,
    seconds: Annotated[
        float, option(help="Time limit in seconds per shape and mode; a run that has begun is finished.")
    ] = _DEFAULT.seconds,
    threads: Annotated[
        int | None, option(help="Threads of every implementation.  [default: torch's]")
    ] = None,
    dtype: Annotated[
        str,
        option(
            help=f"Of weights, inputs and states of all sides: {' or '.join(DTYPES['cpu'])}, on a GPU also "
            f"{' or '.join(each for each in DTYPES['cuda'] if each not in DTYPES['cpu'])}."
        ),
    ] = _DEFAULT.dtype,
    precision: Annotated[
        str,
        option(
            help="Of float32 products on a CPU, for all sides: highest or high (torch.set_float32_matmul_precision). "
            "With high, kernels on a processor with AMX make three products of bfloat16 for one."
        ),
    ] = _DEFAULT.precision,
    device: Annotated[
        str, option(help=f"Where all sides run: {' or '.join(DEVICES)}. On a GPU torch.nn is cuDNN.")
    ] = _DEFAULT.device,
    tune: Annotated[
        bool,
        option(
            "--tune",
            help="First try layouts of the kernels on this GPU, with the cells and shapes that are given, and keep the "
            "fastest in the cache of kernels.",
        ),
    ] = False,
    load: Annotated[
        bool, option("--load", help="Also time everything while other processes keep all cores busy.")
    ] = False,
    memory: Annotated[
        bool,
        option(
            "--memory",
            help="Also measure the peak memory of a training step, and memory growth over many calls.",
        ),
    ] = False,
    calls: Annotated[int, option(help="Calls over which --memory measures growth.")] = 10_000,
    out: Annotated[Path, option(help="Folder for bench.json and bench.png.")] = Path("runs/bench"),
    quiet: Quiet = False,
    probe: Annotated[str | None, option(hidden=True)] = None,
) -> None:
    """Time cellwise's kernels against torch.nn, and onnxruntime where it is installed.

    Cells without an operator in torch are compared with a Python loop over torch operations. An implementation whose
    results differ is not timed.
    """
    texts, shape_texts = _sorted_out(names or [], shapes or [])
    cells = _cells(texts or _CELLS)
    _set_threads(threads)
    if probe is not None:
        import torch

        from cellwise.bench.memory import run_probe

        click.echo(run_probe(next(iter(cells.values())), probe.split("|"), getattr(torch, dtype)))
        return
    if calls < 1:
        raise BenchError(f"--calls must be at least 1; got {calls}.")
    asked = tuple(dict.fromkeys(map(Shape.parse, shape_texts))) or None
    settings = Settings(cells, asked, parse_modes(modes), repeats, seconds, load, dtype, device, precision)
    if tune and device == "cpu":
        raise BenchError("--tune chooses how kernels lie on a GPU; it goes with --device cuda.")
    if memory and device != "cpu":
        raise BenchError(
            "--memory reads the memory of this machine's processes; it goes with --device cpu alone."
        )
    from cellwise.bench import devices

    devices.check(device)
    if tune:
        _tune(settings)
    if not settings.modes and not memory:
        raise BenchError("--modes none leaves nothing to measure; add --memory.")
    _check_folder(out)
    wanted = dict(zip(cells, texts or _CELLS, strict=True)) if memory else {}
    _leave(_measured(settings, wanted, calls, out))


def _sorted_out(names: Sequence[str], shapes: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words that begin with a number are shapes: `--shapes A B` gives B as a word of its own."""
    more = [word for word in names if re.match(r"[-+]?[0-9]", word)]
    return tuple(word for word in dict.fromkeys(names) if word not in more), (*shapes, *more)


def _cells(texts: Sequence[str]) -> dict[str, Cell]:
    found: dict[str, Cell] = {}
    for text in texts:
        cell = cell_of(text)
        name = text.rpartition(":")[2] or cell.name
        if name in found:
            raise BenchError(f"Two cells are named {name}; give each its own name.")
        found[name] = cell
    return found


def _set_threads(threads: int | None) -> None:
    if threads is None:
        return
    import torch

    most = max(
        os.cpu_count() or 1, torch.get_num_threads()
    )  # beyond the cores only what the environment asks for
    if not 1 <= threads <= most:
        raise BenchError(f"--threads must be a whole number from 1 to {most}, the cores here; got {threads}.")
    torch.set_num_threads(threads)


def _check_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(
            f"The folder --out {out} cannot be created ({error.strerror}); choose another."
        ) from error


def _tune(settings: Settings) -> None:
    from cellwise.bench.tuning import tune

    for name, shape, _ in replace(settings, modes=("train",)).jobs():
        say(f"{name} {shape}: measuring layouts of its kernels")
        try:
            for found in tune(settings.cells[name], shape, settings.dtype):
                click.echo(f"{name} {shape} {found}")
        except KeyboardInterrupt:
            click.echo("Interrupted; the layouts that were printed are kept.", err=True)
            raise click.exceptions.Exit(130) from None


def _measured(settings: Settings, probed: dict[str, str], calls: int, out: Path) -> BenchResults:
    """Measure, print and save; Ctrl-C ends the measuring only."""
    from cellwise.bench import machine, peak, report
    from cellwise.bench.measure import count, rows
    from cellwise.bench.results import BenchResults

    where = machine.describe(settings.device)
    click.echo(machine.one_line(where))
    busy = report.busy_line(where["load_at_start"])
    if busy:
        click.echo(busy)
    if settings.precision == "high" and (line := _precision_line()):
        click.echo(line)
    top = peak.measure() if settings.device == "cpu" else peak.measure_cuda(settings.dtype)
    click.echo(report.peak_line(top, settings.dtype))
    found: list[Row] = []
    probes: list[Probe] = []
    interrupted = False
    try:
        if settings.modes:
            click.echo(f"\n{report.HEADER}")
        with _progress(count(settings)) as advance:
            for row in rows(settings):
                found.append(row)
                click.echo("\n".join(report.row_lines(row, top)))
                advance(f"{row.cell} {row.shape}")
        _probe(settings, probed, calls, probes)
    except KeyboardInterrupt:
        interrupted = True
        click.echo(f"Interrupted; measured so far: {len(found)} of {count(settings)}.", err=True)
    results = BenchResults(where, top, settings, tuple(found), tuple(probes), interrupted)
    click.echo("\n" + "\n".join([*report.summary(found), *report.memory_lines(probes)]))
    _save(results, out)
    return results


def _precision_line() -> str:
    """What --precision high does not change here; empty where it does."""
    from cellwise.backends.cpu.amx_support import support

    found = support()
    why = found.why_not or "this processor has no AMX"
    return (
        "" if found.form else f"--precision high changes no kernel of ours: {why}, so they stay true float32."
    )


def _probe(settings: Settings, probed: dict[str, str], calls: int, found: list[Probe]) -> None:
    """Memory, in processes of this very command; what comes is put into `found`, to be there on Ctrl-C."""
    if not probed:
        return
    import torch

    from cellwise.bench.memory import probes

    shapes = settings.shapes or SHAPES
    for name, text in probed.items():

        def command(words: Sequence[str], text: str = text) -> list[str]:
            threads = str(torch.get_num_threads())
            start = [sys.executable, "-m", "cellwise", "bench", text, "--threads", threads]
            start += ["--dtype", settings.dtype]
            return [*start, "--probe", "|".join(words)]

        for each in probes(name, settings.cells[name], shapes, calls, command):
            found.append(each)
            say(f"memory: {each.cell} {each.shape} {each.side} {each.kind}")


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A bar on a terminal; elsewhere the rows themselves show how far it is."""
    if not sys.stderr.isatty() or not total or is_quiet():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Redrawing the bar in a thread would take time from what is measured.
    bar = Progress(
        *columns, console=Console(stderr=True), auto_refresh=False, redirect_stdout=sys.stdout.isatty()
    )
    with bar:
        task = bar.add_task("checking and timing", total=total)

        def advance(text: str) -> None:
            bar.update(task, advance=1, description=f"after {text}", refresh=True)

        yield advance


def _save(results: BenchResults, out: Path) -> None:
    from cellwise.bench import plot
    from cellwise.tasks.training.run_folder import write_atomically

    write_atomically(out / "bench.json", results.to_json().encode("utf8"))
    click.echo(f"results: {out / 'bench.json'}")
    if not results.rows:
        return
    try:
        drawn = plot.png(results)
    except ModuleNotFoundError as error:
        click.echo(f"no plot: {error.name} is not installed: pip install {error.name}")
        return
    write_atomically(out / "bench.png", drawn)
    click.echo(f"plot: {out / 'bench.png'}")


def _leave(results: BenchResults) -> None:
    """Exit status 130 after Ctrl-C, 1 if a result was wrong."""
    if results.interrupted:
        raise click.exceptions.Exit(130)
    if results.refused:
        raise click.exceptions.Exit(1)
