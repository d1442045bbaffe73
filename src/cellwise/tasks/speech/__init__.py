"""Speech recognition: a recurrent network that writes down what is said in recordings."""

from cellwise.tasks.registry import Task

__all__ = ["TASK"]

TASK = Task(
    "speech",
    "Recognise speech with a recurrent network.",
    estimator="recognizer:SpeechRecognizer",
    options="options:SpeechOptions",
)
