"""Damage to the files of a run: bits that turn, files cut short, settings of every wrong kind."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cellwise.tasks.training.digests import json_digest

WRONG = (
    None,
    True,
    -1,
    0,
    10**9,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    [],
    [1],
    {},
    {"a": 1},
    [[]],
)


def flip_bit(path: Path, bit: int) -> None:
    """Turn one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def some_bits(path: Path, count: int, seed: int = 0) -> list[int]:
    """So many bits of a file, the first and the last bytes among them."""
    bits = 8 * path.stat().st_size
    chosen = random.Random(seed).sample(range(bits), min(count, bits))
    return sorted({*chosen, *range(8), *range(60, 70), bits - 1} & set(range(bits)))


def rewrite_json(path: Path, change: dict[tuple[str, ...], Any], drop: tuple[str, ...] | None = None) -> None:
    """Change values of a JSON file, and its checksum with them: what somebody who means it would do."""
    content = json.loads(path.read_text())
    for keys, value in change.items():
        place = content
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
    if drop:
        place = content
        for key in drop[:-1]:
            place = place[key]
        del place[drop[-1]]
    content.pop("sha256", None)
    content["sha256"] = json_digest(json.loads(json.dumps(content)))
    path.write_text(json.dumps(content))


def forge_checksums(run: Path) -> None:
    """Make summary.json vouch for the files as they are now."""
    from cellwise.tasks.training.digests import file_digest

    files = json.loads((run / "summary.json").read_text())["files"]
    now = {name: file_digest(run / name) for name in files if (run / name).is_file()}
    rewrite_json(run / "summary.json", {("files",): now})


def places_of(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place of a JSON object, groups included."""
    for key, each in value.items():
        yield (*at, key)
        if isinstance(each, dict):
            yield from places_of(each, (*at, key))
