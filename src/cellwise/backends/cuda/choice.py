"""The layout of a call on a device; and where that cannot be launched, the same equations step by step, and why.

Nothing is refused for its size: the stepwise and rowwise layouts take what no other does, on any device.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from cellwise.backends.cuda.frame import Frame
from cellwise.backends.cuda.lanes import Lanes
from cellwise.backends.cuda.layout import (
    BY_CUBLAS,
    Device,
    Form,
    Layout,
    is_together,
    layout_for,
    step_by_step,
    tried,
    why_step_by_step,
)
from cellwise.backends.cuda.machine import Machine
from cellwise.backends.cuda.rowwise import Rowwise
from cellwise.backends.cuda.scan import Scan
from cellwise.backends.cuda.solo import Solo
from cellwise.backends.cuda.stepwise import Stepwise
from cellwise.backends.cuda.tuned import TUNED, call_of, tuned
from cellwise.backends.cuda.wide import Wide
from cellwise.plan.program import Program


class Choice(NamedTuple):
    """A layout. because: why it goes step by step, as the end of a sentence."""

    layout: Layout
    because: str | None = None

    def __str__(self) -> str:
        return str(self.layout) if self.because is None else f"{self.layout}, since {self.because}"


def chosen(program: Program, form: Form, batch: int, machine: Machine, steps: int = 0) -> Choice:
    """The layout of a call on a device: what is tried, was measured, or follows from the rules, if it can be launched.

    Args:
        steps: of the call; 0 if there may be any number.
    """
    device = machine.device
    wanted = layout_for(program, form, batch, device, steps)
    if wanted.kind in TUNED and tried() == (None, None):
        wanted = tuned(program, form, batch, machine) or wanted
    if wanted.kind in BY_CUBLAS:
        return Choice(wanted, why_step_by_step(program, form, batch, device))
    if is_together(wanted) and not device.together:
        return Choice(step_by_step(program, form), "this device starts no blocks that wait for each other")
    refusal = machine.refused.get((call_of(program, form, batch), wanted))
    if refusal is not None:
        return Choice(step_by_step(program, form), refusal)
    layout = with_room(program, form, wanted, device)
    if layout is None:
        room = f"a block would want more shared memory than the {device.shared // 1024} KiB of this device"
        return Choice(step_by_step(program, form), room)
    return Choice(layout)


def with_room(program: Program, form: Form, layout: Layout, device: Device) -> Layout | None:
    """The same with no more reads under way than a block's shared memory has room for; None if it has for none."""
    while written(program, form, layout)[0].shared_bytes > device.shared:
        if layout.ahead == 2:
            return None
        layout = replace(layout, ahead=layout.ahead // 2)
    return layout


@lru_cache(maxsize=64)
def written(program: Program, form: Form, layout: Layout) -> tuple[Frame, str]:
    """The text of a kernel, and who wrote it."""
    kinds: dict[str, type[Frame]] = {
        "wide": Wide,
        "lanes": Lanes,
        "scan": Scan,
        "stepwise": Stepwise,
        "rowwise": Rowwise,
    }
    frame = kinds.get(layout.kind, Solo)(program, form, layout)
    return frame, frame.source()
