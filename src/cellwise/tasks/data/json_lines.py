"""JSON Lines: an object a line, its keys the columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cellwise.errors import a_or_an
from cellwise.tasks.data.encoding import read_bytes, to_utf8
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import shown, shown_names
from cellwise.tasks.errors import DataError

__all__ = ["JSON_SUFFIXES", "read_json_lines"]

JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


def read_json_lines(path: Path, encoding: str | None = None) -> Any:
    """A polars frame of text columns, null where a line lacks a key. DataError names the line that is no object."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    text = to_utf8(read_bytes(path), path, encoding).decode("utf8")
    rows: list[dict[str, str | None]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            rows.append(_row(line, f"{path}: line {number}"))
    if not rows:
        raise DataError(f"the file {path} has no lines")
    names = dict.fromkeys(name for row in rows for name in row)
    polars = require("polars")
    return polars.DataFrame(
        {name: [row.get(name) for row in rows] for name in names}, dict.fromkeys(names, polars.String)
    )


def _row(line: str, where: str) -> dict[str, str | None]:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {shown(line)}; write one object a line") from error
    if not isinstance(value, dict):
        raise DataError(f'{where} is no JSON object such as {{"text": "...", "label": "..."}}: {shown(line)}')
    return {name: _text(each, name, where) for name, each in value.items()}


def _text(value: Any, name: str, where: str) -> str | None:
    if isinstance(value, list | dict):
        raise DataError(
            f"{where}: {shown_names([name])} holds {a_or_an(type(value).__name__)}; write a text or a number"
        )
    return value if value is None or isinstance(value, str) else json.dumps(value)
