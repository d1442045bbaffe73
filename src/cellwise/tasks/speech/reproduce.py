"""The English prompts of Asterisk, measured once on their test part, for `cellwise reproduce asterisk-prompts`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellwise.tasks.errors import TaskError
from cellwise.tasks.published import mean_row
from cellwise.tasks.speech.datasets import prompts
from cellwise.tasks.speech.recognizer import SpeechRecognizer

__all__ = ["REPORTED", "Row", "asterisk_prompts", "run"]


@dataclass(frozen=True)
class Row:
    """One method: error rates on the test part in percent, and where they come from."""

    method: str
    cer: float
    wer: float
    seconds: float | None = None
    source: str = "computed here"


# Other software on the same parts; the network that it brings was trained on much more speech of others.
REPORTED = (
    Row("pocketsphinx, its own model", 42.2, 75.8, source="measured elsewhere"),
    Row("pocketsphinx, word trigrams of the training transcripts", 28.9, 51.0, source="measured elsewhere"),
)


def asterisk_prompts(
    data: Path | None, seeds: int, options: Mapping[str, Any], say: Callable[[str], None]
) -> list[Row]:
    """The prompts, out of packages that one has unpacked. Raises TaskError where nobody says where."""
    if data is None:
        raise TaskError(
            "this experiment needs --data FOLDER, into which two Debian packages were unpacked: "
            "apt-get download asterisk-core-sounds-en asterisk-core-sounds-en-wav; dpkg -x FILE.deb FOLDER for each"
        )
    return run(data, seeds, options, say)


def run(folder: Path, seeds: int, options: Mapping[str, Any], say: Callable[[str], None]) -> list[Row]:
    """Train on the training part with seeds 0, 1, ..., and measure on the test part."""
    parts = prompts(folder)
    counts = ", ".join(f"{len(part)} in {name}" for name, part in parts.items())
    say(f"asterisk-prompts: {counts}, from {folder}")
    own = []
    for seed in range(seeds):
        model = SpeechRecognizer(seed=seed, **options).fit(
            parts["train"], valid=parts["valid"], progress=False
        )
        found = model.measure(parts["test"])
        method = f"{model.model_name} of cellwise, seed {seed}"
        own.append(Row(method, 100 * found["cer"], 100 * found["wer"], model.seconds_))
        say(f"{method}: CER {own[-1].cer:.1f}, WER {own[-1].wer:.1f}, {model.seconds_:.0f} s")
    return [*REPORTED, *own, mean_row(own)]
