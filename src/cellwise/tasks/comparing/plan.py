"""What is to be compared: candidates, each a cell with settings, and the runs of each seed in a fair order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellwise.tasks.errors import OptionError
from cellwise.tasks.estimator import Estimator
from cellwise.tasks.member_cells import JOIN, cells_of
from cellwise.tasks.options import options_of, short_repr
from cellwise.tasks.training.digests import json_digest
from cellwise.tasks.training.loading import store_cells

__all__ = ["Candidate", "Job", "candidates_of", "cell_label", "jobs_of", "seeds_of"]

LONGEST = 100  # characters of a folder's name


@dataclass(frozen=True)
class Candidate:
    """A cell and settings. name: of both, in tables. settings: as the estimator takes them, the cell among them."""

    name: str
    settings: Mapping[str, Any]

    @property
    def shown(self) -> dict[str, Any]:
        """The settings as JSON and tables hold them."""
        return dict(self.settings) | {"cell": cell_label(self.settings["cell"])}


@dataclass(frozen=True)
class Job:
    """One training. estimator: a fresh one with its settings. folder: the name of its sub-run. identity: all that its
    figures depend on, JSON-able; equal identities give equal figures."""

    candidate: str
    seed: int
    estimator: Estimator
    folder: str
    identity: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """A digest of the identity."""
        return json_digest(dict(self.identity))


def candidates_of(
    estimator: Estimator, cells: Iterable[Any] | None, settings: Mapping[str, Iterable[Any]] | None
) -> tuple[Candidate, ...]:
    """Every cell with every combination of the settings. Raises OptionError, UnknownCellError, CellError."""
    if isinstance(cells, str):
        raise OptionError(f"cells must be a list of cells, such as [{cells!r}]")
    chosen = [estimator.cell] if cells is None else list(cells)
    values = {name: _values(estimator, name, given) for name, given in (settings or {}).items()}
    if not chosen:
        raise OptionError("there is nothing to compare: cells is an empty list")
    made: dict[str, Candidate] = {}
    for cell in chosen:
        label = cell_label(cell)
        for combination in itertools.product(*values.values()):
            changes = dict(zip(values, combination, strict=True))
            name = " ".join([label, *(f"{key}={value}" for key, value in changes.items())])
            if name in made:
                raise OptionError(f"{name} is listed twice; name each once")
            made[name] = Candidate(name, {"cell": cell} | changes)
    return tuple(made.values())


def _values(estimator: Estimator, name: str, given: Iterable[Any]) -> list[Any]:
    """The values of one setting, each checked."""
    declared = {each.name: each for each in options_of(type(estimator))}
    if name not in declared:
        raise OptionError(f"{type(estimator).__name__} has no option {name!r}; it has {', '.join(declared)}")
    if name in ("cell", "seed"):
        raise OptionError(f"{name} is not a setting to compare; give {name}s")
    if name in estimator.measured_by:
        raise OptionError(
            f"{name} decides how the networks are measured, so it must be the same for all of them"
        )
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise OptionError(f"the values of {name} must be a list, not {short_repr(given)}")
    values = list(given)
    if not values:
        raise OptionError(f"{name} has no values to compare")
    for value in values:
        declared[name].check(value)
    return values


def seeds_of(estimator: Estimator, seeds: int | Iterable[int]) -> tuple[int, ...]:
    """The seeds: so many from that of the estimator on, or these. Raises OptionError."""
    wrong = OptionError(
        f"seeds must be a whole number from 1, or a list of different seeds, not {short_repr(seeds)}"
    )
    if isinstance(seeds, bool) or (isinstance(seeds, int) and seeds < 1):
        raise wrong
    if isinstance(seeds, int):
        return tuple(range(estimator.seed, estimator.seed + seeds))
    chosen = tuple(seeds)
    declared = {each.name: each for each in options_of(type(estimator))}["seed"]
    for seed in chosen:
        declared.check(seed)
    if not chosen or len(set(chosen)) != len(chosen):
        raise wrong
    return chosen


def jobs_of(
    estimator: Estimator,
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
    data: Any,
    more: Mapping[str, Any],
) -> tuple[Job, ...]:
    """Every training: all candidates with the first seed, then with the next in the opposite order, so that whatever
    changes on the machine in the meantime meets all of them alike.

    Everything is read and checked first. Raises OptionError, CellError, DataError."""
    folders = _folders(candidates)
    made: dict[tuple[str, int], Job] = {}
    prints: dict[str, str] = {}  # fingerprint of the data -> the candidate that read it so
    fixed = {**estimator.get_params(), **estimator.comparison_settings}
    for candidate in candidates:
        reader = type(estimator)(**{**fixed, **candidate.settings})
        known, _, how = reader._understand(data, more)
        fingerprint = reader._store(known).fingerprint
        prints.setdefault(fingerprint, candidate.name)
        for seed in seeds:
            fresh = type(estimator)(**{**fixed, **candidate.settings, "seed": seed})
            identity = {
                "settings": fresh._stored_settings(how),
                "cell": store_cells(fresh._cells),
                "data": fingerprint,
            }
            folder = f"{folders[candidate.name]}-seed{seed}"
            made[candidate.name, seed] = Job(candidate.name, seed, fresh, folder, identity)
    if len(prints) > 1:
        one, other, *_ = prints.values()
        raise OptionError(f"{one} and {other} read different data, so their figures cannot be compared")
    order = [
        (candidate.name, seed)
        for index, seed in enumerate(seeds)
        for candidate in (candidates if index % 2 == 0 else reversed(candidates))
    ]
    return tuple(made[each] for each in order)


def cell_label(value: Any) -> str:
    """What the option `cell` names, in a few words that tell cells of one class apart."""
    return JOIN.join(map(_label, cells_of(value)))


def _label(cell: Any) -> str:
    """A cell's name, with the options that are not its defaults."""
    options = ",".join(
        f"{name}={value}" for name, value in cell.options.items() if value != _default(cell, name)
    )
    return f"{cell.name}({options})" if options else str(cell.name)


def _default(cell: Any, name: str) -> Any:
    return getattr(type(cell), name, None)


def _folders(candidates: Sequence[Candidate]) -> dict[str, str]:
    """A folder name for each candidate, of characters that every file system takes."""
    folders: dict[str, str] = {}
    for candidate in candidates:
        plain = re.sub(r"[^A-Za-z0-9.+=_]+", "-", candidate.name).strip("-.") or "cell"
        taken = {each.casefold() for each in folders.values()}
        name = plain[:LONGEST]
        numbers = itertools.count(2)
        while name.casefold() in taken:
            name = f"{plain[:LONGEST]}-{next(numbers)}"
        folders[candidate.name] = name
    return folders
