"""The command line of text models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cellwise.tasks.commands import Answer, Demo, Reading, TaskCommands, Word, Words
from cellwise.tasks.errors import TaskError
from cellwise.tasks.options import option, with_options

if TYPE_CHECKING:
    from cellwise.tasks.text.model import LanguageModel

__all__ = ["Commands", "Measuring", "Writing"]

BUNDLED = "moby-dick"


@with_options
class Writing:
    """How `predict` continues a text."""

    start: str | None = option(
        default=None, help="Text to continue, instead of FILE.", none="a new line", metavar="TEXT"
    )
    length: int = option(
        default=200, help="Characters (bytes, subwords) to write.", at_least=0, at_most=1_000_000
    )
    temperature: float = option(
        default=0.7,
        help="0 takes the most likely character, 1 samples from the predicted distribution.",
        at_least=0.0,
        at_most=100.0,
    )
    seed: int = option(
        default=0, help="Random seed; equal seeds give equal texts.", at_least=0, at_most=2**31 - 1
    )


@with_options
class Measuring:
    """How `evaluate` reads a text."""

    dynamic: bool = option(
        default=False, help="Let the network learn from the text as it reads it (dynamic evaluation)."
    )


class Commands(TaskCommands):
    """`cellwise text`: learn a text, continue one, measure how well one is predicted."""

    data = Word(
        "FILE",
        f"Text file, or a folder of .txt files, of any size; - for standard input; or the bundled '{BUNDLED}'.",
    )
    valid = "Text that decides when to stop.  [default: the end of FILE]"
    start = Word("[FILE]", "Text file to continue, - for standard input.")
    predict_options = Writing
    evaluate_options = Measuring
    demo = Demo(
        BUNDLED,
        "the opening of Moby-Dick (Melville 1851, public domain)",
        "runs/moby-dick",
        settings={"hidden_size": 160, "embedding_size": 32, "batch_size": 16, "dropout": 0.1, "epochs": 10},
    )
    words: ClassVar = {
        "": Words(
            "",
            "Learn a text: write more of it, measure how surprising others are.",
            (
                "cellwise text demo",
                "cellwise text fit novel.txt",
                "cellwise text generate runs/novel-gru --start 'It was' --samples 3",
                "cellwise text score runs/novel-gru lines.txt",
            ),
        ),
        "fit": Words(
            "Train on a text.",
            "Train on FILE and write a run folder with weights and report.html.\n\nThe first 90 % is trained on, the "
            "next 5 % decides when to stop, and the last 5 % is held out for the test. With --valid all of FILE is "
            "trained on. Run the same command again to resume an interrupted training.",
            (
                "cellwise text fit novel.txt",
                "cellwise text fit books/ --valid other.txt --minutes 15",
                "cellwise text fit moby-dick --cell lstm --minutes 2 --out runs/whale",
                "cellwise text fit - --out runs/all",
            ),
        ),
        "predict": Words(
            "Continue a text.",
            "Generate the continuation of a text.",
            (
                "cellwise text predict runs/novel-gru --start 'It was' --length 500",
                "cellwise text predict runs/novel-gru chapter.txt --temperature 0.4",
                "cellwise text predict runs/novel-gru --json",
            ),
        ),
        "evaluate": Words(
            "Measure on a text.",
            "Measure how well a text is predicted, in bits per character (lower is better).\n\nWith --dynamic a copy "
            "of the network learns from the text as it reads it, each part after it was predicted (Krause et al. "
            "2018).",
            (
                "cellwise text evaluate runs/novel-gru sequel.txt",
                "cellwise text evaluate runs/novel-gru sequel.txt --dynamic",
                "cellwise text evaluate runs/novel-gru sequel.txt --json",
            ),
        ),
        "demo": Words(
            "Train on Moby-Dick: two minutes.",
            "Train on the opening of Moby-Dick, measure on its end, and write a few lines.",
            ("cellwise text demo", "cellwise text demo --cell lstm --out runs/whale"),
        ),
    }

    def read(self, estimator: LanguageModel, source: str) -> Reading:
        """A text, with a note on the characters that a trained model does not know."""
        from cellwise.tasks.text import corpus

        if source == BUNDLED and not Path(source).exists():
            return _reading(estimator, corpus.bundled_text())
        if source == "-":
            return _reading(estimator, corpus.read_texts(source))
        files = corpus.files_of(source)
        many = f"{len(files.paths):,} files, " if len(files.paths) > 1 else ""
        notes = tuple(f"{path} is empty" for path in files.empty) if many else ()
        if files.bytes > corpus.IN_MEMORY:
            return Reading(files, f"{many}{files.bytes / 1e6:,.0f} MB, read piece by piece", notes)
        return _reading(estimator, "".join(files.blocks()), many, notes)

    def learned(self, estimator: LanguageModel) -> Answer:
        """Bits per character on the end of the text, and a sample."""
        from cellwise.tasks.text.report import beaten_by_learners, compared, measured_on

        scores = compared(estimator)
        more = beaten_by_learners(scores, estimator.model_name)
        table = ("model", "bits per character"), [(name, f"{bits:.3f}") for name, bits in scores.items()]
        sample = " ".join(estimator.generate(160, "\n").split())
        value = {
            "model": estimator.model_name,
            "bits_per_character": scores[estimator.model_name],
            "baselines": estimator.baselines_,
        }
        return Answer(value, table=table, remarks=(*more, f"{measured_on(estimator)} It writes:", sample))

    def predict(self, estimator: LanguageModel, data: str | None, **options: Any) -> Answer:
        """The continuation of a text."""
        from cellwise.tasks.text.corpus import TextSource

        start = options.pop("start")
        if data is not None and start is not None:
            raise TaskError("FILE and --start both give the text to continue; give one of them")
        if isinstance(data, TextSource):
            raise TaskError("FILE is too long to go on from; give the end of it")
        given = data or start or "\n"
        text = estimator.generate(start=given, **options)

        def write(path: Path) -> str:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf8")
            return f"{len(text):,} characters"

        return Answer({"start": given, "text": text}, text=text + "\n", write=write)

    def evaluate(self, estimator: LanguageModel, data: Any, **options: Any) -> Answer:
        """Bits per character and perplexity."""
        figures = estimator.measure(data, **options)
        titles = ("model", "bits per character", "perplexity")
        row = (estimator.model_name, *(f"{value:.3f}" for value in figures.values()))
        return Answer({"model": estimator.model_name, **figures}, table=(titles, [row]))


def _reading(model: LanguageModel, text: str, many: str = "", notes: tuple[str, ...] = ()) -> Reading:
    """A text in memory, with what was noticed in it."""
    return Reading(text, f"{many}{len(text):,} characters", (*notes, *_unknown(model, text)))


def _unknown(model: LanguageModel, text: str) -> list[str]:
    """A sentence on the characters that a trained model does not know."""
    unknown = model.unknown(text) if hasattr(model, "network_") else {}
    if not unknown:
        return []
    some = " ".join(ascii(each)[1:-1] if each.isspace() else each for each in list(unknown)[:12])
    return [f"{sum(unknown.values()):,} characters the model never saw are read as one unknown sign: {some}"]
