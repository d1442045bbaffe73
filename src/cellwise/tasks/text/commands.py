"""The command line of text models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cellwise.tasks.commands import Answer, Demo, Reading, TaskCommands, Word, Words
from cellwise.tasks.data.text_file import read_text
from cellwise.tasks.errors import TaskError
from cellwise.tasks.options import option, with_options

if TYPE_CHECKING:
    from cellwise.tasks.text.model import CharacterModel

__all__ = ["Commands", "Writing"]

BUNDLED = "moby-dick"


@with_options
class Writing:
    """How `predict` continues a text."""

    start: str | None = option(
        default=None, help="Text to continue, instead of FILE.", none="a new line", metavar="TEXT"
    )
    length: int = option(default=200, help="Characters to write.", at_least=0, at_most=1_000_000)
    temperature: float = option(
        default=0.7,
        help="0 takes the most likely character, 1 samples from the predicted distribution.",
        at_least=0.0,
        at_most=100.0,
    )
    seed: int = option(
        default=0, help="Random seed; equal seeds give equal texts.", at_least=0, at_most=2**31 - 1
    )


class Commands(TaskCommands):
    """`cellwise text`: learn a text, continue one, measure how well one is predicted."""

    data = Word("FILE", f"Text in UTF-8, - for standard input, or the bundled '{BUNDLED}'.")
    start = Word("[FILE]", "Text file to continue, - for standard input.")
    predict_options = Writing
    demo = Demo(
        BUNDLED,
        "the opening of Moby-Dick (Melville 1851, public domain)",
        "runs/moby-dick",
    )
    words: ClassVar = {
        "": Words(
            "",
            "Learn a text character by character: fit, predict, evaluate.",
            (
                "cellwise text demo",
                "cellwise text fit novel.txt",
                "cellwise text predict runs/novel-gru --start 'It was'",
            ),
        ),
        "fit": Words(
            "Train on a text.",
            "Train on FILE and write a run folder.\n\nThe first 90 % is trained on, the next 5 % decides when to "
            "stop, and the last 5 % is held out for the test. Run the same command again to resume an interrupted "
            "training.",
            (
                "cellwise text fit novel.txt",
                "cellwise text fit moby-dick --cell lstm --minutes 2 --out runs/whale",
                "cellwise text fit - --out runs/all",
            ),
        ),
        "predict": Words(
            "Continue a text.",
            "Generate the continuation of a text, character by character.",
            (
                "cellwise text predict runs/novel-gru --start 'It was' --length 500",
                "cellwise text predict runs/novel-gru chapter.txt --temperature 0.4",
                "cellwise text predict runs/novel-gru --json",
            ),
        ),
        "evaluate": Words(
            "Measure on a text.",
            "Measure how well a text is predicted, in bits per character (lower is better).",
            (
                "cellwise text evaluate runs/novel-gru sequel.txt",
                "cellwise text evaluate runs/novel-gru sequel.txt --json",
            ),
        ),
        "demo": Words(
            "Train on Moby-Dick: about a minute.",
            "Train on the opening of Moby-Dick, measure on its end, and write a few lines.",
            ("cellwise text demo", "cellwise text demo --cell lstm --out runs/whale"),
        ),
    }

    def read(self, estimator: CharacterModel, source: str) -> Reading:
        """A text, with a note on the characters that a trained model does not know."""
        if source == BUNDLED and not Path(source).exists():
            from cellwise.tasks.text.corpus import bundled_text

            text = bundled_text()
        else:
            text = read_text(source)
        return Reading(text, f"{len(text):,} characters", tuple(_unknown(estimator, text)))

    def learned(self, estimator: CharacterModel) -> Answer:
        """Bits per character on the end of the text, and a sample."""
        bits = estimator.evaluate()
        table = ("model", "bits per character"), [(estimator.model_name, f"{bits:.3f}")]
        sample = " ".join(estimator.generate(160, "\n").split())
        remarks = ("Measured on the end of the text, which training never saw. It writes:", sample)
        return Answer(
            {"model": estimator.model_name, "bits_per_character": bits}, table=table, remarks=remarks
        )

    def predict(self, estimator: CharacterModel, data: str | None, **options: Any) -> Answer:
        """The continuation of a text."""
        start = options.pop("start")
        if data is not None and start is not None:
            raise TaskError("FILE and --start both give the text to continue; give one of them")
        given = data or start or "\n"
        text = estimator.generate(start=given, **options)

        def write(path: Path) -> str:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf8")
            return f"{len(text):,} characters"

        return Answer({"start": given, "text": text}, text=text + "\n", write=write)


def _unknown(model: CharacterModel, text: str) -> list[str]:
    """A sentence on the characters that a trained model does not know."""
    unknown = model.unknown(text) if hasattr(model, "network_") else {}
    if not unknown:
        return []
    some = " ".join(ascii(each)[1:-1] if each.isspace() else each for each in list(unknown)[:12])
    return [f"{sum(unknown.values()):,} characters the model never saw are read as one unknown sign: {some}"]
