"""Texts with their classes that are no table: a folder of text files for each class, or a text a line with its class
before it."""

from __future__ import annotations

from pathlib import Path

from cellwise.tasks.data.encoding import read_bytes, to_utf8
from cellwise.tasks.errors import DataError

__all__ = ["PREFIX", "read_class_folders", "read_prefixed"]

PREFIX = "__label__"  # as fastText has it
ENDING = ".txt"


def read_class_folders(folder: Path, encoding: str | None = None) -> tuple[list[str], list[str], list[str]]:
    """Texts, their classes and their names, of `folder/CLASS/NAME.txt`; where no file ends in .txt, of all files.

    Hidden files are left out. DataError: there are none, or one is no text."""
    classes = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    files = [
        file
        for each in classes
        for file in sorted(each.iterdir())
        if file.is_file() and not file.name.startswith(".")
    ]
    if any(file.name.lower().endswith(ENDING) for file in files):
        files = [file for file in files if file.name.lower().endswith(ENDING)]
    if not files:
        raise DataError(
            f"{folder} is a folder without texts; it needs a folder for each class, with a text file for each text, "
            "or name a file"
        )
    texts = [to_utf8(read_bytes(file), file, encoding).decode("utf8") for file in files]
    return texts, [file.parent.name for file in files], [str(file.relative_to(folder)) for file in files]


def read_prefixed(path: Path, encoding: str | None = None) -> tuple[list[str], list[str]] | None:
    """Texts and classes of lines such as `__label__ham see you there`; None for a file that does not begin so.

    DataError names a line without a class, or with several."""
    with path.open("rb") as file:
        if not file.read(64).lstrip().startswith(PREFIX.encode()):
            return None
    texts, labels = [], []
    for number, line in enumerate(to_utf8(read_bytes(path), path, encoding).decode("utf8").split("\n"), 1):
        if not line.strip():
            continue
        label, _, text = line.strip().partition(" ")
        if not label.startswith(PREFIX) or label == PREFIX or text.startswith(PREFIX):
            raise DataError(
                f"{path}: line {number} is to begin with one class, such as {PREFIX}ham, and then a text"
            )
        texts.append(text.strip())
        labels.append(label.removeprefix(PREFIX))
    return texts, labels
