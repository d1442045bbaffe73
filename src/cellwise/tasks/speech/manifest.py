"""What people have: a table of recordings with their transcripts, or a folder of both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cellwise.tasks.data.files import read_file
from cellwise.tasks.data.origin import shown_names
from cellwise.tasks.data.standard_input import STDIN, file_of
from cellwise.tasks.errors import DataError
from cellwise.tasks.options import short_repr
from cellwise.tasks.speech.audio import ENDINGS
from cellwise.tasks.speech.corpora import is_lj, kaldi, transcripts_in

__all__ = ["Listed", "as_listed", "read_listed"]

PATHS, TEXTS = (
    ("path", "file", "wav", "audio", "filename"),
    ("text", "transcript", "sentence", "transcription"),
)
CLIPS = "clips"  # beside the tables of Common Voice, where the recordings are that they name


@dataclass(frozen=True, eq=False)
class Listed:
    """Recordings that are not read yet: files, or pairs (samples, rate); their names, and what is said in each.

    texts: as written, or None where nothing is known. origin: the file or folder that lists them."""

    items: tuple[Any, ...]
    names: tuple[str, ...]
    texts: tuple[str, ...] | None
    origin: str

    def __len__(self) -> int:
        return len(self.items)

    def select(self, rows: Iterable[int]) -> Listed:
        """Only these."""
        rows = list(rows)
        texts = None if self.texts is None else tuple(self.texts[i] for i in rows)
        items, names = (tuple(each[i] for i in rows) for each in (self.items, self.names))
        return replace(self, items=items, names=names, texts=texts)


def as_listed(data: Any, target: Any = None, what: str = "training") -> Listed:
    """Recordings with transcripts. data: a table, a folder, or a list of recordings whose transcripts are `target`.

    Raises DataError."""
    if isinstance(data, Listed):
        made = data
    elif isinstance(data, str | Path):
        made = read_listed(data)
    elif target is None:
        raise DataError(f"the recordings for {what} need transcripts: a list of texts, one for each")
    else:
        made = replace(listed(data), texts=_texts(target))
    if made.texts is None:
        raise DataError(
            f"{made.origin} has no transcripts for {what}; write each into a .txt file beside its recording, or name a "
            "table with the columns path and text"
        )
    if len(made.texts) != len(made):
        raise DataError(
            f"there are {len(made):,} recordings and {len(made.texts):,} transcripts; each needs one"
        )
    return made


def listed(data: Any) -> Listed:
    """A list of recordings, without transcripts: files, or pairs (samples, rate)."""
    if isinstance(data, Listed):
        return data
    if isinstance(data, str | Path):
        return read_listed(data)
    if not isinstance(data, Iterable):
        raise DataError(
            f"recordings must be a list of files or of pairs (samples, rate), not {short_repr(data)}"
        )
    items = tuple(data)
    names = tuple(
        str(item) if isinstance(item, str | Path) else f"recording {number}"
        for number, item in enumerate(items, 1)
    )
    return Listed(items, names, None, "the list")


def read_listed(source: str | Path) -> Listed:
    """A table, a folder, or a single recording; a table from standard input for "-", whose paths are relative to the
    current folder. Raises DataError."""
    if source == STDIN:
        with file_of(STDIN) as path:
            return _table(path, Path(), "standard input")
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() in ENDINGS:
        return Listed((path,), (str(path),), None, str(path))
    if is_lj(path):
        return _folder(path.parent)
    return _table(path, path.parent, str(path))


def _table(path: Path, base: Path, name: str) -> Listed:
    """The table in a file; paths are relative to `base`, and messages call it `name`."""
    frame, origin = read_file(path)
    names = {column.strip().lower(): column for column in frame.columns}
    found = next((names[name] for name in PATHS if name in names), None)
    if found is None:
        raise DataError(
            f"{name} needs a column `path` with the recordings, beside `text`; it has {shown_names(frame.columns)}"
        )
    said = next((names[name] for name in TEXTS if name in names), None)
    paths = frame[found].to_list()
    for row, each in enumerate(paths):
        if not isinstance(each, str) or not each.strip():
            raise DataError(f"{name} names no recording in column {found!r} at {origin.where(row)}")
    texts = None
    if said is not None:
        texts = tuple("" if each is None else str(each) for each in frame[said].to_list())
    base = base / CLIPS if not (base / paths[0]).exists() and (base / CLIPS / paths[0]).exists() else base
    items = tuple(base / each.strip() for each in paths)
    return Listed(items, tuple(each.strip() for each in paths), texts, name)


def _folder(path: Path) -> Listed:
    origin = f"the folder {path}"
    listed_by_kaldi = kaldi(path)
    if listed_by_kaldi is not None:
        items, ids, said = listed_by_kaldi
        return Listed(tuple(items), tuple(ids), tuple(said), origin)
    files = sorted(each for each in path.rglob("*") if each.suffix.lower() in ENDINGS and each.is_file())
    if not files:
        raise DataError(f"the folder {path} holds no recordings ({', '.join(ENDINGS[:3])})")
    beside = [each.with_suffix(".txt") for each in files]
    names = tuple(str(each.relative_to(path)) for each in files)
    if not any(each.is_file() for each in beside):
        together = transcripts_in(path, files)
        return Listed(tuple(files), names, None if together is None else tuple(together), origin)
    for file, text in zip(files, beside, strict=True):
        if not text.is_file():
            raise DataError(
                f"{file} has no transcript beside it; write what is said into {text.name}, or move the file away"
            )
    return Listed(tuple(files), names, tuple(_said(each) for each in beside), origin)


def _said(path: Path) -> str:
    from cellwise.tasks.data.text_file import read_text

    return read_text(path)


def _texts(target: Any) -> tuple[str, ...]:
    values = target.tolist() if hasattr(target, "tolist") else target
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise DataError(f"transcripts are a list of texts, one for each recording, not {short_repr(target)}")
    values = tuple(values)
    for number, value in enumerate(values, 1):
        if not isinstance(value, str):
            raise DataError(f"transcript {number} is {short_repr(value)}, not a text")
    return values
