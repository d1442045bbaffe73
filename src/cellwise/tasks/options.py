"""An option is declared once: its default, its range, its help.

The declaration serves the constructor (`with_options` makes it), the check before any work, the command line, the run
folder and the reference. Nothing here imports torch, so that `--help` is quick.

    @with_options
    class Options:
        hidden_size: int = option(default=128, help="Units of the recurrent layer.", at_least=1, at_most=65_536)

    @with_options
    class Narrow(Options):
        hidden_size: int = 16          # another default; help and range stay
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any, TypeVar, dataclass_transform

from cellwise.tasks.errors import OptionError

__all__ = ["Option", "Range", "check_values", "option", "options_of", "plain", "short_repr", "with_options"]

C = TypeVar("C")
_KEY = "cellwise option"  # in the metadata of a dataclass field
_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}


@dataclass(frozen=True)
class Range:
    """The numbers among which a search looks, both ends included; `is_log`: evenly by ratios, not by differences."""

    low: float
    high: float
    is_log: bool = False


@dataclass(frozen=True)
class Option:
    """One option of a class, all of it.

    name: of the argument and the attribute.
    kind: int, float, str, bool, or object for what no range can describe (a cell).
    is_list: whether it takes several of them.
    default: in Python.
    help: a sentence.
    at_least, at_most (inclusive), above, below (exclusive): the range of each number.
    choices: the only values there are.
    what: the noun of the error message ("the name of a column").
    accepts: a test of the whole value, whose failure is said with `what`.
    flags: on the command line; the first is the long one.
    metavar: how the command line's help names the value.
    none: what None means; without it None is refused.
    group: under which heading the help lists it.
    is_required: whether the command line must be told, whatever the default in Python.
    is_positional: whether Python takes it without its name.
    search: where `tune` looks for a better value: a range of numbers, or the values themselves; None: it does not.
    """

    name: str
    kind: type
    is_list: bool
    default: Any
    help: str
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    what: str | None = None
    accepts: Callable[[Any], bool] | None = None
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    none: str | None = None
    group: str = ""
    is_required: bool = False
    is_positional: bool = False
    search: Range | tuple[Any, ...] | None = None

    def check(self, value: Any) -> None:
        """Raise OptionError, which says what would do, unless this is a value that the option can have."""
        if value is None and self.none is not None:
            return
        if self.accepts is not None:
            if not self.accepts(value):
                raise OptionError(f"{self.name} must be {self._wanted}, not {short_repr(value)}{self._flag}")
        elif self.is_list:
            self._check_list(value)
        elif not self._fits(value):
            raise OptionError(f"{self.name} must be {self._wanted}, not {short_repr(value)}{self._flag}")

    def stored(self, value: Any) -> Any:
        """The value as JSON holds it: a list for any sequence, Python's own numbers for those of numpy."""
        return [plain(each) for each in value] if self.is_list and value is not None else plain(value)

    @property
    def _flag(self) -> str:
        """The flag, where one who typed it would not recognise the name: --layers is num_layers in Python."""
        spelled = "--" + self.name.replace("_", "-")
        return "" if not self.flags or spelled in self.flags else f" ({self.flags[0]})"

    @property
    def _wanted(self) -> str:
        if self.choices:
            *most, last = (repr(each) for each in self.choices)
            return f"{', '.join(most)} or {last}" if most else last
        return " ".join(filter(None, (self.what or _KINDS.get(self.kind, "a value"), self._range)))

    @property
    def _range(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"from {self._number(self.at_least)} to {self._number(self.at_most)}"
        bounds = (
            ("of at least", self.at_least),
            ("above", self.above),
            ("of at most", self.at_most),
            ("below", self.below),
        )
        return " and ".join(f"{words} {self._number(bound)}" for words, bound in bounds if bound is not None)

    def _number(self, bound: float) -> str:
        return str(self.kind(bound)) if self.kind in (int, float) else str(bound)

    def _check_list(self, value: Any) -> None:
        things = f"{self.name} must be a list of {self.what or 'values'}"
        if isinstance(value, str):
            raise OptionError(f"{things}, such as [{value!r}]{self._flag}")
        if not isinstance(value, Iterable) or not all(self._fits(each) for each in value):
            raise OptionError(f"{things}, not {short_repr(value)}{self._flag}")

    def _fits(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if self.kind in (int, float):
            is_number = isinstance(value, Integral if self.kind is int else Real)
            return is_number and type(value) is not bool and self._is_within(value)
        if self.kind is str:
            return isinstance(value, str) and (value != "" or self.is_list)
        return self.kind is object or isinstance(value, self.kind)

    def _is_within(self, value: Any) -> bool:
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def option(
    default: Any,
    *,
    help: str,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] = (),
    what: str | None = None,
    accepts: Callable[[Any], bool] | None = None,
    flag: str | Sequence[str] | None = None,
    metavar: str | None = None,
    none: str | None = None,
    group: str = "",
    required: bool = False,
    kw_only: bool = True,
    search: Range | Sequence[Any] | None = None,
) -> Any:
    """Declare an option of a class under `with_options`; see `Option` for what the arguments mean.

    default: give it by its name, for type checkers see it only so. flag: the command line's word for it, or several;
    None writes `hidden_size` as `--hidden-size`. kw_only: False lets Python take it without its name (the argument is
    called as type checkers know it)."""
    about = {
        "help": help,
        "at_least": at_least,
        "at_most": at_most,
        "above": above,
        "below": below,
        "choices": tuple(choices),
        "what": what,
        "accepts": accepts,
        "flags": (flag,) if isinstance(flag, str) else tuple(flag or ()),
        "metavar": metavar,
        "none": none,
        "group": group,
        "is_required": required,
        "is_positional": not kw_only,
        "search": search if search is None or isinstance(search, Range) else tuple(search),
    }
    return dataclasses.field(default=default, kw_only=kw_only, metadata={_KEY: types.MappingProxyType(about)})


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(option,))
def with_options(cls: type[C]) -> type[C]:
    """Give a class the constructor of its options and of those of its bases. A decorator.

    An annotated attribute without `option(...)` is another default for an option of a base class. Raises TypeError for
    one that no base has declared."""
    declared = {field.name: field for base in reversed(cls.__mro__[1:]) for field in _fields(base)}
    for name, hint in inspect.get_annotations(cls).items():
        default = cls.__dict__.get(name, dataclasses.MISSING)
        if "ClassVar" in str(hint) or isinstance(default, dataclasses.Field):
            continue
        if name not in declared or default is dataclasses.MISSING:
            raise TypeError(f"{cls.__qualname__}.{name} is no option yet; declare it with option(...)")
        base = declared[name]
        setattr(
            cls, name, dataclasses.field(default=default, kw_only=bool(base.kw_only), metadata=base.metadata)
        )
    return dataclass(kw_only=True, eq=False, repr=False)(cls)


@cache
def options_of(cls: type) -> tuple[Option, ...]:
    """The options of a class: the positional ones, then its own, then those that it shares with other classes."""
    hints = typing.get_type_hints(cls)
    home = {name: depth for depth, base in enumerate(reversed(cls.__mro__)) for name in _declared(base)}
    made = [_option(field, hints[field.name]) for field in _fields(cls)]
    return tuple(
        sorted(made, key=lambda each: (not each.is_positional, 0 if each.is_positional else -home[each.name]))
    )


def check_values(cls: type, values: Mapping[str, Any]) -> None:
    """Raise OptionError for the first of these values that an option of a class cannot have."""
    for each in options_of(cls):
        if each.name in values:
            each.check(values[each.name])


def short_repr(value: object) -> str:
    """A value as a sentence can show it, however long it is."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields(cls: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()


def _declared(cls: type) -> list[str]:
    """The options that a class itself declares first; those that it gives another default stay where they were."""
    inherited = {field.name for base in cls.__mro__[1:] for field in _fields(base)}
    return [name for name in inspect.get_annotations(cls) if name not in inherited]


def _option(field: dataclasses.Field[Any], hint: Any) -> Option:
    about = dict(field.metadata[_KEY])
    kind, is_list = _kind_of(hint)
    flags = about.pop("flags") or ("--" + field.name.replace("_", "-"),)
    return Option(field.name, kind, is_list, field.default, flags=flags, **about)


def _kind_of(hint: Any) -> tuple[type, bool]:
    """The type behind an annotation, and whether it is that of a list's elements.

    >>> _kind_of(int | None), _kind_of(Sequence[str]), _kind_of(Any)
    ((<class 'int'>, False), (<class 'str'>, True), (<class 'object'>, False))
    """
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (each for each in typing.get_args(hint) if each is not types.NoneType)
    if typing.get_origin(hint) in (Sequence, tuple, list):
        return typing.get_args(hint)[0], True
    return (hint if isinstance(hint, type) and hint is not Any else object), False


def plain(value: Any) -> Any:
    """Python's own number for one of numpy's; every other value as it is."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value
