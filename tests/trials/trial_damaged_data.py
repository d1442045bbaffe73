"""Damaged data files: `python tests/trials/trial_damaged_data.py --count 10000`.

Files of every kind that is read, each damaged in one place: bits and bytes changed, parts deleted, doubled, exchanged,
inserted, zeroed, cut off. Wanted: the right table, or one sentence. Printed: how each kind ended, and every damage that
ended in anything else, took too long, or changed the table of a packed file, whose checksum should have told.

A digit that became another one cannot be told in a format without checksums: those tables count as changed.
"""

from __future__ import annotations

import argparse
import gzip
import io
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars

from cellwise.errors import CellwiseError
from cellwise.tasks.forecasting.frames import Columns, Table, read_table

DAYS = [date(2024, 1, 1) + timedelta(i) for i in range(60)]
COLUMNS = Columns(known=("promo",))
LONGEST_SENTENCE, LONGEST_SECONDS = 500, 5.0
WAYS = ("bit", "bit", "byte", "delete", "insert", "cut off", "zero", "double", "exchange")


@dataclass
class Tally:
    ended: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def files() -> dict[str, bytes]:
    """The same table in every form."""
    values = (10 + np.random.default_rng(0).normal(size=120)).round(3)
    names = ["Köln"] * 60 + ["b"] * 60
    frame = polars.DataFrame({"unique_id": names, "ds": DAYS * 2, "y": values, "promo": [0, 1] * 60})
    text = frame.with_columns(
        polars.col("ds").dt.strftime("%d.%m.%Y"),
        polars.col("y").cast(polars.String).str.replace(".", ",", literal=True),
    )
    made = {
        "plain.csv": frame.write_csv().encode(),
        "plain.tsv": frame.write_csv(separator="\t").encode(),
        "quoted.csv": frame.write_csv(quote_style="always").encode(),
        "comma.csv": text.write_csv(separator=";").encode(),
        "sep.csv": b"sep=;\r\n" + frame.write_csv(separator=";", line_terminator="\r\n").encode(),
        "utf16.txt": frame.write_csv(separator="\t").encode("utf-16"),
        "packed.csv.gz": gzip.compress(frame.write_csv().encode(), mtime=0),
    }
    for compression in ("zstd", "snappy", "gzip", "lz4", "uncompressed"):
        file = io.BytesIO()
        frame.write_parquet(file, compression=compression, row_group_size=50)
        made[f"{compression}.parquet"] = file.getvalue()
    return made


def damage(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    """One change somewhere, and what it is called."""
    way, at = chance.choice(WAYS), chance.randrange(len(content))
    made = bytearray(content)
    if way == "bit":
        made[at] ^= 1 << chance.randrange(8)
    elif way == "byte":
        made[at] = chance.randrange(256)
    elif way == "delete":
        del made[at : at + chance.randrange(1, 20)]
    elif way == "insert":
        made[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
    elif way == "cut off":
        del made[at:]
    elif way == "zero":
        made[at : at + 16] = bytes(len(made[at : at + 16]))
    elif way == "double":
        made[at:at] = made[at : at + chance.randrange(1, 60)]
    else:
        other = chance.randrange(len(made))
        made[at : at + 8], made[other : other + 8] = made[other : other + 8], made[at : at + 8]
    return way, bytes(made)


def content_of(table: Table) -> tuple[object, ...]:
    panel = table.panel
    arrays = [array.tobytes() for part in (panel.times, panel.y, panel.known) for array in part]
    return panel.ids, panel.frequency.name, *arrays


def ending(path: Path, right: tuple[object, ...], notes: int) -> tuple[str, str]:
    """How reading a file ends, and what is wrong with that, if anything is."""
    start = time.perf_counter()
    try:
        table = read_table(path, COLUMNS)
    except CellwiseError as error:
        sentence = str(error)
        clear = "\n" not in sentence and len(sentence) <= LONGEST_SENTENCE
        return "refused", "" if clear else f"no clear sentence: {sentence!r}"
    except BaseException as error:  # noqa: BLE001 (a panic of polars is no Exception)
        return "failed", repr(error)[:300]
    if time.perf_counter() - start > LONGEST_SECONDS:
        return "slow", f"{time.perf_counter() - start:.0f} s"
    if content_of(table) == right:
        return "right", ""
    return "changed, and said" if len(table.notes) > notes else "changed", ""


def trial(seeds: Iterable[int], end: str = "") -> Tally:
    """Damage one file for each seed, of those whose names end so."""
    made, tally = {name: content for name, content in files().items() if name.endswith(end)}, Tally()
    with tempfile.TemporaryDirectory() as folder:
        whole = {}
        for name, content in made.items():
            (Path(folder) / name).write_bytes(content)
            table = read_table(Path(folder) / name, COLUMNS)
            whole[name] = content_of(table), len(table.notes)
        for seed in seeds:
            chance = random.Random(seed)
            name = chance.choice(sorted(made))
            way, content = damage(made[name], chance)
            (Path(folder) / name).write_bytes(content)
            ended, wrong = ending(Path(folder) / name, *whole[name])
            if name.endswith(".gz") and ended.startswith("changed"):
                wrong = "its checksum is wrong"
            tally.ended[name, ended] += 1
            if wrong:
                tally.wrong.append(f"seed {seed}, {name}, {way}: {ended}: {wrong}")
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--end", default="", help="of the names of the files, such as .parquet")
    options = parser.parse_args()
    tally = trial(range(options.seed, options.seed + options.count), options.end)
    endings = sorted({ended for _, ended in tally.ended})
    print("file", *endings, sep=", ")
    for name in sorted({name for name, _ in tally.ended}):
        print(name, *(tally.ended[name, ended] for ended in endings), sep=", ")
    print("all", *(sum(n for (_, e), n in tally.ended.items() if e == ended) for ended in endings), sep=", ")
    print(*tally.wrong, sep="\n")
    raise SystemExit(1 if tally.wrong else 0)


if __name__ == "__main__":
    main()
