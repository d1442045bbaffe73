"""Speech recognition: a recurrent network that writes down what is said in recordings."""

from cellwise.tasks.published import Experiment
from cellwise.tasks.registry import Task

__all__ = ["EXPERIMENTS", "TASK"]

TASK = Task(
    "speech",
    "Recognise speech with a recurrent network.",
    estimator="recognizer:SpeechRecognizer",
    options="options:SpeechOptions",
)

EXPERIMENTS = (
    Experiment(
        "asterisk-prompts",
        "--data: a folder into which the Debian packages asterisk-core-sounds-en and asterisk-core-sounds-en-wav were "
        "unpacked (dpkg -x).",
        run="reproduce:asterisk_prompts",
        columns=(("CER", "cer", 1), ("WER", "wer", 1), ("seconds", "seconds", 0)),
    ),
)
