"""The command line of tagging."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cellwise.tasks.commands import Answer, Demo, Reading, TaskCommands, Word, Words
from cellwise.tasks.errors import TaskError

if TYPE_CHECKING:
    from cellwise.tasks.tag.tagger import SequenceTagger

__all__ = ["Commands"]

BUNDLED = "hkcancor"
TIMED = 1000  # words; fewer take as long as starting does


class Commands(TaskCommands):
    """`cellwise tag`: learn tags from sentences in columns, tag others, measure."""

    data = Word(
        "FILE",
        "Sentences in columns, a word and its tag a line, an empty line between sentences (CoNLL, CoNLL-U), or in "
        f"lines such as The/DT cat/NN; - for standard input, or the bundled '{BUNDLED}'.",
    )
    valid = "Sentences that decide when to stop.  [default: every tenth of FILE]"
    start = Word("[FILE]", "Text, or sentences in columns; - for standard input.  [default: those held out]")
    read_options = ("word_column", "tag_column", "encoding")
    demo = Demo(
        BUNDLED,
        "the Hong Kong Cantonese Corpus (Luke and Wong 2015, CC BY 4.0), parts of speech",
        "runs/hkcancor",
        settings={"epochs": 5},
    )
    words: ClassVar = {
        "": Words(
            "",
            "Tag the words of sentences with a recurrent network: parts of speech, names, slots.",
            (
                "cellwise tag demo",
                "cellwise tag fit train.conll --valid dev.conll --out runs/tags",
                "cellwise tag predict runs/tags news.txt",
            ),
        ),
        "fit": Words(
            "Train on sentences with tags.",
            "Train on FILE and write a run folder with weights and report.html. Tags that mark entities (IOB1, IOB2, "
            "BIOES) are recognised.\n\nRun the same command again to resume an interrupted training.",
            (
                "cellwise tag fit train.conll",
                "cellwise tag fit train.conllu --tag-column XPOS --valid dev.conllu",
                "cellwise tag fit ner.txt --word-column 1 --tag-column 4 --cell lstm --minutes 10",
            ),
        ),
        "predict": Words(
            "Tag a text.",
            "Tag a text, or sentences in columns, and print a word and its tag a line. Running text is split into "
            "sentences and words first.",
            (
                "cellwise tag predict runs/train-gru news.txt",
                "cellwise tag predict runs/train-gru test.conll --out tagged.conll",
                "cellwise tag predict runs/train-gru - --json",
            ),
        ),
        "evaluate": Words(
            "Measure on sentences with tags.",
            "Measure accuracy over all words, those seen and those not seen in training, and precision, recall and F1: "
            "of entities as the script of CoNLL counts them, where tags mark entities, else means over the tags.",
            (
                "cellwise tag evaluate runs/train-gru test.conll",
                "cellwise tag evaluate runs/train-gru test.conll --json",
            ),
        ),
        "demo": Words(
            "Train on Cantonese conversations: two minutes.",
            "Train on the Hong Kong Cantonese Corpus, and measure on conversations that training never saw.",
            ("cellwise tag demo", "cellwise tag demo --cell lstm --out runs/cantonese"),
        ),
    }

    def read(self, estimator: SequenceTagger, source: str) -> Reading:
        """Sentences in columns; once the tagger is fitted, running text too."""
        from cellwise.tasks.tag.conll import name_of, read_conll, read_file
        from cellwise.tasks.tag.data import bundled, read_words

        layout = estimator.layout
        if source == BUNDLED and not Path(source).exists():
            sentences = bundled()
        elif estimator.is_fitted:
            sentences = read_words(read_file(source, layout), name_of(source), layout)
        else:
            sentences = read_conll(source, layout)
        return Reading(sentences, f"{len(sentences):,} sentences, {sentences.count:,} words")

    def learned(self, estimator: SequenceTagger) -> Answer:
        """The metrics beside those of the most frequent tag."""
        from cellwise.tasks.tag.report import measured_on, scores_of, shown_scores

        scores = scores_of(estimator)
        if scores is None:
            return Answer(
                None, remarks=("there are too few sentences to hold any out, so nothing can be measured",)
            )
        value = {
            "model": estimator.model_name,
            "held_out": "test" if estimator.is_test_ else "validation",
            "scores": scores,
        }
        return Answer(value, table=shown_scores(scores), remarks=(measured_on(estimator),))

    def predict(self, estimator: SequenceTagger, data: Any, **options: Any) -> Answer:
        """The sentences in columns, a word and its tag a line."""
        from cellwise.tasks.tag.conll import to_conll
        from cellwise.tasks.tag.data import words_of

        if data is None and estimator.held_out_ is None:
            raise TaskError("nothing was held out of the training to be tagged; name a file")
        data = estimator.held_out_ if data is None else data
        words = words_of(data)
        tags = estimator.predict(data)
        count = sum(map(len, words))
        text = to_conll(words, tags)

        def write(path: Path) -> str:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf8")
            return f"{count:,} words"

        value = [{"words": list(own), "tags": made} for own, made in zip(words, tags, strict=True)]
        speed = f", {estimator.speed_:,.0f} a second" if count >= TIMED else ""
        return Answer(value, text=text, write=write, remarks=(f"{count:,} words{speed}",))

    def evaluate(self, estimator: SequenceTagger, data: Any, **options: Any) -> Answer:
        """The metrics beside those of the most frequent tag."""
        from cellwise.tasks.tag.report import compared, shown_scores, unseen_tags

        scores = compared(estimator, data)
        value = {
            "model": estimator.model_name,
            **scores[estimator.model_name],
            "baseline": scores["most frequent tag"],
        }
        return Answer(value, table=shown_scores(scores), remarks=unseen_tags(estimator, data))
