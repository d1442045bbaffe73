"""Orders, ratios and figures on made-up times. No time of this machine is asserted."""

import json

import pytest

import cellwise
from cellwise.bench import clock, plot, report
from cellwise.bench.clock import Times, interleaved
from cellwise.bench.comparisons import Candidate
from cellwise.bench.measure import Row
from cellwise.bench.memory import Probe
from cellwise.bench.peak import Peak
from cellwise.bench.results import BenchResults
from cellwise.bench.settings import DEFAULT_MODES, SHAPES, STEP_SHAPES, BenchError, Settings, Shape
from cellwise.bench.speedup import Spread, speedups, spread, verdict

SHAPE = Shape(100, 16, 64, 128)
PEAK = Peak(2, 32, (90.0, 100.0, 80.0))


class MadeUpClock:
    """Work that takes as long as it says, and a clock that knows; pauses take no time."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.ran = []
        monkeypatch.setattr(clock.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(clock.time, "sleep", lambda seconds: None)

    def candidate(self, name, seconds):
        def work():
            self.ran.append(name)
            self.now += seconds

        return Candidate(name, work, None)


def test_both_sides_alternate_and_the_first_changes(monkeypatch):
    made_up = MadeUpClock(monkeypatch)
    sides = [made_up.candidate("A", 1.0), made_up.candidate("B", 3.0)]
    times = interleaved(sides, False, repeats=4, seconds=1000.0, calls=(1, 1))
    assert "".join(made_up.ran) == "ABBAABBA"
    assert [each.seconds for each in times] == [(1.0,) * 4, (3.0,) * 4]


def test_ours_is_the_neighbour_of_every_other(monkeypatch):
    made_up = MadeUpClock(monkeypatch)
    interleaved([made_up.candidate(name, 1.0) for name in "ABC"], False, 2, 1000.0, (1, 1, 1))
    assert "".join(made_up.ran) == "CABBAC"


def test_three_rounds_are_made_however_little_time_there_is(monkeypatch):
    made_up = MadeUpClock(monkeypatch)
    sides = [made_up.candidate("A", 5.0), made_up.candidate("B", 5.0)]
    assert len(interleaved(sides, False, 100, seconds=1e-9, calls=(1, 1))[0].seconds) == 3


def test_the_budget_ends_a_measurement(monkeypatch):
    made_up = MadeUpClock(monkeypatch)
    sides = [made_up.candidate("A", 1.0), made_up.candidate("B", 1.0)]
    assert len(interleaved(sides, False, 100, seconds=9.0, calls=(1, 1))[0].seconds) == 5


def test_short_work_is_called_several_times_in_a_sample(monkeypatch):
    made_up = MadeUpClock(monkeypatch)
    sides = [made_up.candidate("A", 2.0**-11), made_up.candidate("B", 1.0)]
    ours, theirs = interleaved(sides, False, 3, 1000.0)
    assert (ours.calls, theirs.calls) == (5, 1)  # 5 times 1/2048 of a second are 2 ms
    assert ours.seconds == (2.0**-11,) * 3


def test_the_garbage_collector_comes_back(monkeypatch):
    import gc

    made_up = MadeUpClock(monkeypatch)
    seen = []
    candidate = Candidate("A", lambda: seen.append(gc.isenabled()), None)
    interleaved([candidate, made_up.candidate("B", 1.0)], False, 3, 1.0, (1, 1))
    assert not any(seen)
    assert gc.isenabled()


def test_the_ratio_is_the_median_of_neighbours_not_the_ratio_of_medians():
    ours, theirs = (1.0, 10.0, 2.0), (2.0, 80.0, 8.0)
    assert speedups(ours, theirs) == (2.0, 8.0, 4.0)
    assert spread(speedups(ours, theirs)) == Spread(3.0, 4.0, 6.0)
    assert spread(theirs).median / spread(ours).median == 4.0
    assert spread(speedups((1.0, 10.0, 2.0), (2.0, 1.0, 8.0))).median == 2.0


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (Spread(1.01, 1.2, 1.3), "faster"),
        (Spread(0.7, 0.8, 0.99), "slower"),
        (Spread(0.9, 1.2, 1.3), "equal"),
        (Spread(0.7, 0.8, 1.0), "equal"),
    ],
)
def test_a_verdict_needs_the_middle_half(found, word):
    assert verdict(found) == word


def row(**given):
    times = (Times("cellwise", 1, (0.1, 0.2, 0.4)), Times("torch.nn", 1, (0.05, 0.4, 0.4)))
    loaded = (Times("cellwise", 1, (0.4, 0.4, 0.5)), Times("torch.nn", 1, (2.0, 4.0, 6.0)))
    return Row("gru", SHAPE, "train", None, 0.25, 10_000_000_000, times, loaded, **given)


REFUSED = Row("lstm", SHAPE, "forward", "forward: output is off by 1")


def test_the_figures_of_a_row():
    found = row()
    assert found.median == 0.2
    assert found.gflops == pytest.approx(50.0)
    assert found.speedup(found.times[1]) == Spread(0.75, 1.0, 1.5)
    assert found.slowdowns() == pytest.approx({"cellwise": 2.0, "torch.nn": 10.0})


def record(rows=None, **given):
    rows = (row(), REFUSED) if rows is None else rows
    settings = Settings({"gru": cellwise.cells.get("gru")}, (SHAPE,), ("forward", "train"))
    machine = {"processor": "made up", "threads": 2, "versions": {"cellwise": "0", "torch": "2"}}
    memory = (Probe("gru", "cellwise", "peak", SHAPE, 1, 2**20, "VmHWM"),)
    return BenchResults(machine, PEAK, settings, rows, memory, **given)


def test_the_json_has_every_figure():
    found = json.loads(record().to_json())
    assert found["machine"]["processor"] == "made up"
    assert found["interrupted"] is False
    assert found["peak_gflops"]["gflops"] == [90.0, 100.0, 80.0]
    assert (found["peak_gflops"]["best"], found["peak_gflops"]["median"]) == (100.0, 90.0)
    assert found["settings"]["shapes"] == {"forward": [str(SHAPE)], "train": [str(SHAPE)]}
    timed, refused = found["rows"]
    assert timed["shape"] == {"T": 100, "B": 16, "D": 64, "H": 128}
    assert (timed["status"], timed["compile_seconds"], timed["mode"]) == ("timed", 0.25, "train")
    assert timed["share_of_peak"] == pytest.approx(0.5)
    ours, theirs = timed["sides"]
    assert ours["seconds"] == [0.1, 0.2, 0.4]
    assert ours["loaded_seconds"] == [0.4, 0.4, 0.5]
    assert ours["slowdown_under_load"] == pytest.approx(2.0)
    assert theirs["seconds"] == [0.05, 0.4, 0.4]
    assert theirs["ratio_to_ours"] == {"low": 0.75, "median": 1.0, "high": 1.5, "verdict": "equal"}
    assert theirs["slowdown_under_load"] == pytest.approx(10.0)
    assert refused["status"] == "refused"
    assert refused["problem"] == REFUSED.mismatch
    assert "sides" not in refused
    assert found["memory"] == [
        {
            "cell": "gru",
            "side": "cellwise",
            "kind": "peak",
            "shape": {"T": 100, "B": 16, "D": 64, "H": 128},
            "calls": 1,
            "bytes": 2**20,
            "method": "VmHWM",
        }
    ]


def test_the_text_shows_losses_refusals_and_load():
    slow = Row(
        "rnn", SHAPE, "forward", None, 0.0, 10, (Times("cellwise", 1, (4.0,)), Times("torch.nn", 1, (1.0,)))
    )
    assert "0.25" in report.row_lines(slow, PEAK)[0]
    assert "slower" in report.row_lines(slow, PEAK)[0]
    assert "50.0%" in report.row_lines(row(), PEAK)[0]
    assert report.row_lines(row(), PEAK)[-1].endswith("cellwise 2.0, torch.nn 10.0")
    assert "not timed, the results differ" in report.row_lines(REFUSED, PEAK)[0]
    said = report.summary([slow, row(), REFUSED])
    assert "Beside torch.nn: 0 faster, 1 equal, 1 slower." in said
    assert any("cellwise 2.0 (worst 2.0), torch.nn 10.0 (worst 10.0)" in line for line in said)
    assert f"Not timed: lstm {SHAPE}, {REFUSED.mismatch}." in said


def test_memory_as_text():
    probes = [
        Probe("gru", "cellwise", "peak", SHAPE, 1, 3 * 2**20, "VmHWM"),
        Probe("gru", "recomputing", "peak", SHAPE, 1, 2**20, "VmHWM"),
        Probe("gru", "torch.nn", "peak", SHAPE, 1, 6 * 2**20, "VmHWM"),
        Probe("gru", "cellwise", "growth", Shape(5, 2, 8, 16), 10_000, 2048, "VmRSS"),
    ]
    title, peak, _, growth = report.memory_lines(probes)
    assert "VmHWM" in title
    assert "cellwise      3.0 MiB  recomputing      1.0 MiB" in peak
    assert "torch.nn      6.0 MiB, of which cellwise 0.50, recomputing 0.17" in peak
    assert "10,000 calls  cellwise    2 KiB" in growth


# --- what is asked for ------------------------------------------------------------------------------------------


def test_the_jobs_of_the_default():
    settings = Settings({"gru": cellwise.cells.get("gru")})
    jobs = settings.jobs()
    assert [shape for _, shape, _ in jobs] == [*SHAPES, *STEP_SHAPES]
    assert jobs[0][2] == tuple(mode for mode in DEFAULT_MODES if mode != "step")
    assert jobs[-1][2] == ("step",)


def test_steps_take_the_sizes_of_the_shapes_asked_for():
    settings = Settings({}, (Shape(9, 9, 3, 4), Shape(8, 8, 3, 4), Shape(9, 9, 5, 6)), ("step",))
    assert settings.shapes_of("step") == (Shape(1, 1, 3, 4), Shape(1, 1, 5, 6))


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,3,x", "-1,2,3,4", "0,1,1,1", "1.5,2,3,4", "¹,1,1,1"]
)
def test_what_is_no_shape(text):
    with pytest.raises(BenchError):
        Shape.parse(text)


@pytest.mark.parametrize(
    "given",
    [
        {"modes": ("backwards",)},
        {"repeats": 2},
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"precision": "low"},
        {"precision": "high", "dtype": "bfloat16"},
        {"precision": "high", "device": "cuda"},
    ],
)
def test_settings_that_cannot_be(given):
    with pytest.raises(BenchError):
        Settings({}, **given)


# --- the picture ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [2.0, 20.0, 49.0, 51.0, 299.0, 1100.0, 1e5])
def test_the_axis_of_ratios_has_few_labels_of_its_whole_range(limit):
    ticks = plot._ticks(limit)
    assert 3 <= len(ticks) <= 9 and ticks == sorted(ticks) and 1.0 in ticks
    assert limit / 11 < max(ticks) <= limit


@pytest.mark.parametrize("rows", [(row(), REFUSED), (row(),), (REFUSED,)], ids=["both", "timed", "refused"])
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_picture_is_drawn(rows, interrupted):
    pytest.importorskip("matplotlib")
    from cellwise.bench.plot import png

    assert png(record(rows, interrupted=interrupted)).startswith(b"\x89PNG\r\n")


def test_losses_have_as_much_room_as_wins():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from cellwise.bench import plot

    axes = Figure().add_subplot()
    groups = plot._panels([row(), REFUSED])
    plot._panel(axes, groups["gru"])
    low, high = axes.get_xlim()
    assert low * high == pytest.approx(1.0)
    refused = Figure().add_subplot()
    plot._panel(refused, groups["lstm"])
    assert any("not timed" in text.get_text() for text in refused.texts)
