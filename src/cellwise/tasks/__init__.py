"""Estimators that train recurrent networks on a person's own sequences, each loaded when first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellwise.tasks.classify.estimator import SequenceClassifier
    from cellwise.tasks.classify.regressor import SequenceRegressor
    from cellwise.tasks.comparing.compare import compare
    from cellwise.tasks.forecasting.forecaster import Forecaster
    from cellwise.tasks.speech.recognizer import SpeechRecognizer
    from cellwise.tasks.tag.tagger import SequenceTagger
    from cellwise.tasks.text.model import CharacterModel, LanguageModel
    from cellwise.tasks.translate.translator import Translator
    from cellwise.tasks.tuning.search import tune

__all__ = [
    "CharacterModel", "Forecaster", "LanguageModel", "SequenceClassifier", "SequenceRegressor", "SequenceTagger",
    "SpeechRecognizer", "Translator", "compare", "tune",
]  # fmt: skip

# name -> module that defines it
_HOMES = {
    "CharacterModel": "cellwise.tasks.text.model",
    "Forecaster": "cellwise.tasks.forecasting.forecaster",
    "LanguageModel": "cellwise.tasks.text.model",
    "SequenceClassifier": "cellwise.tasks.classify.estimator",
    "SequenceRegressor": "cellwise.tasks.classify.regressor",
    "SequenceTagger": "cellwise.tasks.tag.tagger",
    "SpeechRecognizer": "cellwise.tasks.speech.recognizer",
    "Translator": "cellwise.tasks.translate.translator",
    "compare": "cellwise.tasks.comparing.compare",
    "tune": "cellwise.tasks.tuning.search",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
