"""Words that the shell completes."""

from __future__ import annotations

from pathlib import Path

import pytest

import cellwise


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("cellwise s", ["show", "speech"]),
        ("cellwise forecast f", ["fit"]),
        ("cellwise show g", [name for name in cellwise.cells.names() if name.startswith("g")]),
        ("cellwise text fit x --cell l", [name for name in cellwise.cells.names() if name.startswith("l")]),
        ("cellwise cells --j", ["--json"]),
        ("cellwise forecast evaluate a b --by h", ["horizon"]),
    ],
)
def test_commands_options_and_cells_are_offered(
    run, monkeypatch: pytest.MonkeyPatch, typed: str, offered
) -> None:
    monkeypatch.setenv("_CELLWISE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    assert run().stdout.splitlines() == [f"plain,{word}" for word in offered]


@pytest.mark.parametrize(
    ("shell", "script", "start"),
    [
        ("zsh", ".zfunc/_cellwise", ".zshrc"),
        ("fish", ".config/fish/completions/cellwise.fish", None),
        ("bash", ".bash_completions/cellwise.sh", ".bashrc"),
    ],
)
def test_completion_is_installed_once(
    run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shell, script, start
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    if start is not None:
        (tmp_path / start).write_text("mine\n")
    for _ in range(2):
        assert str(tmp_path / script) in run("--install-completion").stdout
    shown = run("--show-completion").stdout
    assert "_CELLWISE_COMPLETE" in shown
    assert (tmp_path / script).read_text() == shown.removesuffix("\n")
    if start is not None:
        lines = (tmp_path / start).read_text().splitlines()
        assert lines[0] == "mine" and len(lines) == 2


def test_another_shell_is_one_sentence(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    done = run("--show-completion")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "The shell is tcsh, and words can be completed in bash, zsh, fish" in done.stderr
