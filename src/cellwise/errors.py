"""Every mistake that cellwise can name has one class, here or in the package where it can be made, and one template.

All of them are `CellwiseError`: one clear text that says what was asked, what was found and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class CellwiseError(Exception):
    """Base of all errors that cellwise raises on purpose. Raised with a text, or with the fields of `template`."""

    template: ClassVar[str] = "{0}"

    def __init__(self, *texts: str, **fields: Any) -> None:
        super().__init__(self.template.format(*texts, **fields))

    def __reduce__(self) -> tuple[Any, ...]:
        # The fields are gone once formatted; without this an error could not travel between processes.
        return _rebuild, (type(self), str(self))


def _rebuild(kind: type[CellwiseError], text: str) -> CellwiseError:
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """What goes into a sentence before the list of what there is.

    >>> did_you_mean("lsmt", ["gru", "lstm"]), did_you_mean("transformer", ["gru", "lstm"])
    ("did you mean 'lstm'? Else, ", '')
    """
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"did you mean '{near[0]}'? Else, " if near else ""


def a_or_an(noun: str) -> str:
    """A noun, mostly the name of a type, behind its article.

    >>> a_or_an("int"), a_or_an("str"), a_or_an("uint8"), a_or_an("ndarray")
    ('an int', 'a str', 'a uint8', 'an ndarray')
    """
    return f"{'an' if noun[:1].lower() in tuple('aeio') or noun == 'ndarray' else 'a'} {noun}"


class CellwiseWarning(UserWarning):
    """Base of all warnings that cellwise gives on purpose."""


# --- writing a cell ---------------------------------------------------------------------------------------------


class CellError(CellwiseError):
    """A cell's definition is wrong. `where` shows the user's own line."""


class CellDefinitionError(CellError, TypeError):
    template = "{problem}\n{where}\n  {remedy}"


class UnknownGateError(CellError, LookupError):
    # No AttributeError: torch.nn.Module takes one out of a property for the property itself missing.
    template = "{cell} asks for the gate '{gate}', but its gates are {gates}.\n{where}\n  {remedy}"


class ReturnError(CellError, TypeError):
    template = "{cell}.step must return {wanted}, but it returned {found}.\n{where}\n  {remedy}"


class ConcreteValueError(CellError, TypeError):
    template = "{problem}\n{where}\n  {remedy}"


class ShapeError(CellError, ValueError):
    template = "{problem}\n{where}\n  {remedy}"


class StepError(CellError, RuntimeError):
    """Python itself, or the user's own code, raised an error inside a step; it is the `__cause__`."""

    template = "{problem}\n{where}\n  {remedy}"


class UnrepeatableStepError(CellError, RuntimeError):
    template = (
        "{cell}.step is not the same each time: {problem}.\n{where}\n  "
        "A step is read once and its equations stay, so what is drawn, counted or read off a clock in it would never "
        "change again. Make it an option or a learned Vector or Scalar; what is random is written with cellwise's own "
        "uniform, dropout and zoneout."
    )


class FrozenCellError(CellwiseError, AttributeError):
    template = "{cell} is frozen; make another: {cell}({name}=...)"


class UnknownCellError(CellwiseError, LookupError):
    template = "No cell is called '{name}'; {hint}the cells are: {known}."


class CellOptionError(CellwiseError, TypeError):
    template = "{cell} cannot take the option {problem}."


# --- running a layer --------------------------------------------------------------------------------------------


class BackendError(CellwiseError, RuntimeError):
    template = (
        "The backend '{backend}' was asked for and cannot run {what}: {reason}. Those that can: {willing}."
    )


class UnknownBackendError(CellwiseError, ValueError):
    template = "There is no backend called '{backend}'; there are: auto, {known}."


class LayerError(CellwiseError, ValueError):
    """A layer was built or called with arguments that cannot be."""


class InputError(LayerError, RuntimeError):
    """An input or a state does not fit the layer. (RuntimeError too, since that is what torch.nn raises.)"""


class UnknownInputError(InputError, TypeError):
    """A layer was called with a keyword that it does not take. (TypeError too, as Python's own functions raise.)"""


class CacheWarning(CellwiseWarning):
    """A folder or file of compiled kernels was left alone, since somebody else could have written it."""


class OutOfMemoryError(CellwiseError, RuntimeError, MemoryError):
    """What a call keeps does not fit into memory."""


class ToolError(CellwiseError, RuntimeError):
    template = (
        "{tool} cannot compile {what}: its equations are no code that TorchScript knows. Record the model instead: "
        "torch.jit.trace(model, x), torch.export.export(model, (x,)) or torch.compile(model)."
    )


class ConversionWarning(CellwiseWarning):
    """`convert` left a recurrent module as it was."""
