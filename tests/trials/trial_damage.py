"""Damage to every file of a run: is each one sentence, or without effect?

python tests/trials/trial_damage.py [BITS]
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))

from damage import WRONG, flip_bit, forge_checksums, places_of, rewrite_json
from trial_faults import characters, forecast

from cellwise.tasks import CharacterModel, Forecaster
from cellwise.tasks.errors import RunFolderError

FILES = (
    "config.json",
    "data.safetensors",
    "last.safetensors",
    "best.safetensors",
    "metrics.csv",
    "summary.json",
)
Answer = Callable[[Path], object]


def forecast_answer(run: Path) -> object:
    return Forecaster.load(run).predict().rows()


def characters_answer(run: Path) -> object:
    return CharacterModel.load(run).logits("the fox").tolist()


def outcome(answer: Answer, run: Path, whole: object) -> str:
    try:
        now = answer(run)
    except RunFolderError as error:
        return "one sentence" if "\n" not in str(error) else "several lines"
    except Exception as error:  # noqa: BLE001 (the trial looks for these)
        print(f"  {type(error).__name__}: {error}")
        return "traceback"
    return "the same forecast" if now == whole else "another forecast"


def bits(answer: Answer, run: Path, count: int) -> Counter[str]:
    """Turned bits and cut files."""
    whole, generator, ends = answer(run), random.Random(0), Counter[str]()
    for name in FILES:
        content = (run / name).read_bytes()
        for bit in generator.sample(range(8 * len(content)), min(count, 8 * len(content))):
            flip_bit(run / name, bit)
            ends[outcome(answer, run, whole)] += 1
            (run / name).write_bytes(content)
        for _ in range(count // 10):
            (run / name).write_bytes(content[: generator.randrange(len(content))])
            ends[outcome(answer, run, whole)] += 1
            (run / name).write_bytes(content)
    return ends


def settings(answer: Answer, run: Path) -> Counter[str]:
    """Every value of config.json in turn replaced or left out, with checksums that are right."""
    whole, ends = answer(run), Counter[str]()
    content = (run / "config.json").read_bytes()
    for place in places_of(json.loads(content)):
        if place == ("sha256",):
            continue
        rewrite_json(run / "config.json", {}, drop=place)
        forge_checksums(run)
        ends[outcome(answer, run, whole)] += 1
        (run / "config.json").write_bytes(content)
        for value in WRONG:
            rewrite_json(run / "config.json", {place: value})
            forge_checksums(run)
            ends[outcome(answer, run, whole)] += 1
            (run / "config.json").write_bytes(content)
    return ends


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    wrong = 0
    tasks = (("forecast", forecast, forecast_answer), ("characters", characters, characters_answer))
    for name, fit, answer in tasks:
        with tempfile.TemporaryDirectory() as place:
            run = Path(place) / "run"
            fit(run)
            ends = bits(answer, run, count)
            print(f"{name}, {sum(ends.values())} turned bits and cut files: {_words(ends)}", flush=True)
            wrong += ends["traceback"] + ends["several lines"] + ends["another forecast"]
            shutil.rmtree(run)
            fit(run)
            ends = settings(answer, run)
            # What is changed together with its checksum is a setting like another: a forecast may follow it.
            print(
                f"{name}, {sum(ends.values())} settings changed with their checksums: {_words(ends)}",
                flush=True,
            )
            wrong += ends["traceback"] + ends["several lines"]
    return wrong


def _words(ends: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(ends.items()))


if __name__ == "__main__":
    sys.exit(main() > 0)
