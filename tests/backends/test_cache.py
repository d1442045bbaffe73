"""The cache of kernels holds machine code: nothing is read from it that somebody else could have written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from cellwise.backends.compiled import cache, private
from cellwise.errors import CacheWarning
from cellwise.folders import kernel_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files have no owners and modes there")
SOMEBODY = 65534
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can make files of other users"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache that holds the code b"first", and has told nothing yet."""
    monkeypatch.setenv("CELLWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "_REPORTED", set())
    assert code(b"first") == b"first"
    yield tmp_path / "kernels"


def code(made: bytes = b"made anew") -> bytes:
    """The code of a source, as the cache has it, or `made`."""
    return cache.cached("source", lambda: made)


def the_file(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_what_is_made_is_the_users_alone_whatever_the_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLWISE_CACHE", str(tmp_path / "one" / "two"))
    before = os.umask(0)
    try:
        code()
    finally:
        os.umask(before)
    kernels = tmp_path / "one" / "two" / "kernels"
    for path, mode in ((kernels, 0o700), (kernels.parent, 0o700), (the_file(kernels), 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode, path


def test_a_trusted_file_is_read(folder: Path) -> None:
    assert code() == b"first"


def _foreign_folder(folder: Path) -> None:
    os.chown(folder, SOMEBODY, SOMEBODY)


def _foreign_file(folder: Path) -> None:
    os.chown(the_file(folder), SOMEBODY, SOMEBODY)


def _folder_for_group(folder: Path) -> None:
    folder.chmod(0o770)


def _folder_for_all(folder: Path) -> None:
    folder.chmod(0o1777)  # sticky, as /tmp: others still may put files there


def _file_for_group(folder: Path) -> None:
    the_file(folder).chmod(0o660)


def _file_for_all(folder: Path) -> None:
    the_file(folder).chmod(0o606)


def _link(folder: Path) -> None:
    file = the_file(folder)
    file.rename(folder.parent / "elsewhere")
    file.symlink_to(folder.parent / "elsewhere")


def _linked_folder(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


def _pipe(folder: Path) -> None:
    file = the_file(folder)
    file.unlink()
    os.mkfifo(file)


def _endless(folder: Path) -> None:
    file = the_file(folder)
    file.unlink()
    file.symlink_to("/dev/zero")


def _folder_as_file(folder: Path) -> None:
    file = the_file(folder)
    file.unlink()
    file.mkdir()


def _huge(folder: Path) -> None:
    os.truncate(the_file(folder), 2**40)  # a hole, which takes no room


REFUSED = [
    pytest.param(_foreign_folder, "belongs to another user", marks=as_root),
    pytest.param(_foreign_file, "belongs to another user", marks=as_root),
    (_folder_for_group, "may be written by others"),
    (_folder_for_all, "may be written by others"),
    (_file_for_group, "may be written by others"),
    (_file_for_all, "may be written by others"),
    (_link, "plain file"),
    (_linked_folder, "a link"),
    (_pipe, "plain file"),
    (_endless, "plain file"),
    (_folder_as_file, "plain file"),
    (_huge, "more than"),
]


@pytest.mark.parametrize(("spoil", "says"), REFUSED)
def test_what_others_could_have_written_is_not_read_and_said_once(
    folder: Path, spoil: Callable[[Path], None], says: str
) -> None:
    spoil(folder)
    with pytest.warns(CacheWarning, match=says):
        assert code() == b"made anew"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert code(b"again") in (b"again", b"made anew")


@pytest.mark.parametrize("spoil", [_link, _pipe, _file_for_all])
def test_a_file_that_was_refused_is_replaced_in_a_folder_of_ones_own(
    folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(folder)
    with pytest.warns(CacheWarning):
        code()
    assert code(b"third") == b"made anew"
    assert stat.S_ISREG(next(folder.iterdir()).lstat().st_mode)


def test_what_is_looked_at_is_what_is_read(folder: Path) -> None:
    """A file that is exchanged after it was opened, or a folder: what was opened counts."""
    with private.private_folder(folder) as opened:
        name = the_file(folder).name
        folder.rename(folder.parent / "moved")
        folder.mkdir()
        (folder / name).write_bytes(b"exchanged")
        content = opened.read(name, 1000)
    assert content is not None
    assert content.endswith(b"first")


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 40])
def test_a_damaged_file_is_made_anew_without_a_word(folder: Path, damage: bytes) -> None:
    the_file(folder).write_bytes(damage)
    assert code() == b"made anew"
    assert code(b"third") == b"made anew"


def test_an_empty_variable_keeps_kernels_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWISE_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kernel_folder() is None
    assert code() == b"made anew"
    assert not list(tmp_path.iterdir())


def test_a_user_without_a_home_keeps_kernels_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELLWISE_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", mock.Mock(side_effect=RuntimeError("no home")))
    assert code() == b"made anew"


def test_a_system_without_owners_and_folder_handles_still_has_a_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "_OWNERS_ARE_KNOWN", False)
    monkeypatch.setattr(private, "_BY_FOLDER", False)
    assert code() == b"first"
    the_file(folder).unlink()
    assert code() == b"made anew"
    assert code(b"third") == b"made anew"


def test_a_pipe_in_the_cache_of_a_process_blocks_nobody(tmp_path: Path) -> None:
    run = "import torch, cellwise; cellwise.Recurrent('indrnn', 3, 4)(torch.zeros(2, 1, 3)); print('ran')"
    command = [sys.executable, "-W", "ignore", "-c", run]
    environment = os.environ | {"CELLWISE_CACHE": str(tmp_path)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    for file in (tmp_path / "kernels").iterdir():
        file.unlink()
        os.mkfifo(file)
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == "ran\n"
