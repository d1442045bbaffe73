"""What a benchmark found, as text: a line a comparison, losses like wins, and what it comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from cellwise.bench.clock import Times
from cellwise.bench.implementations import AGAIN, HALF, LOOP, OURS, PADDED
from cellwise.bench.measure import Row
from cellwise.bench.memory import Probe
from cellwise.bench.peak import Peak
from cellwise.bench.speedup import spread, verdict

HEADER = (
    f"{'cell':<17}{'T,B,D,H':<16}{'mode':<15}{'cellwise':>10}  {'beside':<12}{'':>9}  "
    f"{'ratio':>7}  {'quartiles':<16}{'':<8}{'of the peak':>11}"
)
_LEGEND = {
    "ratio": "the other side's time over ours, median over pairs of neighbouring runs; above 1 cellwise is faster",
    LOOP: "torch has no operator for these equations: the same cell step by step in plain torch, backend='reference'",
    HALF: "torch.nn in float16, with the same weights and input rounded to it; its results are not compared",
    AGAIN: "our own kernels with `layer.recompute`: no tape, each step computed again in the backward pass",
    PADDED: "our own kernels on the same batch, every row computed to the end",
}


def peak_line(peak: Peak, dtype: str = "float32") -> str:
    """The machine's peak, which is that of float32 whatever is measured."""
    middle = peak.spread
    if not peak.threads:
        return (
            f"Peak of {peak.of}: {peak.best / 1e3:.0f} TFLOP/s at best; median {middle.median / 1e3:.0f}, "
            f"quartiles {middle.low / 1e3:.0f} to {middle.high / 1e3:.0f}"
        )
    measured = "" if dtype == "float32" else f" in float32, while all sides compute in {dtype}"
    return (
        f"Peak of fused multiply-add{measured} (threads: {peak.threads}): {peak.best:.0f} GFLOP/s at best; "
        f"median {middle.median:.0f}, quartiles {middle.low:.0f} to {middle.high:.0f}"
    )


def busy_line(load: float | None) -> str | None:
    """A warning, if other work ran when this began."""
    if load is None or load < 0.5:
        return None
    return f"Others are at work on this machine (load {load:.1f}): all figures, the peak too, suffer from it."


def row_lines(row: Row, peak: Peak) -> list[str]:
    """One line per side that ours was compared with, or one that says why nothing was timed."""
    start = f"{row.cell:<17}{row.shape!s:<16}{row.mode:<15}"
    if row.mismatch is not None:
        return [f"{start}not timed, the results differ: {row.mismatch}"]
    lines = []
    for number, other in enumerate(row.times[1:]):
        lines.append(_comparison(start if number == 0 else " " * len(start), row, other, peak, number == 0))
    if row.loaded:
        slow = ", ".join(f"{name} {times:.1f}" for name, times in row.slowdowns().items())
        lines.append(f"{'':<33}time while all cores are busy over time before: {slow}")
    return lines


def _comparison(start: str, row: Row, other: Times, peak: Peak, first: bool) -> str:
    ratio = row.speedup(other)
    own = seconds(row.median) if first else ""
    share = f"{row.gflops / peak.best:.1%}" if first and row.flops else ""
    quartiles = f"{factor(ratio.low)} to {factor(ratio.high)}"
    return (
        f"{start}{own:>10}  {other.name:<12}{seconds(spread(other.seconds).median):>9}  "
        f"{factor(ratio.median):>7}  {quartiles:<16}{verdict(ratio):<8}{share:>11}"
    ).rstrip()


def factor(value: float) -> str:
    """A ratio with three places that count.

    >>> factor(0.123), factor(1.234), factor(34.56), factor(185.22)
    ('0.12', '1.23', '34.6', '185')
    """
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def seconds(value: float) -> str:
    """A time with its unit.

    >>> seconds(0.0000021), seconds(0.0123), seconds(2.5)
    ('2.1 us', '12.3 ms', '2.50 s')
    """
    if value < 1e-3:
        return f"{value * 1e6:.1f} us"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def summary(rows: Sequence[Row]) -> list[str]:
    """How often ours was faster and slower beside each side, compile times, what was refused, what words mean."""
    lines = []
    timed = [row for row in rows if row.mismatch is None]
    counts: dict[str, Counter[str]] = {}
    for row in timed:
        for other in row.times[1:]:
            counts.setdefault(other.name, Counter())[verdict(row.speedup(other))] += 1
    for name, count in counts.items():
        lines.append(
            f"Beside {name}: {count['faster']} faster, {count['equal']} equal, {count['slower']} slower."
        )
    lines += _under_load(timed)
    compiled = {row.cell: 0.0 for row in timed}
    for row in timed:
        compiled[row.cell] += row.compile_seconds
    if compiled:
        each = ", ".join(f"{cell} {value:.2f} s" for cell, value in compiled.items())
        lines.append(f"Compiling all kernels that were needed, not counted above: {each}.")
    refused = {(row.cell, row.shape): row.mismatch for row in rows if row.mismatch is not None}
    lines += [f"Not timed: {cell} {shape}, {problem}." for (cell, shape), problem in refused.items()]
    words = {"ratio"} & ({"ratio"} if timed else set()) | set(counts)
    return lines + [f"  {word}: {meaning}." for word, meaning in _LEGEND.items() if word in words]


def _under_load(rows: Sequence[Row]) -> list[str]:
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, slower in row.slowdowns().items():
            found.setdefault(name, []).append(slower)
    each = [f"{name} {spread(v).median:.1f} (worst {max(v):.1f})" for name, v in found.items()]
    return [f"While all cores are busy, times longer, median over rows: {', '.join(each)}."] if each else []


def memory_lines(probes: Iterable[Probe]) -> list[str]:
    """Two tables: the peak of a training step, ours beside theirs, and growth over many calls."""
    found = list(probes)
    peaks = [probe for probe in found if probe.kind == "peak"]
    lines = []
    if peaks:
        lines.append(
            f"Peak memory of the first training step, beyond what was held before ({peaks[0].method}, fresh processes)"
        )
    for (cell, shape), group in groupby(peaks, lambda probe: (probe.cell, probe.shape)):
        sides = {probe.side: probe.bytes for probe in group}
        own = {name: sides.pop(name) for name in (OURS, AGAIN) if name in sides}
        line = f"  {cell:<17}{shape!s:<16}" + "  ".join(f"{name} {_mib(each)}" for name, each in own.items())
        for name, other in sides.items():
            shares = ", ".join(f"{mine} {each / max(other, 1):.2f}" for mine, each in own.items())
            line += f"  {name} {_mib(other)}, of which {shares}"
        lines.append(line)
    growth = [probe for probe in found if probe.kind == "growth"]
    if growth:
        lines.append("Growth of resident memory over small forward and training calls")
    lines += [
        f"  {probe.cell:<17}{probe.calls:,} calls  {probe.side:<12}{probe.bytes / 1024:,.0f} KiB"
        for probe in growth
    ]
    return lines


def _mib(count: int) -> str:
    return f"{count / 2**20:8.1f} MiB"
