"""All that a benchmark found, as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cellwise.bench import devices
from cellwise.bench.check import tolerances
from cellwise.bench.measure import Row
from cellwise.bench.memory import Probe
from cellwise.bench.peak import Peak
from cellwise.bench.settings import Settings


def _tolerances(dtype: str, precision: str) -> dict[str, float]:
    with devices.numbers(dtype, precision):
        return tolerances(devices.dtype_of(dtype))


@dataclass(frozen=True)
class BenchResults:
    """A run of the benchmark, whole or interrupted."""

    machine: dict[str, Any]
    peak: Peak
    settings: Settings
    rows: tuple[Row, ...]
    memory: tuple[Probe, ...] = ()
    interrupted: bool = False

    @property
    def refused(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.mismatch is not None)

    def to_json(self) -> str:
        """Text for bench.json; times in seconds, memory in bytes, ratios above 1 where ours is faster."""
        settings = self.settings
        content = {
            "machine": self.machine,
            "peak_gflops": self.peak.to_json(),
            "settings": {
                "cells": list(settings.cells),
                "shapes": {mode: list(map(str, settings.shapes_of(mode))) for mode in settings.modes},
                "repeats": settings.repeats,
                "seconds": settings.seconds,
                "load": settings.load,
                "dtype": settings.dtype,
                "device": settings.device,
                "precision": settings.precision,
                "tolerances": _tolerances(settings.dtype, settings.precision),
            },
            "interrupted": self.interrupted,
            "rows": [row.to_json(self.peak) for row in self.rows],
            "memory": [probe.to_json() for probe in self.memory],
        }
        return json.dumps(content, indent=1) + "\n"
