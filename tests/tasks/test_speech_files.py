"""Recordings and transcripts as published corpora lay them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellwise.tasks.errors import DataError
from cellwise.tasks.speech.manifest import Listed, as_listed, read_listed


def lay(folder: Path, files: dict[str, str]) -> Path:
    """Files with these contents; a recording's are not read here."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf8")
    return folder


def told(found: Listed) -> dict[str, str]:
    assert found.texts is not None and all(Path(item).is_file() for item in found.items)
    return {Path(item).name: text for item, text in zip(found.items, found.texts, strict=True)}


LIBRI = {
    "84/1/84-1-0000.flac": "",
    "84/1/84-1-0001.flac": "",
    "84/1/84-1.trans.txt": "84-1-0001 HE SAID | YES\n84-1-0000 GO\n",
}
LJ = {"wavs/LJ1.wav": "", "wavs/LJ2.wav": "", "metadata.csv": 'LJ1|In "1900|In "nineteen hundred\nLJ2|Go|\n'}
KALDI = {"a.wav": "", "b.wav": "", "text": "u1\tgo on\nu2 stay\n", "wav.scp": "u2 b.wav\nu1 a.wav\n"}


def test_libri_speech(tmp_path: Path) -> None:
    found = read_listed(lay(tmp_path, LIBRI))
    assert told(found) == {"84-1-0000.flac": "GO", "84-1-0001.flac": "HE SAID | YES"}
    lay(tmp_path, {"84/1/84-1-0002.flac": ""})
    with pytest.raises(DataError, match=r"84-1-0002.flac has no transcript in .*84-1.trans.txt"):
        read_listed(tmp_path)
    lay(tmp_path, {"85/85.trans.txt": "84-1-0001 AGAIN\n"})
    with pytest.raises(DataError, match="two lines for '84-1-0001'"):
        read_listed(tmp_path)


def test_lj_speech_by_its_folder_or_its_table(tmp_path: Path) -> None:
    lay(tmp_path, LJ)
    for source in (tmp_path, tmp_path / "metadata.csv"):
        assert told(read_listed(source)) == {"LJ1.wav": 'In "nineteen hundred', "LJ2.wav": "Go"}


def test_a_table_with_a_header_and_bars_is_one(tmp_path: Path) -> None:
    lay(tmp_path, {"a.wav": "", "b.wav": "", "metadata.csv": "path|text\na.wav|go\n"})
    assert told(read_listed(tmp_path / "metadata.csv")) == {"a.wav": "go"}


def test_kaldi(tmp_path: Path) -> None:
    found = read_listed(lay(tmp_path, KALDI))
    assert (told(found), found.names) == ({"a.wav": "go on", "b.wav": "stay"}, ("u1", "u2"))
    lay(tmp_path, {"wav.scp": "u1 sph2pipe a.sph |\nu2 b.wav\n"})
    with pytest.raises(DataError, match="has a command for 'u1'"):
        read_listed(tmp_path)
    lay(tmp_path, {"wav.scp": "u2 b.wav\n"})
    with pytest.raises(DataError, match="has no recording for 'u1'"):
        read_listed(tmp_path)


def test_common_voice_names_its_recordings_without_their_folder(tmp_path: Path) -> None:
    lay(tmp_path, {"clips/a.mp3": "", "train.tsv": "client_id\tpath\tsentence\nx\ta.mp3\tGo.\n"})
    assert told(read_listed(tmp_path / "train.tsv")) == {"a.mp3": "Go."}


def test_a_folder_without_transcripts_says_where_they_go(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"write each into a \.txt file beside its recording"):
        as_listed(lay(tmp_path, {"a.wav": ""}))
