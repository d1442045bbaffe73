"""Classifiers on the parts of plain files: trained on train.csv, stopped by valid.csv, measured on test.csv.

    python benchmarks/classification.py FOLDER [--sets digits8x8,movie] [--seeds 3] [--part test] [--out figures.json]

FOLDER holds a folder for each set, series-NAME or sentiment-NAME. `floor` and `goal` are what the project set itself,
`other` is the best figure of other software on the same parts, measured elsewhere. `linear` is the model that the
command fits beside the network, `network` the network's own part of the blend, `ours` the answer: mean accuracy over
the seeds, ± half the range. Settings are the defaults: nothing here is chosen by the test part. With --part valid
nothing of the test part is read; what is printed has then decided when to stop.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from cellwise.tasks import SequenceClassifier
from cellwise.tasks.classify.objective import Encoded, outputs_of

# floor and goal of the accuracy; other software, and its figure
GOALS = {
    "series-JapaneseVowels": (0.975, 0.987, "packed BiGRU", 0.984),
    "series-BasicMotions": (0.975, 1.0, "MiniRocket", 1.0),
    "series-digits8x8": (0.92, 0.95, "MiniRocket", 0.944),
    "sentiment-movie": (0.80, 0.835, "NB-SVM", 0.830),
    "sentiment-tweets3": (0.74, 0.77, "TF-IDF, logistic", 0.762),
}


HEAD = "set                    floor  goal   other                   linear  network  ours             F1     loss   s"
MEANS = ("linear", "network", "macro_f1", "log_loss", "seconds")


@dataclass(frozen=True)
class Run:
    """Figures of a training: accuracies, of the answer also macro F1 and log loss; its processor seconds."""

    set: str
    seed: int
    ours: float
    network: float
    linear: float
    macro_f1: float
    log_loss: float
    seconds: float


def measured(folder: Path, part: str, seed: int) -> Run:
    """Train on a set and measure on one of its parts."""
    began = time.process_time()
    model = SequenceClassifier(seed=seed)
    model.fit(folder / "train.csv", valid=folder / "valid.csv", progress=False)
    seconds = time.process_time() - began
    examples = model.read(folder / f"{part}.csv")
    figures, known = model.measure(examples), model._data
    labels = known.targets.encode(examples, "the training")
    alone = outputs_of(model.network_, Encoded(known.encode(examples), torch.from_numpy(labels)))
    network = float((alone.argmax(1).numpy() == labels).mean())
    linear = model.measure_linear(examples)["accuracy"]
    return Run(
        folder.name,
        seed,
        figures["accuracy"],
        network,
        linear,
        figures["macro_f1"],
        figures["log_loss"],
        seconds,
    )


def row(runs: list[Run]) -> str:
    """The line of a set."""
    floor, goal, other, figure = GOALS[runs[0].set]
    ours = [run.ours for run in runs]
    mean = {name: float(np.mean([getattr(run, name) for run in runs])) for name in MEANS}
    about = f"{runs[0].set:22} {floor:.3f}  {goal:.3f}  {figure:.3f} {other:17}"
    own = f"{np.mean(ours):.4f} ± {np.ptp(ours) / 2:.4f}"
    rest = f"{mean['macro_f1']:.3f}  {mean['log_loss']:.3f}  {mean['seconds']:5.0f}"
    return f"{about} {mean['linear']:.3f}   {mean['network']:.3f}    {own}  {rest}"


def main() -> None:
    """Train on each set with each seed, print a line a set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", help="names or parts of names, with commas; all of them by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", choices=("test", "valid"), default="test")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    wanted = [each for each in (options.sets or "").split(",") if each]
    runs: list[Run] = []
    print(HEAD)
    for name in GOALS:
        if wanted and not any(each in name for each in wanted):
            continue
        own = [measured(options.folder / name, options.part, seed) for seed in range(options.seeds)]
        runs += own
        print(row(own), flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps([asdict(run) for run in runs], indent=1))


if __name__ == "__main__":
    main()
