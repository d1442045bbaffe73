"""The settings of a run as a person reads them: what was given, and what was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cellwise.tasks.options import Option

__all__ = ["Setting", "SettingGroup", "setting_groups", "setting_text"]


@dataclass(frozen=True)
class Setting:
    """An option and its value. flag: its word on the command line; is_chosen: whether the estimator chose the value;
    is_given: whether it is another than the default."""

    name: str
    value: Any
    flag: str = ""
    is_chosen: bool = False
    is_given: bool = False

    @property
    def words(self) -> str:
        """The name as one reads it."""
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class SettingGroup:
    """Settings under a heading."""

    title: str
    settings: tuple[Setting, ...]


def setting_groups(
    options: Iterable[Option], values: Mapping[str, Any], chosen: Mapping[str, str]
) -> tuple[SettingGroup, ...]:
    """Options by their groups, with their values.

    chosen: what an option that was None came to; one that is not there says what None means. An option without a value
    is left out."""
    groups: dict[str, list[Setting]] = {}
    for each in options:
        if each.name not in values:
            continue
        value = values[each.name]
        made = Setting(each.name, value, each.flags[0], is_given=bool(value != each.default))
        if value is None:
            picked = chosen.get(each.name)
            made = Setting(
                each.name, each.none if picked is None else picked, each.flags[0], picked is not None
            )
        groups.setdefault(each.group or "the task", []).append(made)
    return tuple(SettingGroup(title, tuple(settings)) for title, settings in groups.items())


def setting_text(value: object) -> str:
    """A value as one reads it."""
    if value is None:
        return "chosen"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
