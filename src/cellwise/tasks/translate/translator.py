"""The estimator: `Translator().fit("train.tsv").predict(["In the beginning"])`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from cellwise.tasks.comparable import HeldOut
from cellwise.tasks.data.optional import require
from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.estimator import Estimator, Stored
from cellwise.tasks.training.loop import torch_threads
from cellwise.tasks.training.run_folder import DATA, WINDOWS, Checkpoint, RunFolder
from cellwise.tasks.translate import TASK
from cellwise.tasks.translate.allowed import Allowed, Texts
from cellwise.tasks.translate.batches import Languages, Row
from cellwise.tasks.translate.choosing import asked_for_attention, languages_of
from cellwise.tasks.translate.known import TranslateData, fingerprint_of, rebuilt, stored
from cellwise.tasks.translate.memory import Memory, rebuilt_memory, stored_memory
from cellwise.tasks.translate.metrics import PACKAGE, are_metrics, measure_texts
from cellwise.tasks.translate.network import END, TranslateNetwork, TranslateSizes
from cellwise.tasks.translate.objective import TranslateObjective, counted
from cellwise.tasks.translate.options import BEAM, GENERAL, MONOTONE, TranslateOptions
from cellwise.tasks.translate.pairs import Parts, TextPairs, as_pairs, hold_out, texts_of
from cellwise.tasks.translate.translating import Search, Translation, translations_of
from cellwise.tasks.translate.validation import Validation

__all__ = ["Translation", "Translator"]

PENALTIES = (1.0, 1.2, 0.8, 1.4, 0.6, 1.7)  # of length, the usual one first
MOST_CHOOSING = 200  # pairs of the validation by which one is chosen, about


@dataclass(frozen=True)
class TranslateTraining:
    """Rows to learn from, the texts that they came from, and pairs to validate on."""

    rows: list[Row]
    pairs: TextPairs
    validation: TextPairs | None


class Translator(TranslateOptions, Estimator[TranslateData, TranslateTraining]):
    """A recurrent network that reads a text and writes another: a translation, a pronunciation, a normal form.

    Args: cell: the recurrent cell: a name (see `cellwise.cells.names()`), a class or an instance. source_unit,
    target_unit: "words", "symbols", "characters" or "subwords"; None: what suits the texts. vocabulary_size, joint,
    longest: the vocabularies. attention ("dot", "general", "additive", "monotone"), coverage, input_feeding,
    embedding_size, hidden_size, num_layers, upper_layers, copy, lexicon, tied: the network. memory: whether the pairs
    of the training are kept and looked up. guide: how much its attention is told by IBM model 1. dropout, word_dropout,
    sampling, smoothing: its regularisation. watch: the metric that decides when to stop. epochs, batch_size,
    learning_rate, weight_decay, patience, seed, threads, device, minutes, accumulate, autocast: the training.

    `fit` takes a file with a source, a tab and a target a line, a list of (source, target), or two lists (or two
    aligned files); `valid`, of the same kind, decides when to stop; without it every tenth source does, and every tenth
    is kept from both for measuring. A source may stand there with several targets.

    What `fit` learns ends in an underscore: `network_`, `languages_` (the vocabularies), `held_out_` (the pairs that it
    is measured on, None if too few), `memory_` (the pairs that it looks up, or None), `length_penalty_` (what was best
    in validation), `trained_` (the epochs)."""

    task = TASK.name
    metric = "chrf"
    higher_is_better = True
    measured_by = ("source_unit", "target_unit", "watch")

    network_: TranslateNetwork
    languages_: Languages
    held_out_: TextPairs | None
    memory_: Memory | None
    length_penalty_: float
    _training: TextPairs | None = None
    _choosing: TextPairs | None = None
    _baselines: dict[str, dict[str, float]] | None = None
    _scores: dict[str, dict[str, float]] | None = None
    _translated: list[str] | None = None

    def check_options(self, **how: Any) -> None:
        """As every estimator does; and one vocabulary needs one unit."""
        super().check_options(**how)
        if self.joint and self.source_unit != self.target_unit:
            raise OptionError(
                f"joint asks for one vocabulary, but source_unit is {self.source_unit} and target_unit "
                f"{self.target_unit}; give both the same unit"
            )
        asked = asked_for_attention(self)
        if self.attention == MONOTONE and asked:
            raise OptionError(
                f"attention {MONOTONE} takes each piece of the source in its turn; leave out {' and '.join(asked)}, or "
                "give another attention"
            )

    def _read(
        self, data: Any, target: Any = None, valid: Any = None
    ) -> tuple[TranslateData, TranslateTraining]:
        require("sacrebleu", PACKAGE)  # what measures; better missed now than after the training
        pairs = as_pairs(data, target)
        if valid is None:
            parts = hold_out(pairs)
        else:
            sources, targets = valid if isinstance(valid, tuple) and len(valid) == 2 else (valid, None)
            parts = Parts(pairs, as_pairs(sources, targets, "validation"), None)
        training = parts.training
        languages = languages_of(self, training)
        found = languages.pairs(training)
        kept = [n for n, row in found.items() if max(len(row.source), len(row.target)) <= self.longest + 1]
        if not kept:
            raise DataError(f"all pairs are longer than longest = {self.longest:,} pieces")
        rows = [found[number] for number in kept]
        ratio = sum(len(row.target) for row in rows) / sum(len(row.source) for row in rows)
        held = parts.validation if parts.test is None else parts.test
        known = TranslateData(
            languages, ratio, held, parts.test is not None, len(training) - len(kept), fingerprint_of(parts)
        )
        return known, TranslateTraining(rows, training.rows(kept), parts.validation)

    def _network(self, data: TranslateData) -> TranslateNetwork:
        languages = data.languages
        sizes = TranslateSizes(
            len(languages.source),
            len(languages.target),
            self.embedding_size,
            self.hidden_size,
            self.num_layers,
            self.upper_layers,
            MONOTONE if languages.monotone else self.attention or GENERAL,
            self.copy,
            self.tied,
            languages.are_joint,
            self.dropout,
            self.word_dropout,
            self.smoothing,
            self.guide,
            self.lexicon,
            self.coverage,
            self.input_feeding,
        )
        return TranslateNetwork(self._cell, sizes)

    def _objective(
        self, network: TranslateNetwork, data: TranslateData, training: TranslateTraining
    ) -> TranslateObjective:
        self._training, self._baselines, self._scores = training.pairs, None, None
        watched = self.watch or ("chrf" if data.languages.are_sentences else "symbol_error_rate")
        validate = Validation(network, data, training.validation, watched)
        self._choosing = validate.some(MOST_CHOOSING)
        words = (
            counted(training.rows, len(data.languages.target))
            if (self.guide and not data.languages.monotone) or network.lexicon is not None
            else None
        )
        if words is not None and network.lexicon is not None:
            network.lexicon.learn(words, END)
        return TranslateObjective(
            network,
            training.rows,
            validate,
            words=words,
            guided=self.guide > 0 and not data.languages.monotone,
            sampling=self.sampling,
            metric=watched,
            batch_size=self.batch_size,
            seed=self.seed,
        )

    def _store(self, data: TranslateData) -> Stored:
        return Stored(data.fingerprint, {"text": stored(data)})

    def _restore(self, run: RunFolder, config: Mapping[str, Any]) -> TranslateData:
        tensors = run.read_tensors(DATA).tensors
        fingerprint = config["data"]
        if not isinstance(fingerprint, str):
            raise ValueError("its data has no fingerprint")
        return run.guarded(
            f"{DATA} does not hold what a translator knows", lambda: rebuilt(tensors, fingerprint)
        )

    @classmethod
    def _loaded(cls, run: RunFolder, config: dict[str, Any]) -> Self:
        made = super()._loaded(run, config)
        found = run.summary().get("scores") if run.is_finished else None
        if isinstance(found, dict) and all(are_metrics(own) for own in found.values()):
            made._baselines = {name: own for name, own in found.items() if name != made.model_name}
        return made

    def _learned(self, data: TranslateData) -> None:
        self.languages_, self.held_out_ = data.languages, data.held_out
        self.memory_, self.length_penalty_ = None, PENALTIES[0]
        self._translated = None

    def _complete(self) -> tuple[str, ...]:
        """Learn how much the memory counts, then choose the length penalty by the validation: the largest sum of BLEU
        and chrF, or the least of errors."""
        pairs, self._choosing = self._choosing, None
        if pairs is None or self.languages_.monotone:  # all translations of a source have as many steps
            return ()
        notes = self._remember(pairs)

        def quality(penalty: float) -> float:
            made = self.predict(pairs.sources, length_penalty=penalty)
            found = self._measured_texts(pairs, made)
            if self.languages_.are_sentences:
                return found["bleu"] + found["chrf"]
            return -found["word_error_rate"] - found["symbol_error_rate"]

        self.length_penalty_ = max(PENALTIES, key=quality)
        return notes

    def _remember(self, validation: TextPairs) -> tuple[str, ...]:
        if not self.memory or not self.languages_.are_sentences or self._training is None:
            return ()
        with torch_threads(self.threads):
            learned = Memory.learn(self.network_, self.languages_, self._training, validation)
        if learned is None:
            return ()
        self.memory_, gain = learned
        return (
            f"translations look into a memory of {len(self.memory_.pairs):,} pairs: {gain.mixed:.3f} nats a piece of "
            f"the validation, {gain.alone:.3f} without it",
        )

    def _completion(self) -> Mapping[str, Checkpoint]:
        found = {"search": torch.tensor(self.length_penalty_, dtype=torch.float64)}
        if self.memory_ is not None:
            found |= stored_memory(self.memory_)
        return {WINDOWS: Checkpoint(found, {})}

    def _restore_completion(self, run: RunFolder | None) -> tuple[str, ...]:
        if run is None:
            return ()
        tensors = run.read_tensors(WINDOWS).tensors
        chosen = tensors.get("search")
        if chosen is None or chosen.shape or not 0 <= float(chosen) <= 10:
            raise run.damaged(f"{WINDOWS} does not say how length counts")
        self.length_penalty_ = float(chosen)
        self.memory_ = run.guarded(
            f"{WINDOWS} does not hold a memory of pairs",
            lambda: rebuilt_memory(tensors, self.network_, self.languages_),
        )
        return ()

    def _notes(self, data: TranslateData) -> tuple[str, ...]:
        notes = [data.languages.about]
        if data.left_out:
            or_uncut = ", or whose target its source cannot write in turn," if data.languages.monotone else ""
            notes.append(
                f"{data.left_out:,} pairs of more than {self.longest:,} pieces{or_uncut} are not learned from"
            )
        if data.held_out is None:
            notes.append("nothing is held out, so training does not stop early")
        return tuple(notes)

    @property
    def baselines_(self) -> dict[str, dict[str, float]]:
        """Simple method -> its metrics on what was held out: copy, translation memory, IBM model 1, which have learned
        from the same pairs. Empty if nothing was held out."""
        self._check_fitted()
        if self._baselines is None:
            from cellwise.tasks.translate.report import beside

            known = self._training is not None and self.held_out_ is not None
            self._baselines = beside(self, self._training, self.held_out_) if known else {}  # type: ignore[arg-type]
            self._training = None  # the texts are needed no more
        return self._baselines

    def _figures(self) -> dict[str, Any]:
        if self.held_out_ is None:
            return {}
        from cellwise.tasks.translate.report import compared

        if self._scores is None:
            self._scores = compared(self)
        return {"held_out": "test" if self.is_test_ else "validation", "scores": self._scores}

    def _report(self, run: RunFolder) -> None:
        from cellwise.tasks.translate.report import write_report

        write_report(run, self)

    def held_out_translations(self) -> list[str]:
        """What it makes of the sources that were held out, of which there are some. Written once: it takes longer than
        an epoch where thousands are held out."""
        assert self.held_out_ is not None
        if self._translated is None:
            self._translated = self.predict(self.held_out_)
        return self._translated

    @property
    def is_test_(self) -> bool:
        """Whether neither training nor early stopping has seen `held_out_`."""
        self._check_fitted()
        return self._data.is_test

    def predict(
        self,
        data: Any,
        *,
        beam: int = BEAM,
        length_penalty: float | None = None,
        memory: bool = True,
        allow: Texts | None = None,
        among: Texts | None = None,
    ) -> list[str]:
        """The translation of each text of a list.

        beam: translations that are followed side by side; 1 takes the most likely word each time. length_penalty: a
        log-probability is divided by the length to the power of this; None: `length_penalty_`. memory: whether
        `memory_` is looked into. allow: texts that
        translations are put together from; among: texts that they are one of; a list for all sources, or a mapping from
        sources to theirs."""
        how: dict[str, Any] = {"memory": memory, "allow": allow, "among": among}
        return [
            each[0].text for each in self.translations(data, beam=beam, length_penalty=length_penalty, **how)
        ]

    def translations(
        self,
        data: Any,
        *,
        beam: int = BEAM,
        n_best: int = 1,
        length_penalty: float | None = None,
        memory: bool = True,
        allow: Texts | None = None,
        among: Texts | None = None,
    ) -> list[list[Translation]]:
        """The best translations of each text, at most `n_best`, with scores and alignments; for the other arguments see
        `predict`. Raises DataError if the network can write nothing of what is allowed."""
        self._check_fitted()
        if n_best > beam:
            raise OptionError(f"n_best = {n_best} translations need a beam of at least as many, not {beam}")
        if self.languages_.monotone and (allow is not None or among is not None):
            raise OptionError(
                f"this translator takes each piece of a source in its turn, and then what may be written cannot be "
                f"given; train one with attention {GENERAL} for that"
            )
        if allow is not None and among is not None:
            raise OptionError(
                "translations are put together from `allow` or one of `among`; give one of the two"
            )
        texts, allowed = allow if among is None else among, None
        if texts is not None:
            allowed = Allowed(texts, self.languages_, whole=among is not None)
        penalty = self.length_penalty_ if length_penalty is None else length_penalty
        search = Search(beam, n_best, penalty, allowed, memory=self.memory_ if memory else None)
        with torch_threads(self.threads):
            return translations_of(self.network_, self._data, texts_of(data), search)

    def measure(
        self,
        data: Any,
        target: Any = None,
        *,
        beam: int = BEAM,
        length_penalty: float | None = None,
        memory: bool = True,
        allow: Texts | None = None,
        among: Texts | None = None,
    ) -> dict[str, float]:
        """`bleu`, `chrf`, `word_error_rate`, `symbol_error_rate` and `exact_match` on pairs; see
        `cellwise.tasks.translate.metrics.measure_texts`, and for how translations are searched for, `predict`."""
        self._check_fitted()
        pairs = as_pairs(data, target, "measuring")
        how: dict[str, Any] = {"memory": memory, "allow": allow, "among": among}
        made = self.predict(pairs.sources, beam=beam, length_penalty=length_penalty, **how)
        return self._measured_texts(pairs, made)

    def _measured_texts(self, pairs: TextPairs, made: Sequence[str]) -> dict[str, float]:
        return measure_texts(pairs, made, by_letter=self.languages_.target.unit == "characters")

    def _held_out_figures(self) -> HeldOut | None:
        if self.held_out_ is None:
            return None
        words = f"{len(self.held_out_):,} pairs"
        own = self._measured_texts(self.held_out_, self.held_out_translations())
        return HeldOut(own, words, self.is_test_, self.baselines_)
