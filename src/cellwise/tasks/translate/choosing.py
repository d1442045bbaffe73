"""What the vocabularies of a translator are, and whether sources write their targets in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cellwise.tasks.errors import OptionError
from cellwise.tasks.translate.batches import Languages
from cellwise.tasks.translate.options import MONOTONE, TranslateOptions
from cellwise.tasks.translate.pairs import TextPairs
from cellwise.tasks.translate.vocabulary import Vocabulary, choose_unit

__all__ = ["asked_for_attention", "languages_of"]


def languages_of(asked: TranslateOptions, pairs: TextPairs) -> Languages:
    """The vocabularies that suit the pairs of a training, or that were asked for."""
    source = asked.source_unit or choose_unit(pairs.sources)
    target = asked.target_unit or choose_unit(pairs.targets)
    if asked.joint is None:
        joint = source == target == "subwords"
    else:
        joint = asked.joint
    if joint and source != target:
        target = source
    in_turn = _in_turn(asked, pairs, source, target)
    if in_turn is not None:
        return in_turn
    if joint:
        texts = [*pairs.sources, *pairs.targets]
        both = Vocabulary.learn(texts, source, _size_for(asked, texts, source))
        return Languages(both, both, asked.copy)
    sizes = _size_for(asked, pairs.sources, source), _size_for(asked, pairs.targets, target)
    return Languages(
        Vocabulary.learn(pairs.sources, source, sizes[0]),
        Vocabulary.learn(pairs.targets, target, sizes[1]),
        asked.copy,
    )


def _in_turn(asked: TranslateOptions, pairs: TextPairs, source: str, target: str) -> Languages | None:
    """The vocabularies of a monotone translator, if it is to be one."""
    anyway = asked.attention == MONOTONE
    if not anyway and (asked.attention is not None or asked_for_attention(asked)):
        return None
    if not {source, target} <= {"symbols", "characters"}:
        if not anyway:
            return None
        raise OptionError(
            f"attention {MONOTONE} is for letters and sounds, but sources are cut into {source} and targets into "
            f"{target}; give source_unit and target_unit characters or symbols, or another attention"
        )
    known = Vocabulary.learn(pairs.sources, source, _size_for(asked, pairs.sources, source))
    return Languages.in_turn(known, target, pairs, asked.copy, anyway)


def asked_for_attention(asked: TranslateOptions) -> list[str]:
    """The options that are set and make sense only where the network has to look for its place."""
    return [name for name in ("joint", "lexicon", "coverage", "input_feeding") if getattr(asked, name)]


def _size_for(asked: TranslateOptions, texts: Sequence[str], unit: str) -> int:
    """The size of a vocabulary: of subwords the larger, the more text there is."""
    if asked.vocabulary_size is not None:
        return asked.vocabulary_size
    if unit != "subwords":
        return 16_000
    words = sum(len(text.split()) for text in texts)
    return int(min(8000, max(1000, 6 * math.sqrt(words))))
