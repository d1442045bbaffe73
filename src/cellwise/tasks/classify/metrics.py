"""How good predictions are: of classes by their probabilities, of numbers by their errors."""

from __future__ import annotations

import numpy as np

__all__ = ["by_class", "calibration_error", "class_metrics", "confusion", "number_metrics", "reliability"]

SMALLEST = 1e-15  # a probability below it counts as this much: the logarithm of none is not finite
BINS = 10


def class_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Of probabilities (N, C) and classes (N,): accuracy, macro_f1, log_loss (nats), calibration_error.

    Macro F1 is the mean over the classes that occur, in the labels or among the predictions, as scikit-learn counts."""
    chosen = probabilities.argmax(axis=1)
    right = probabilities[np.arange(len(labels)), labels]
    return {
        "accuracy": float((chosen == labels).mean()),
        "macro_f1": macro_f1(confusion(chosen, labels, probabilities.shape[1])),
        "log_loss": float(-np.log(np.clip(right, SMALLEST, None)).mean()),
        "calibration_error": calibration_error(probabilities, labels),
    }


def confusion(chosen: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """How often class r was called c, int64 (C, C)."""
    return np.bincount(labels * classes + chosen, minlength=classes * classes).reshape(classes, classes)


def by_class(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each class (C,) from a confusion (C, C); 0 where there is nothing to divide by."""
    right, said, true = np.diag(table).astype(float), table.sum(axis=0), table.sum(axis=1)
    precision = np.divide(right, said, out=np.zeros_like(right), where=said > 0)
    recall = np.divide(right, true, out=np.zeros_like(right), where=true > 0)
    both = said + true
    f1 = np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)
    return precision, recall, f1


def macro_f1(table: np.ndarray) -> float:
    """The mean F1 over the classes that occur in a confusion (C, C)."""
    occurs = table.sum(axis=0) + table.sum(axis=1) > 0
    return float(by_class(table)[2][occurs].mean())


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By tenths of confidence (the probability of the chosen class): mean confidence, share that was right, count.

    Only tenths that hold something are there."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    held = count > 0
    mean = np.bincount(bins, confidence, BINS)[held] / count[held]
    share = np.bincount(bins, right, BINS)[held] / count[held]
    return mean, share, count[held]


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean difference of confidence and share of right answers over ten bins, weighted by their counts (expected
    calibration error, Naeini et al. 2015)."""
    mean, share, count = reliability(probabilities, labels)
    return float((np.abs(mean - share) * count).sum() / count.sum())


def number_metrics(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Of numbers (N,): mean_absolute_error, root_mean_squared_error, r2 (0 is what always saying the mean is worth)."""
    error = predicted - truth
    spread = float(((truth - truth.mean()) ** 2).sum())
    return {
        "mean_absolute_error": float(np.abs(error).mean()),
        "root_mean_squared_error": float(np.sqrt((error**2).mean())),
        "r2": 1 - float((error**2).sum()) / spread if spread else float("nan"),
    }
