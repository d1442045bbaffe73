"""The mistakes that a model of characters can name."""

from cellwise.tasks.base import TaskError


class TextError(TaskError):
    """A text cannot be used: too short, or nothing of it is known."""


class CharacterOptionError(TaskError):
    """A setting has a value that makes no sense."""


class NotTrainedError(TaskError):
    """Something was asked of a model that has learned nothing yet."""
