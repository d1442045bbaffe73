"""The estimator: `SequenceTagger().fit("train.conll").predict([["The", "bird", "sings"]])`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from cellwise.tasks.errors import DataError
from cellwise.tasks.estimator import Estimator, Stored
from cellwise.tasks.tag import TASK
from cellwise.tasks.tag.baseline import MostFrequentTag
from cellwise.tasks.tag.blend import fit_blend
from cellwise.tasks.tag.chances import Tagging, tagged
from cellwise.tasks.tag.conll import Layout, Sentences
from cellwise.tasks.tag.crf import Chain
from cellwise.tasks.tag.data import Parts, TagPlan, TagTraining, as_sentences, hold_out, words_of
from cellwise.tasks.tag.linear import LinearTagger
from cellwise.tasks.tag.metrics import measure_tags
from cellwise.tasks.tag.network import TagNetwork, TagSizes
from cellwise.tasks.tag.objective import TagObjective
from cellwise.tasks.tag.options import TagOptions
from cellwise.tasks.tag.schemes import find_scheme
from cellwise.tasks.tag.stored import BONUS, TagData, restored, restored_bonus, stored
from cellwise.tasks.tag.tagging import (
    Scored,
    blended_chain,
    bonus_for,
    decide,
    favoured,
    scored,
    scored_by_linear,
)
from cellwise.tasks.tag.vocabulary import Forms, Lexicon, Ragged
from cellwise.tasks.training.loop import torch_threads
from cellwise.tasks.training.run_folder import DATA, WINDOWS, Checkpoint, RunFolder

__all__ = ["SequenceTagger"]

Tags = list[list[str]]
MOST_SCORES = 30_000_000  # words times tags of the training: beyond it the linear model would take minutes
# Epochs where nobody says how many: so that about so many words are read in all, within bounds.
EPOCH_WORDS, FEWEST_EPOCHS, MOST_EPOCHS = 300_000, 6, 40
BLENDED = 20_000  # words that the blend is fitted on, about


class SequenceTagger(TagOptions, Estimator[TagData, TagTraining]):
    """A recurrent network that gives each word of a sentence a tag: a part of speech, or the part of a name.

    Args: cell: the recurrent cell: a name (see `cellwise.cells.names()`), a class or an instance. word_column,
    tag_column, encoding: how files are read. embedding_size, vocabulary_size, character_size (0: no letters),
    hidden_size, num_layers, bidirectional, dropout: the network. branch: whether a linear model on features of words
    stands beside it. crf: choose the tags of a sentence together; None: where they mark entities. word_dropout: how
    often rare words are read as unknown in training. epochs, batch_size, learning_rate, weight_decay, patience, seed,
    threads, device, minutes, accumulate, autocast: the training.

    `fit` takes a file in CoNLL's columns, two lists of lists (words, tags), or one list of lists of (word, tag) pairs;
    `valid`, of the same kind, decides when to stop; without it every tenth sentence does, and every tenth is kept from
    both for measuring. Tags that mark entities (IOB1, IOB2, BIOES) are recognised, learned as BIOES, and given back as
    they came.

    What `fit` learns ends in an underscore: `network_`, `tags_` (as learned), `scheme_` (None if they mark no
    entities), `held_out_` (the sentences that it is measured on, None if too few), `entity_bonus_` (what is added to
    the score of each entity, for a high F1), `trained_` (the epochs)."""

    task = TASK.name
    metric = "accuracy"
    higher_is_better = True

    network_: TagNetwork
    tags_: tuple[str, ...]
    scheme_: str | None
    held_out_: Sentences | None
    speed_: float
    """Words a second of the last prediction."""
    entity_bonus_: float
    """What is added to the score of each entity when tags are chosen, so that F1 is high; 0 where none are marked."""
    _validation: Sentences | None = None  # by which the bonus is chosen

    def _read(self, data: Any, target: Any = None, valid: Any = None) -> tuple[TagData, TagTraining]:
        sentences = as_sentences(data, target, self.layout)
        if valid is None:
            parts = hold_out(sentences)
        else:
            words, tags = valid if isinstance(valid, tuple) and len(valid) == 2 else (valid, None)
            parts = Parts(sentences, as_sentences(words, tags, self.layout, "validation"), None)
        training = parts.training
        assert training.tags is not None
        plan = TagPlan(find_scheme(training.tags))
        learned = [plan.learned(each) for each in training.tags]
        lexicon = Lexicon.of(training.words, _all_tags(learned, plan), self.vocabulary_size)
        baseline = MostFrequentTag.of(training.words, training.tags)
        if len(lexicon.tags) < 2:
            raise DataError(f"all words have the tag {lexicon.tags[0]!r}; there is nothing to learn")
        measured = parts.validation if parts.test is None else parts.test
        forms, ids = Forms(lexicon, training.words), Ragged.of(map(lexicon.tag_ids, learned))
        linear = self._linear(forms, ids, lexicon, plan)
        known = TagData(
            lexicon, plan, baseline, linear, measured, parts.test is not None, _fingerprint(parts)
        )
        return known, TagTraining(forms, ids, parts.validation)

    @property
    def layout(self) -> Layout:
        """How files are read."""
        return Layout(self.word_column, self.tag_column, self.encoding)

    def _linear(self, forms: Forms, tags: Ragged, lexicon: Lexicon, plan: TagPlan) -> LinearTagger | None:
        """The linear model beside the network, fitted; None for none, or where it would take too long."""
        size = len(tags.values) * len(lexicon.tags)
        if self.branch == "none" or (self.branch == "auto" and size > MOST_SCORES):
            return None
        with torch_threads(self.threads):
            return LinearTagger.fit(
                forms, tags, lexicon.tags, crf=self._has_crf(plan), is_bioes=plan.has_entities
            )

    def _has_crf(self, plan: TagPlan) -> bool:
        return plan.has_entities if self.crf is None else self.crf

    def _network(self, data: TagData) -> TagNetwork:
        sizes = TagSizes(
            self.embedding_size,
            self.character_size,
            self.hidden_size,
            self.num_layers,
            self.bidirectional,
            self.dropout,
            self.word_dropout,
        )
        return TagNetwork(
            self._cell,
            data.lexicon,
            sizes,
            crf=self._has_crf(data.plan),
            is_bioes=data.plan.has_entities,
            is_blended=data.linear is not None,
        )

    def _objective(self, network: TagNetwork, data: TagData, training: TagTraining) -> TagObjective:
        self._validation = training.validation

        def validate() -> dict[str, float]:
            if training.validation is None:
                return {}
            self._blend(network, data, training.validation)
            found = self._measured(network, data, training.validation)
            return {name: found[name] for name in ("accuracy", "f1")}

        return TagObjective(
            network,
            training.forms,
            training.tags,
            validate,
            metric="f1" if data.plan.has_entities else "accuracy",
            batch_size=self.batch_size,
            seed=self.seed,
        )

    def _epochs(self, data: TagData, training: TagTraining) -> int:
        words = max(1, len(training.tags.values))
        return max(FEWEST_EPOCHS, min(MOST_EPOCHS, EPOCH_WORDS // words))

    def _store(self, data: TagData) -> Stored:
        return Stored(data.fingerprint, stored(data))

    def _restore(self, run: RunFolder, config: Mapping[str, Any]) -> TagData:
        tensors = run.read_tensors(DATA).tensors
        fingerprint = config["data"]
        if not isinstance(fingerprint, str):
            raise ValueError("its data has no fingerprint")
        return run.guarded(
            f"{DATA} does not hold what a tagger knows", lambda: restored(tensors, fingerprint)
        )

    def _learned(self, data: TagData) -> None:
        self.tags_, self.scheme_, self.held_out_ = data.lexicon.tags, data.plan.scheme, data.held_out
        self.entity_bonus_ = 0.0

    def _complete(self) -> tuple[str, ...]:
        """Choose the bonus of entities."""
        validation, self._validation = self._validation, None
        if validation is None or not self._data.plan.has_entities or self.network_.crf is None:
            return ()
        self.entity_bonus_ = bonus_for(self._measured(self.network_, self._data, validation)["f1"])
        if not self.entity_bonus_:
            return ()
        return (f"the score of an entity has a bonus of {self.entity_bonus_:.2f}, so that more are found",)

    def _completion(self) -> Mapping[str, Checkpoint]:
        if not self.entity_bonus_:
            return {}
        return {WINDOWS: Checkpoint({BONUS: torch.tensor(self.entity_bonus_, dtype=torch.float64)}, {})}

    def _restore_completion(self, run: RunFolder | None) -> tuple[str, ...]:
        if run is not None:  # runs of 0.8.0 have none
            tensors = run.read_tensors(WINDOWS).tensors
            self.entity_bonus_ = run.guarded(
                f"{WINDOWS} does not hold the bonus of entities", lambda: restored_bonus(tensors)
            )
        return ()

    def _notes(self, data: TagData) -> tuple[str, ...]:
        notes = []
        if data.plan.scheme is not None:
            notes.append(f"the tags mark entities ({data.plan.scheme})")
        if data.held_out is None:
            notes.append("nothing is held out, so training does not stop early")
        return tuple(notes)

    def _report(self, run: RunFolder) -> None:
        from cellwise.tasks.tag.report import write_report

        write_report(run, self)

    def _figures(self) -> dict[str, Any]:
        if self.held_out_ is None:
            return {}
        return {"held_out": "test" if self.is_test_ else "validation", "scores": self.measure(self.held_out_)}

    @property
    def is_test_(self) -> bool:
        """Whether neither training nor early stopping has seen `held_out_`."""
        self._check_fitted()
        return self._data.is_test

    def predict(self, data: Any) -> Tags:
        """Tags of each word of each sentence.

        data: a list of lists of words, or running text, which is split into sentences of words first."""
        self._check_fitted()
        words, start = words_of(data), time.perf_counter()
        with torch_threads(self.threads):
            made = self._predicted(self.network_, self._data, words, self.entity_bonus_)
        self.speed_ = sum(map(len, words)) / max(1e-9, time.perf_counter() - start)
        return made

    def tagged(self, sentences: Sentences) -> list[Tagging]:
        """Tags with their probabilities; those of the true tags too, where the sentences have them."""
        self._check_fitted()
        with torch_threads(self.threads):
            return list(
                tagged(
                    self.network_,
                    self._data.lexicon,
                    self._data.linear,
                    self._data.plan,
                    sentences,
                    self.entity_bonus_,
                )
            )

    def tagged_by_linear(self, sentences: Sentences) -> Tags | None:
        """Tags of the linear model alone; None if there is none beside the network."""
        self._check_fitted()
        data = self._data
        if data.linear is None:
            return None
        with torch_threads(self.threads):
            batches = scored_by_linear(data.linear, data.lexicon, sentences.words)
            return _decided(data, sentences.words, batches, torch.ones(2), data.linear.chain)

    def measure(self, data: Any, target: Any = None) -> dict[str, float]:
        """`accuracy`; that of words seen and not seen in training; `precision`, `recall`, `f1`: of entities as CoNLL's
        script counts them where tags mark entities, else means over the tags."""
        self._check_fitted()
        sentences = as_sentences(data, target, self.layout, "measuring")
        return score_tags(self._data, sentences, self.predict(sentences))

    def _measured(self, network: TagNetwork, data: TagData, sentences: Sentences) -> dict[str, float]:
        predicted = self._predicted(network, data, sentences.words)
        return score_tags(data, sentences, predicted)

    @staticmethod
    def _blend(network: TagNetwork, data: TagData, held: Sentences) -> None:
        """Fit how much the network and the linear model count, on some of what was held out."""
        if data.linear is None or held.tags is None:
            return
        share = max(1, held.count // BLENDED)
        words, tags = held.words[::share], held.tags[::share]
        ids = Ragged.of(data.lexicon.tag_ids(data.plan.learned(each)) for each in tags)
        batches = list(scored(network, data.lexicon, data.linear, words))
        chain = blended_chain(network, None, network.blend.new_tensor([1.0, 0.0]).cpu())
        network.blend.copy_(fit_blend(batches, ids, chain, data.linear.chain))

    @staticmethod
    def _predicted(
        network: TagNetwork, data: TagData, words: Sequence[Sequence[str]], bonus: float = 0.0
    ) -> Tags:
        weights = network.blend.cpu()
        chain = favoured(blended_chain(network, data.linear, weights), data.lexicon.tags, bonus)
        return _decided(data, words, scored(network, data.lexicon, data.linear, words), weights, chain)


def _decided(
    data: TagData,
    words: Sequence[Sequence[str]],
    batches: Iterable[Scored],
    weights: torch.Tensor,
    chain: Chain | None,
) -> Tags:
    """The best tags of each sentence, in the scheme that the data came in."""
    made: Tags = [[] for _ in words]
    for batch in batches:
        best = decide(batch, weights, chain)
        for number, ids, length in zip(batch.numbers, best.T.tolist(), batch.lengths.tolist(), strict=True):
            made[number] = data.plan.restored([data.lexicon.tags[i] for i in ids[:length]])
    return made


def score_tags(data: TagData, sentences: Sentences, predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """The metrics of any predicted tags of some sentences."""
    assert sentences.tags is not None
    return measure_tags(
        sentences.words, sentences.tags, predicted, data.lexicon.knows, data.plan.has_entities
    )


def _all_tags(learned: Sequence[Sequence[str]], plan: TagPlan) -> set[str]:
    """The tags of the training sentences, and for each type of entity all four of BIOES."""
    tags = {tag for each in learned for tag in each}
    if plan.has_entities:
        tags |= {letter + tag[1:] for tag in tags if tag != "O" for letter in "BIES"}
    return tags


def _fingerprint(parts: Parts) -> str:
    """A digest of all sentences, one after the other: no second copy of a large corpus."""
    digest = hashlib.sha256()
    for each in (parts.training, parts.validation, parts.test):
        digest.update(b"none" if each is None else f"{len(each)}".encode("ascii"))
        for row in () if each is None else zip(each.words, each.tags or (), strict=True):
            digest.update(json.dumps(row).encode("ascii"))
    return digest.hexdigest()
