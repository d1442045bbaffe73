"""The command line of translation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cellwise.tasks.commands import Answer, Demo, Reading, TaskCommands, Word, Words
from cellwise.tasks.errors import TaskError
from cellwise.tasks.options import option, with_options
from cellwise.tasks.translate.options import VERSES, Searching

if TYPE_CHECKING:
    from cellwise.tasks.translate.translator import Translation, Translator

__all__ = ["Commands", "Measuring", "Predicting"]

BUNDLED = "kjv12"


@with_options
class Predicting(Searching):
    """How `predict` translates."""

    n_best: int = option(
        default=1,
        help="Translations of each text, the best first; at most the beam.",
        at_least=1,
        at_most=1000,
    )
    alignments: bool = option(
        default=False, help="Show which piece of the source each piece was written for, as SOURCE-TARGET."
    )


@with_options
class Measuring(Searching):
    """How `evaluate` measures."""

    train: str | None = option(
        default=None,
        help="The pairs of the training: measures copy, translation memory and IBM model 1 beside the network.",
        none="the network alone",
        metavar="FILE",
    )


class Commands(TaskCommands):
    """`cellwise translate`: learn from pairs of texts, translate others, measure."""

    data = Word(
        "FILE",
        "Pairs, a source, a tab and its target a line; a table with two columns (CSV, JSON Lines, Excel, Parquet); two "
        "aligned files with a comma between them (a.en,a.de); - for standard input, or the bundled "
        f"'{BUNDLED}'.",
    )
    valid = "Pairs that decide when to stop.  [default: every tenth source of FILE]"
    start = Word("[FILE]", "Texts, one a line; - for standard input.  [default: those held out]")
    predict_options = Predicting
    evaluate_options = Measuring
    demo = Demo(
        BUNDLED,
        "short verses of the Bible, English (King James) to Spanish (Sagradas Escrituras), public domain",
        "runs/kjv12",
        settings=VERSES,
    )
    words: ClassVar = {
        "": Words(
            "",
            "Translate sentences, or turn spellings into sounds: a text in, another out.",
            (
                "cellwise translate demo",
                "cellwise translate fit train.tsv --valid valid.tsv --out runs/en-es",
                "cellwise translate predict runs/en-es news.txt",
            ),
        ),
        "fit": Words(
            "Train on pairs of texts.",
            "Train on FILE and write a run folder with weights and report.html. Sentences are cut into subwords, "
            "single words into characters; few different words are taken as symbols, such as sounds. A source may "
            "stand there with several targets.\n\nRun the same command again to resume an interrupted training.",
            (
                "cellwise translate fit train.tsv --valid valid.tsv --minutes 15",
                "cellwise translate fit train.en,train.de --valid valid.en,valid.de --copy",
                "cellwise translate fit words.tsv --source-unit characters --target-unit symbols",
            ),
        ),
        "predict": Words(
            "Translate texts.",
            "Translate texts, one a line, and print a translation a line. With --n-best above 1 or --alignments a line "
            "holds the number of the text, a score (log-probability by length), the translation, and the alignment. "
            "`cellwise translate lines` translates what is typed, line by line.",
            (
                "cellwise translate predict runs/train-gru news.txt",
                "cellwise translate predict runs/train-gru news.txt --beam 10 --n-best 3",
                "cellwise translate predict runs/train-gru - --json",
            ),
        ),
        "evaluate": Words(
            "Measure on pairs.",
            "Measure BLEU and chrF (sacrebleu), where each pair is a segment, and, where a source may have several "
            "targets, the share of sources without an exactly right translation and the wrong symbols by the best "
            "target.",
            (
                "cellwise translate evaluate runs/train-gru test.tsv",
                "cellwise translate evaluate runs/train-gru test.tsv --train train.tsv",
                "cellwise translate evaluate runs/train-gru test.tsv --json",
            ),
        ),
        "demo": Words(
            "Train on short verses: two minutes.",
            "Train on short verses of the Bible in English and Spanish, and measure on others.",
            ("cellwise translate demo", "cellwise translate demo --cell lstm --out runs/verses"),
        ),
    }

    def read(self, estimator: Translator, source: str) -> Reading:
        """Pairs; once the translator is fitted, texts too."""
        from cellwise.tasks.translate.pairs import TextPairs, bundled, read_pairs, read_sources

        if source == BUNDLED and not Path(source).exists():
            found: TextPairs | tuple[str, ...] = bundled()
        else:
            found = read_sources(source) if estimator.is_fitted else read_pairs(source)
        kind = "pairs" if isinstance(found, TextPairs) else "texts"
        return Reading(found, f"{len(found):,} {kind}")

    def learned(self, estimator: Translator) -> Answer:
        """The metrics beside those of simple methods."""
        from cellwise.tasks.translate.report import compared, measured_on, shown_scores

        if estimator.held_out_ is None:
            return Answer(
                None, remarks=("there are too few pairs to hold any out, so nothing can be measured",)
            )
        scores = compared(estimator)
        value = {
            "model": estimator.model_name,
            "held_out": "test" if estimator.is_test_ else "validation",
            "scores": scores,
        }
        return Answer(value, table=shown_scores(scores), remarks=(measured_on(estimator),))

    def predict(self, estimator: Translator, data: Any, **options: Any) -> Answer:
        """A translation a line, or a table of several."""
        from cellwise.tasks.translate.pairs import texts_of

        alignments = options.pop("alignments")
        if data is None and estimator.held_out_ is None:
            raise TaskError("nothing was held out of the training to be translated; name a file")
        sources = texts_of(estimator.held_out_ if data is None else data)
        _read_allowed(options)
        start = time.perf_counter()
        found = estimator.translations(sources, **options)
        seconds = time.perf_counter() - start
        if options["n_best"] == 1 and not alignments:
            lines = [each[0].text for each in found]
        else:
            lines = [_line(number, each, alignments) for number, own in enumerate(found, 1) for each in own]
        text = "".join(f"{line}\n" for line in lines)

        def write(path: Path) -> str:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf8")
            return f"{len(lines):,} lines"

        value = [
            {"source": source, "translations": [_value(each, alignments) for each in own]}
            for source, own in zip(sources, found, strict=True)
        ]
        remark = f"{len(sources):,} texts, {len(sources) / max(seconds, 1e-9):,.0f} a second"
        return Answer(value, text=text, write=write, remarks=(remark,))

    def evaluate(self, estimator: Translator, data: Any, **options: Any) -> Answer:
        """The metrics, with sacrebleu's signatures, beside those of simple methods if they may learn."""
        from cellwise.tasks.translate.metrics import signatures
        from cellwise.tasks.translate.pairs import as_pairs, read_pairs
        from cellwise.tasks.translate.report import beside, shown_scores

        train = options.pop("train")
        if isinstance(data, tuple):
            raise TaskError(
                "measuring needs pairs, a source, a tab and its target a line; this file has one text a line"
            )
        pairs = as_pairs(data, None, "measuring")
        _read_allowed(options)
        scores = {estimator.model_name: estimator.measure(pairs, **options)}
        if train is not None:
            scores |= beside(estimator, read_pairs(train), pairs)
        value: dict[str, Any] = {"model": estimator.model_name, **scores[estimator.model_name]}
        value |= {"pairs": len(pairs), "sources": len(pairs.variants()), "signatures": signatures()}
        value |= {"baselines": {name: own for name, own in scores.items() if name != estimator.model_name}}
        remarks = tuple(f"{name}: {text}" for name, text in signatures().items())
        return Answer(value, table=shown_scores(scores), remarks=remarks)


def _read_allowed(options: dict[str, Any]) -> None:
    """Put the texts of `--allow FILE` and `--among FILE` where the names of the files stand."""
    from cellwise.tasks.translate.allowed import read_allowed

    for name in ("allow", "among"):
        if options[name] is not None:
            options[name] = read_allowed(options[name])


def _line(number: int, found: Translation, alignments: bool) -> str:
    parts = [str(number), f"{found.score:.4f}", found.text]
    if alignments:
        parts.append(" ".join(f"{place}-{at}" for at, place in enumerate(found.alignment)))
    return "\t".join(parts)


def _value(found: Translation, alignments: bool) -> dict[str, Any]:
    score = None if found.score != found.score else found.score  # JSON has no NaN
    value: dict[str, Any] = {"text": found.text, "score": score}
    if alignments:
        value |= {"pieces": list(found.pieces), "alignment": list(found.alignment)}
    return value
