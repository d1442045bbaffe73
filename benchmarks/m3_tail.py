"""What the forecaster's defaults were chosen on: the last 18 months of M3's monthly *training* parts.

The test part of M3 is cut off before anything else happens. Run it before and after a change to the network:

    python benchmarks/m3_tail.py [--seeds 3] [--set epochs=10 --set hidden_size=64]
"""

from __future__ import annotations

import argparse
import json

from cellwise.tasks.forecasting import m3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="setting of Forecaster"
    )
    arguments = parser.parse_args()
    pairs = (text.partition("=") for text in arguments.set)
    options = {name: json.loads(value) for name, _, value in pairs}
    series = m3.read_monthly(m3.fetch(m3.cache_folder()))
    frame = m3.table({name: y[: -m3.HORIZON] for name, y in series.items()})
    rows = []
    for seed in range(arguments.seeds):
        row, naive = m3.run(frame, seed, **options)
        rows.append(row)
    for row in (naive, *rows, m3.mean_row(rows)):
        seconds = "" if row.seconds is None else f"{row.seconds:.0f} s"
        bands = f"coverage {row.coverage_80:.1f} {row.coverage_90:.1f}"
        print(f"{row.method:40} sMAPE {row.smape:.2f}  MASE {row.mase:.3f}  {bands}  {seconds}")


if __name__ == "__main__":
    main()
