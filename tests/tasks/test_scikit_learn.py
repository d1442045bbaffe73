"""scikit-learn's tools take our estimators: copies, parameters, scores, searches, pipelines."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from cellwise import cells
from cellwise.tasks import CharacterModel, Forecaster
from cellwise.tasks.errors import DataError
from cellwise.tasks.registry import tasks

TEXTS = ["abcabcabd" * 80, "abdabdabd" * 80, "abcabcabc" * 80, "abdabcabd" * 80]
SERIES = [50 + 10 * np.sin(2 * np.pi * np.arange(60 + i) / 7 + i) for i in range(4)]


def model(**options: object) -> CharacterModel:
    small = {"hidden_size": 4, "embedding_size": 4, "epochs": 1, "length": 27, "batch_size": 4}
    return CharacterModel(**small | options)


def forecaster(**options: object) -> Forecaster:
    small = {"horizon": 3, "hidden_size": 4, "epochs": 1, "validation": 1, "season_length": 7}
    return Forecaster(**small | options)


@pytest.mark.parametrize("task", tasks().values(), ids=lambda task: task.name)
def test_a_clone_has_the_same_parameters_and_nothing_learned(task) -> None:
    estimator = task.load_estimator()(cells.LSTM, hidden_size=5)
    copy = clone(estimator)
    assert copy is not estimator and type(copy) is type(estimator)
    assert copy.get_params() == estimator.get_params()
    assert not copy.is_fitted


def test_a_clone_of_what_was_fitted_is_not_fitted() -> None:
    fitted = model().fit(TEXTS)
    check_is_fitted(fitted)
    with pytest.raises(SklearnNotFittedError):
        check_is_fitted(clone(fitted))


def test_score_is_the_metric_with_its_sign_turned() -> None:
    fitted = model().fit(TEXTS)
    assert fitted.score(TEXTS[:2]) == -fitted.evaluate("\n".join(TEXTS[:2]))
    assert fitted.measure(TEXTS[0])["perplexity"] == pytest.approx(2 ** fitted.evaluate(TEXTS[0]))


def test_cross_validation_splits_a_list_of_texts() -> None:
    scores = cross_val_score(model(), TEXTS, cv=2)
    by_hand = [
        model().fit(TEXTS[2:]).score(TEXTS[:2]),
        model().fit(TEXTS[:2]).score(TEXTS[2:]),
    ]
    assert scores.tolist() == by_hand


def test_cross_validation_splits_a_list_of_series() -> None:
    scores = cross_val_score(forecaster(), SERIES, cv=2)
    assert scores.tolist() == [
        forecaster().fit(SERIES[2:]).score(SERIES[:2]),
        forecaster().fit(SERIES[:2]).score(SERIES[2:]),
    ]
    assert (scores < 0).all()


def test_a_grid_search_finds_the_better_cell_and_size() -> None:
    grid = {"hidden_size": np.array([1, 12]), "cell": ["gru", cells.LSTM()]}
    found = GridSearchCV(model(epochs=6, learning_rate=0.02), grid, cv=2).fit(TEXTS)
    assert found.best_params_["hidden_size"] == 12
    assert type(found.best_estimator_.hidden_size) is int
    assert found.score(TEXTS) == found.best_estimator_.score(TEXTS)
    assert set("abcd\n") < set(found.predict("abcab"))


def test_a_pipeline_ends_in_one() -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    shouted = [text.upper() for text in TEXTS]
    pipeline = Pipeline([("lower", lower), ("model", model())]).fit(shouted)
    assert pipeline.score(shouted) == model().fit(TEXTS).score(TEXTS)
    found = GridSearchCV(pipeline, {"model__hidden_size": [2, 4]}, cv=2).fit(shouted)
    assert found.best_estimator_.named_steps["model"].is_fitted


def test_a_list_of_arrays_is_a_table_of_numbered_series() -> None:
    made = forecaster().fit(SERIES).predict()
    assert made["unique_id"].to_list() == [i for i in range(4) for _ in range(3)]
    assert made["ds"].to_list() == [60 + i + step for i in range(4) for step in range(3)]
    with_a_gap = [np.where(np.arange(len(y)) == 9, np.nan, y) for y in SERIES]
    assert forecaster().fit(with_a_gap).predict()["GRU"].is_finite().all()


@pytest.mark.parametrize(
    ("data", "options", "sentence"),
    [
        ([], {}, "the list of arrays is empty"),
        ([np.zeros((3, 2))], {}, r"series 0 of the list must be one row of numbers, not of shape \(3, 2\)"),
        ([[1.0, 2.0], "abc"], {}, "series 1 of the list is no array of numbers but str"),
        (SERIES, {"past": ["rain"]}, "a list of arrays holds no covariates"),
    ],
)
def test_lists_that_are_no_series(data, options, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        forecaster(**options).fit(data)


@pytest.mark.parametrize("data", [3, ["abc", 3], None])
def test_what_is_no_text_is_said(data) -> None:
    with pytest.raises(DataError, match="a text, a list of texts, or the Path of a file is needed, not"):
        model().fit(data)


def test_what_fit_does_not_take_is_said() -> None:
    with pytest.raises(TypeError, match=r"CharacterModel.fit takes no 'target'"):
        model().fit(TEXTS, TEXTS)
    with pytest.raises(TypeError, match=r"Forecaster.fit takes no 'target'"):
        forecaster().fit(SERIES, [1, 2])
