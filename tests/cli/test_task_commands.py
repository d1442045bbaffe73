"""The commands of every task, made of what tasks declare: they read alike, and `--json` prints one value."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import click
import numpy as np
import polars
import pytest
import soundfile

from cellwise.cli import app
from cellwise.cli import tasks as task_commands
from cellwise.tasks import (
    CharacterModel,
    Forecaster,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
    SpeechRecognizer,
    Translator,
)
from cellwise.tasks.commands import Answer, Demo, Reading, TaskCommands, Word, Words
from cellwise.tasks.common_options import CommonOptions
from cellwise.tasks.options import option, options_of, with_options
from cellwise.tasks.registry import tasks

TEXT = "".join(f"The whale number {i} swims, and so does the ship.\n" for i in range(60))
SHARED = {flag for each in options_of(CommonOptions) for flag in each.flags}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each task, and data that its commands read."""
    home = tmp_path_factory.mktemp("runs")
    steps = np.arange(60)
    y = 20 + 5 * np.sin(2 * np.pi * steps / 7)
    frame = polars.DataFrame({"ds": np.datetime64("2024-01-01", "D") + steps, "y": y})
    frame.write_csv(home / "forecast.csv")
    frame.with_columns(polars.col.ds.dt.offset_by("7d")).write_csv(home / "newer.csv")
    (home / "text.txt").write_text(TEXT)
    Forecaster(horizon=3, hidden_size=4, epochs=1, validation=1).fit(home / "forecast.csv").save(
        home / "forecast"
    )
    CharacterModel(hidden_size=6, embedding_size=4, epochs=1).fit(TEXT).save(home / "text")
    rows = [f"{'a fine' if i % 2 else 'a dull'} film {i},{'good' if i % 2 else 'bad'}" for i in range(24)]
    (home / "classify.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    SequenceClassifier(hidden_size=4, embedding_size=4, epochs=1).fit(home / "classify.csv").save(
        home / "classify"
    )
    rows = [f"{'a fine' if i % 2 else 'a dull'} film {i},{i % 2 + i / 100}" for i in range(24)]
    (home / "regress.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    SequenceRegressor(hidden_size=4, embedding_size=4, epochs=1).fit(home / "regress.csv").save(
        home / "regress"
    )
    sentence = "the\tDET\n{noun}\tNOUN\nsings\tVERB\n\n"
    (home / "tag.conll").write_text("".join(sentence.format(noun=f"bird{i}") for i in range(24)))
    SequenceTagger(hidden_size=4, embedding_size=4, character_size=4, epochs=1).fit(home / "tag.conll").save(
        home / "tag"
    )
    sounds = [np.sin(np.arange(3000 + 100 * i) / (3 + i % 2)) / 2 for i in range(24)]
    (home / "speech").mkdir()
    for i, sound in enumerate(sounds):
        soundfile.write(home / f"{i}.wav", sound, 8000)
    table = [f"{home}/{i}.wav,{('high', 'low')[i % 2]}" for i in range(24)]
    (home / "speech.csv").write_text("path,text\n" + "\n".join(table) + "\n")
    SpeechRecognizer(hidden_size=4, num_layers=1, epochs=1).fit(home / "speech.csv").save(home / "speech")
    pairs = [f"number {i}\tnummer {i}" for i in range(24)]
    (home / "translate.tsv").write_text("\n".join(pairs) + "\n")
    Translator(hidden_size=4, embedding_size=4, epochs=1).fit(home / "translate.tsv").save(home / "translate")
    return home


DATA = {
    "classify": "classify.csv",
    "forecast": "forecast.csv",
    "regress": "regress.csv",
    "speech": "speech.csv",
    "tag": "tag.conll",
    "text": "text.txt",
    "translate": "translate.tsv",
}


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return run


def _options(*words: str) -> set[str]:
    command: click.Command = app
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    return {flag for each in command.params if isinstance(each, click.Option) for flag in each.opts}


@pytest.mark.parametrize("task", tasks())
def test_all_tasks_have_the_same_commands_and_options(run, task: str) -> None:
    listed = run(task, "--help").stdout.partition("Commands:")[2]
    assert re.findall(r"^  (\w+) ", listed, re.MULTILINE)[:7] == [
        "fit",
        "predict",
        "evaluate",
        "demo",
        "check",
        "tune",
        "compare",
    ]
    assert _options(task, "fit") >= SHARED | {"--out", "--overwrite", "--quiet"}
    assert _options(task, "fit") >= {"--device", "--minutes", "--accumulate", "--autocast"}
    assert _options(task, "predict") >= {"--out", "--json", "--quiet"}
    assert _options(task, "evaluate") >= {"--json", "--quiet"}
    assert _options(task, "compare") >= (SHARED - {"--cell"}) | {
        "--cells",
        "--seeds",
        "--set",
        "--out",
        "--json",
    }
    assert _options(task, "tune") >= SHARED | {"--trials", "--minutes", "--out", "--json", "--overwrite"}
    assert _options(task, "demo") >= {"--out", "--cell", "--epochs", "--seed", "--overwrite"}


@pytest.mark.parametrize("task", tasks())
def test_every_option_has_the_default_and_the_help_that_were_declared(run, task: str) -> None:
    shown = " ".join(run(task, "fit", "--help").stdout.split())
    for each in options_of(tasks()[task].load_options()):
        assert each.flags[0] in shown
        assert each.help in shown
        if (
            each.kind in (int, float)
            and not each.is_list
            and not each.is_required
            and each.default is not None
        ):
            assert f"{each.help} [default: {each.default}]" in shown
        if each.kind is bool and (each.default or each.none is not None):  # can be switched off
            assert f"--no-{each.flags[0].removeprefix('--')}" in shown


def _with_json() -> set[tuple[str, ...]]:
    found = set()
    context = click.Context(app)
    for name in app.list_commands(context):
        command = app.get_command(context, name)
        inner = command.list_commands(context) if isinstance(command, click.Group) else [None]
        words = [(name,) if each is None else (name, each) for each in inner]
        found |= {each for each in words if "--json" in _options(*each)}
    return found


JSON = {
    ("cells",): [],
    ("complexity",): ["gru"],
    ("compare-cells",): ["rnn", "--problems", "recall", "--updates", "2", "--out", "{home}/cells"],
    ("forecast", "backtest"): ["{home}/forecast.csv", "-H", "3", "--hidden-size", "4", "--epochs", "1"],
    ("forecast", "explain"): ["{home}/forecast"],
    ("text", "generate"): ["{home}/text", "--length", "9"],
    ("text", "score"): ["{home}/text", "{home}/text.txt"],
    ("forecast", "update"): ["{home}/forecast", "{home}/newer.csv", "--out", "{home}/updated", "--overwrite"],
    ("forecast", "tune"): ["{home}/forecast.csv", "-H", "3", "--epochs", "1", "--hidden-size", "4", "--trials", "2"],
    ("classify", "tune"): ["{home}/classify.csv", "--epochs", "1", "--hidden-size", "4", "--trials", "2"],
    ("regress", "tune"): ["{home}/regress.csv", "--epochs", "1", "--hidden-size", "4", "--trials", "2"],
    ("speech", "tune"): ["{home}/speech.csv", "--epochs", "1", "--hidden-size", "4", "--trials", "2"],
    ("tag", "tune"): ["{home}/tag.conll", "--epochs", "1", "--hidden-size", "4", "--trials", "2"],
    ("translate", "tune"): ["{home}/translate.tsv", "--epochs", "1", "--hidden-size", "4", "--trials", "2"],
    ("text", "tune"): ["{home}/text.txt", "--epochs", "1", "--hidden-size", "4", "--trials", "2"],
    **{(task, "predict"): [f"{{home}}/{task}"] for task in tasks()},
    **{(task, "evaluate"): [f"{{home}}/{task}", f"{{home}}/{DATA[task]}"] for task in tasks()},
    **{
        (task, "compare"): [
            f"{{home}}/{DATA[task]}", *(["-H", "3"] if task == "forecast" else []), "--epochs", "1",
            "--hidden-size", "4", "--seeds", "1",
        ]
        for task in tasks()
    },
}  # fmt: skip


def test_every_command_with_json_is_tried() -> None:
    assert set(JSON) == _with_json()


@pytest.mark.parametrize("words", JSON, ids=" ".join)
def test_json_is_one_value_and_nothing_else_on_stdout(run, home: Path, words: tuple[str, ...]) -> None:
    given = [each.format(home=home) for each in JSON[words]]
    done = run(*words, *given, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    quiet = run(*words, *given, "--json", *(["--quiet"] if "--quiet" in _options(*words) else []))
    assert quiet.stdout == done.stdout
    assert quiet.stderr == "" or "--quiet" not in _options(*words)


def test_evaluate_of_a_forecast_is_that_of_the_forecaster(run, home: Path) -> None:
    words = ("forecast", "evaluate", f"{home}/forecast", f"{home}/forecast.csv", "--cutoffs", "2")
    found = json.loads(run(*words, "--json").stdout)
    wanted = Forecaster.load(home / "forecast").evaluate(home / "forecast.csv", cutoffs=2).to_dicts()
    models = [row["model"] for row in found]
    assert models[0].startswith("GRU+") and "SeasonalNaive" in models
    assert found == wanted
    done = run(*words)
    assert "the last 2 windows of 3 days" in done.stderr
    shown = [line.split()[0] for line in done.stdout.splitlines()]
    assert (
        shown[0] == "model" and shown[2] == models[0] and shown[3] == models[1] and "SeasonalNaive" in shown
    )
    by_step = json.loads(run(*words, "--by", "horizon", "--json").stdout)
    assert [row["step"] for row in by_step] == [1, 2, 3] * len({row["model"] for row in by_step})


def test_evaluate_of_a_text_is_that_of_the_model(run, home: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("A ship swims? Ü " * 20, encoding="utf8")
    done = run("text", "evaluate", f"{home}/text", "other.txt", "--json")
    wanted = CharacterModel.load(home / "text").evaluate((tmp_path / "other.txt").read_text("utf8"))
    assert json.loads(done.stdout)["bits_per_character"] == pytest.approx(wanted, rel=1e-6)
    assert "characters the model never saw are read as one unknown sign: " in done.stderr


def test_a_text_is_learned_and_gone_on_with(run, home: Path, tmp_path: Path) -> None:
    quick = ("--hidden-size", "6", "--epochs", "1")
    done = run("text", "fit", f"{home}/text.txt", *quick)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["model", "bits", "per", "character"]
    assert "predict with: cellwise text predict runs/text-gru" in done.stderr
    model = CharacterModel.load(tmp_path / "runs/text-gru")
    wanted = model.generate(30, "The ", temperature=0.5, seed=2)
    words = ("text", "predict", "runs/text-gru", "--length", "30", "--temperature", "0.5", "--seed", "2")
    assert run(*words, "--start", "The ").stdout == wanted + "\n"
    (tmp_path / "start.txt").write_text("The ")
    assert (
        run(*words, "start.txt", "--out", "more/made.txt").stderr == "wrote 30 characters to more/made.txt\n"
    )
    assert (tmp_path / "more/made.txt").read_text() == wanted
    assert run("text", "check", "runs/text-gru").returncode == 0


def test_the_demo_of_text_trains_on_what_ships(run, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellwise.tasks.text import corpus

    monkeypatch.setattr(corpus, "bundled_text", lambda: TEXT)
    done = run("text", "demo", "--epochs", "1", "--cell", "mingru")
    assert done.returncode == 0, done.stderr
    assert "the opening of Moby-Dick" in done.stderr and "It writes:" in done.stderr
    assert Path("runs/moby-dick/best.safetensors").is_file()


@pytest.mark.parametrize("task", tasks())
def test_a_report_that_is_made_again_leaves_a_whole_run(run, home: Path, tmp_path: Path, task: str) -> None:
    folder = tmp_path / "trained"
    shutil.copytree(home / task, folder)
    done = run(task, "report", folder)
    assert done.returncode == 0 and done.stderr == f"report: {folder / 'report.html'}\n"
    assert run(task, "check", folder).returncode == 0
    (folder / "report.html").unlink()
    damaged = run(task, "check", folder)
    assert f"report.html: is missing; make it again with: cellwise {task} report {folder}" in damaged.stdout
    assert run(task, "report", folder).returncode == run(task, "check", folder).returncode == 0


@pytest.mark.parametrize("task", tasks())
def test_data_may_come_from_standard_input(
    run, home: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    words = (task, "evaluate", f"{home}/{task}")
    content = (home / DATA[task]).read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    piped = run(*words, "-", "--json")
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout == run(*words, f"{home}/{DATA[task]}", "--json").stdout
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\xff\xfe\xff")))
    wrong = run(*words, "-")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "standard input" in wrong.stderr and "/tmp" not in wrong.stderr and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("text", "fit", "nowhere.txt"), "there is no file nowhere.txt"),
        (("text", "fit", "short.txt"), "at least 1,000 characters; this one has 5"),
        (("text", "fit", "short.txt", "--epochs", "0"), "epochs must be a whole number from 1"),
        (("text", "fit", "short.txt", "--cell", "gur"), "did you mean 'gru'?"),
        (("text", "fit", "latin.txt"), "latin.txt is no text in UTF-8 (byte 3 is not)"),
        (("text", "predict", "{home}/text", "short.txt", "--start", "a"), "give one of them"),
        (("text", "predict", "{home}/text", "--length", "-1"), "length must be a whole number from 0"),
        (("text", "predict", "{home}/text", "--json", "--out", "x"), "give one of them"),
        (("text", "predict", "{home}/forecast"), "holds a run of the task 'forecast', not 'text'"),
        (
            ("forecast", "evaluate", "{home}/forecast", "{home}/forecast.csv", "--cutoffs", "0"),
            "cutoffs must be",
        ),
        (("forecast", "predict", "{home}/forecast", "-H", "0"), "horizon must be a whole number from 1"),
        (("forecast", "predict", "{home}/forecast", "--out", "x.doc"), "named .csv, .xlsx, .parquet"),
    ],
)
def test_every_mistake_is_one_sentence_and_status_2(
    run, home: Path, tmp_path: Path, words, says: str
) -> None:
    (tmp_path / "short.txt").write_text("short")
    (tmp_path / "latin.txt").write_bytes(b"abc\xe4\xff")
    done = run(*(each.format(home=home) for each in words))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    *remarks, mistake = done.stderr.splitlines()
    assert says in mistake
    assert mistake.startswith("cellwise: ") and not any(each.startswith("cellwise: ") for each in remarks)
    assert not (tmp_path / "runs").exists()


# --- a task that nothing here knows -----------------------------------------------------------------------------


@with_options
class CountOptions(CommonOptions):
    """A task with an option of each kind."""

    names: list[str] = option(default=("a",), help="Names.", metavar="NAME")
    sizes: list[int] = option(default=(1, 2), help="Sizes.")
    mode: str = option(default="slow", help="How.", choices=("slow", "fast"))
    again: bool = option(default=False, help="Twice.")
    limit: float | None = option(default=None, help="Most.", none="none")


class Counter:
    """Takes note of what it is told."""

    notes_, seconds_, model_name = ("odd data",), 1.0, "Counter"
    trained_ = SimpleNamespace(
        epochs=[1],
        best=SimpleNamespace(epoch=1),
        watch=SimpleNamespace(keeps_best=True),
        stopped_early=False,
        resumed_after=0,
    )
    told: dict[str, object]

    def __init__(self, **settings: object) -> None:
        Counter.told = settings

    def check_options(self) -> None:
        pass

    def fit(self, data: object, **how: object) -> None:
        Counter.told |= {"data": data, **how}


class CountCommands(TaskCommands):
    """Words of that task."""

    data, start = Word("DATA", "What to count."), Word("[DATA]", "What to go on with.")
    valid = "Data that decide when to stop."
    demo = Demo("bundled", "some things", "runs/count")
    words: ClassVar = {
        each: Words(each, each, (f"cellwise count {each}",))
        for each in ("", "fit", "predict", "evaluate", "demo")
    }

    def read(self, estimator: object, source: str) -> Reading:
        return Reading(f"<{source}>", "three things", ("odd data",))

    def learned(self, estimator: object) -> Answer:
        return Answer(3, text="three\n")

    def predict(self, estimator: object, data: object) -> Answer:
        return Answer(data)


def test_a_new_task_costs_nothing_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = SimpleNamespace(
        name="count",
        load_estimator=lambda: Counter,
        load_options=lambda: CountOptions,
        load_fit_options=lambda: None,
        load_commands=CountCommands,
    )
    monkeypatch.setattr(task_commands, "find_task", lambda name: task)
    group = task_commands.group_of("count")
    words = [
        "fit",
        "x",
        "--valid",
        "y",
        "--names",
        "a,b",
        "--names",
        "c",
        "--mode",
        "fast",
        "--again",
        "--limit",
        "2",
    ]
    group.main(words, standalone_mode=False)
    told = Counter.told
    assert (told["names"], told["mode"], told["again"], told["limit"]) == (["a", "b", "c"], "fast", True, 2.0)
    assert "sizes" not in told, "what was not given is left to the estimator"
    assert (told["data"], told["valid"], told["folder"]) == ("<x>", "<y>", Path("runs/x-counter"))
    printed = capsys.readouterr()
    assert printed.out == "three\n"
    assert printed.err.count("odd data") == 1, "what was said when the data were read is not said again"
    with pytest.raises(click.BadParameter, match="'quick' is not one of 'slow', 'fast'"):
        group.main(["fit", "x", "--mode", "quick"], standalone_mode=False)
