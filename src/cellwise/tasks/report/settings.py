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
    options: Iterable[Option],
    values: Mapping[str, Any],
    chosen: Mapping[str, str],
    first: str,
    results: Mapping[str, Mapping[str, str]],
) -> tuple[SettingGroup, ...]:
    """Options by their groups, with their values; an option without a value is left out.

    chosen: what an option that was None came to; one that is not there says what None means. first: the heading of
    those without a group. results: group -> what came of its options, by name."""
    groups: dict[str, list[Setting]] = {first: []}
    for each in options:
        if each.name not in values:
            continue
        value, flag = values[each.name], each.flags[0]
        if value is None and each.name in chosen:
            made = Setting(each.name, chosen[each.name], flag, is_chosen=True)
        elif value is None:
            made = Setting(each.name, each.none, flag)
        else:
            made = Setting(each.name, value, flag, is_given=_differs(value, each.default))
        groups.setdefault(each.group or first, []).append(made)
    for title, rows in results.items():
        groups.setdefault(title, []).extend(Setting(name, text) for name, text in rows.items())
    return tuple(SettingGroup(title, tuple(settings)) for title, settings in groups.items())


def _differs(value: Any, default: Any) -> bool:
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) != list(default)
    return bool(value != default)


def setting_text(value: object) -> str:
    """A value as one reads it."""
    if value is None:
        return "chosen"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
