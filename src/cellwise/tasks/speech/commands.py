"""The command line of speech recognition."""

from __future__ import annotations

import dataclasses
import sys
import time
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from cellwise.tasks.commands import Answer, Demo, Reading, TaskCommands, Word, Words
from cellwise.tasks.data.standard_input import STDIN
from cellwise.tasks.errors import DataError, TaskError
from cellwise.tasks.speech.options import PredictOptions

if TYPE_CHECKING:
    from cellwise.tasks.speech.recognizer import SpeechRecognizer, Transcript

__all__ = ["Commands"]

BUNDLED = "digits"
CHUNK = 0.1  # seconds of raw audio at a time


class Commands(TaskCommands):
    """`cellwise speech`: learn from recordings with transcripts, write down others, measure."""

    data = Word(
        "DATA",
        "Table with the columns path (relative to the table) and text, or a folder of WAV, FLAC or OGG files with .txt "
        f"files beside them; - for a table from standard input, or the bundled '{BUNDLED}'.",
    )
    valid = "Recordings that decide when to stop.  [default: every tenth of DATA]"
    start = Word(
        "[DATA]",
        "A recording, a table, a folder, or - for standard input: a file, with --streaming raw audio.  [default: those "
        "held out]",
    )
    predict_options = PredictOptions
    read_options = ("beam", "language_arpa", "language_run")
    demo = Demo(
        BUNDLED,
        "spoken digits in five languages (Asterisk's core sounds, CC BY-SA 3.0 and CC BY 3.0), joined to numbers",
        "runs/digits",
        settings={"hidden_size": 96, "epochs": 14},
    )
    words: ClassVar = {
        "": Words(
            "",
            "Recognise speech with a recurrent network.",
            (
                "cellwise speech demo",
                "cellwise speech fit train.csv --valid valid.csv --out runs/prompts",
                "cellwise speech predict runs/prompts hello.wav",
            ),
        ),
        "fit": Words(
            "Train on recordings with transcripts.",
            "Train on DATA and write a run folder with weights and report.html. Recordings of any rate and number of "
            "channels are brought to one.\n\nRun the same command again to resume an interrupted training.",
            (
                "cellwise speech fit train.csv --valid valid.csv",
                "cellwise speech fit recordings/ --cell lstm --hidden-size 256 --minutes 60",
                "cellwise speech fit train.csv --streaming --out runs/live",
                "cellwise speech fit train.csv --language-text sentences.txt",
            ),
        ),
        "predict": Words(
            "Write down what is said.",
            "Print the text of each recording. With --json also its words, when each was said, and how sure the "
            "network is.\n\nWith --streaming raw audio is read from standard input, and the text so far is shown "
            "while it is spoken.",
            (
                "cellwise speech predict runs/train-gru hello.wav",
                "cellwise speech predict runs/train-gru calls/ --out calls.csv",
                "arecord -f S16_LE -r 16000 -t raw | cellwise speech predict runs/live - --streaming --raw-rate 16000",
            ),
        ),
        "evaluate": Words(
            "Measure on recordings with transcripts.",
            "Measure the word error rate (wer) and the character error rate (cer): edits per word and per character of "
            "the transcripts, which are normalised as for training, beside the best path without the language model.",
            (
                "cellwise speech evaluate runs/train-gru test.csv",
                "cellwise speech evaluate runs/train-gru test.csv --json",
            ),
        ),
        "demo": Words(
            "Train on spoken digits: under three minutes.",
            "Train on the digits of five languages, joined to numbers, and measure on other numbers of the same "
            "recordings.",
            ("cellwise speech demo", "cellwise speech demo --cell lstm --out runs/numbers"),
        ),
    }

    def read(self, estimator: SpeechRecognizer, source: str) -> Reading:
        """Recordings; once the recogniser is fitted, standard input is left to `predict` and `evaluate`."""
        from cellwise.tasks.speech.datasets import digits
        from cellwise.tasks.speech.manifest import read_listed

        if source == STDIN and estimator.is_fitted:
            return Reading(STDIN)
        made = digits() if source == BUNDLED and not Path(source).exists() else read_listed(source)
        return Reading(made, f"{len(made):,} recording{'s' * (len(made) != 1)}")

    def learned(self, estimator: SpeechRecognizer) -> Answer:
        """The error rates on what was held out."""
        from cellwise.tasks.speech.report import compared, measured_on, shown_scores

        if estimator.held_out_ is None:
            return Answer(
                None, remarks=("there are too few recordings to hold any out, so nothing can be measured",)
            )
        found = compared(estimator, estimator.held_out_)
        value = {"model": estimator.model_name, "held_out": "validation", "scores": found.figures}
        return Answer(value, table=shown_scores(found), remarks=(measured_on(estimator),))

    def evaluate(self, estimator: SpeechRecognizer, data: Any, **options: Any) -> Answer:
        """The error rates with and without the language model."""
        from cellwise.tasks.speech.manifest import read_listed
        from cellwise.tasks.speech.report import GREEDY, compared, shown_scores

        clips = estimator._clips(read_listed(STDIN) if data == STDIN else data, needs_texts=True)
        found = compared(estimator, clips)
        value = {
            "model": estimator.model_name,
            **found.figures[estimator.model_name],
            "best_path": found.figures[GREEDY],
            "recordings": len(clips),
        }
        return Answer(value, table=shown_scores(found), remarks=clips.notes)

    def predict(self, estimator: SpeechRecognizer, data: Any, **options: Any) -> Answer:
        """The text of each recording; with `live`, of raw audio while it is spoken."""
        from cellwise.tasks.speech.audio import read_recording

        if options["live"]:
            if data != STDIN:
                raise TaskError("--streaming reads raw audio from standard input; name - instead of a file")
            return _live(estimator, options["raw_rate"])
        if options["raw_rate"] is not None:
            raise TaskError("--raw-rate is of raw audio; give --streaming with it")
        if data is None and estimator.held_out_ is None:
            raise TaskError("nothing was held out of the training to be written down; name a recording")
        data = estimator.held_out_ if data is None else data
        if data == STDIN:
            data = [read_recording(sys.stdin.buffer.read(), "standard input")]
        start = time.perf_counter()
        clips = estimator._clips(data)
        made = estimator.transcribe(clips)
        seconds = time.perf_counter() - start
        remark = (
            f"{clips.seconds:.1f} s of sound, {clips.seconds / seconds:,.0f} times as fast as it was spoken"
        )
        return _answer(made, (*clips.notes, remark))


def _answer(made: list[Transcript], remarks: tuple[str, ...]) -> Answer:
    from cellwise.tasks.data.files import is_table, write_rows

    alone = len(made) == 1
    text = "".join(f"{each.text}\n" if alone else f"{each.name}\t{each.text}\n" for each in made)
    rows = [{"path": each.name, "text": each.text, "confidence": each.confidence} for each in made]

    def write(path: Path) -> str:
        if is_table(path):
            return write_rows(rows, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
        return f"{len(made):,} transcript{'s' * (not alone)}"

    value = [_value(each) for each in made]
    return Answer(value, text=text, write=write, remarks=remarks)


def _value(made: Transcript) -> dict[str, Any]:
    confidence = made.confidence if made.text else None
    return {**dataclasses.asdict(made), "confidence": confidence}


def _live(estimator: SpeechRecognizer, rate: int | None) -> Answer:
    """Raw audio from standard input; the text so far goes to standard error, on one line of a terminal."""
    import numpy as np

    from cellwise.tasks.training.loop import torch_threads

    with torch_threads(estimator.threads):
        rate = estimator.rate_ if rate is None else rate
        stream = estimator.stream(rate)
        show, size = _shown(), 2 * max(1, round(CHUNK * rate))
        source = cast(BufferedReader, sys.stdin.buffer)
        spent, slowest, count, rest = 0.0, 0.0, 0, b""
        while piece := source.read1(size):
            piece = rest + piece
            whole = len(piece) // 2 * 2
            rest = piece[whole:]
            start = time.perf_counter()
            text = stream.feed(np.frombuffer(piece[:whole], dtype="<i2").astype(np.int16))
            took = time.perf_counter() - start
            spent, slowest, count = spent + took, max(slowest, took), count + whole // 2
            show(text)
        show("")
        made = stream.end("standard input")
    if not count:
        raise DataError("standard input holds no sound; pipe raw audio of 16 bits and one channel into it")
    remarks = (
        f"{count / rate:.1f} s of sound at {rate:,} Hz; a step waits {1000 * stream.delay:.0f} ms for the sound around "
        f"it; computing took at most {1000 * slowest:.0f} ms a piece, {1000 * spent * rate / count:.0f} ms a second of "
        "sound",
    )
    return _answer([made], remarks)


def _shown() -> Any:
    """Shows a text in the place of the one before; where standard error is no terminal, each on a line."""
    before = ""

    def show(text: str) -> None:
        nonlocal before
        if text == before:
            return
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[2K{text[-100:]}")
        elif text:
            sys.stderr.write(f"... {text}\n")
        sys.stderr.flush()
        before = text

    return show
