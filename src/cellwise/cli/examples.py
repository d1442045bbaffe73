"""What one types: the examples at the end of each command's help, by the command's words."""

from __future__ import annotations

from cellwise.cli.command import examples

EXAMPLES: dict[str, tuple[str, ...]] = {
    "cells": (
        "cellwise cells",
        "cellwise cells lstm --sort year",
        "cellwise cells --property scan --since 2017",
    ),
    "show": (
        "cellwise show gru",
        "cellwise show my_cells.py:MGU",
        "cellwise show lstm --out lstm.svg",
        "cellwise show gru --unrolled 4 --out gru.png",
        "cellwise show lstm --as gradient",
        "cellwise show lstm --stage plan",
    ),
    "complexity": (
        "cellwise complexity rnn lstm gru",
        "cellwise complexity gru --hidden-size 512 --batch 1",
        "cellwise complexity gru --json",
        "cellwise complexity gru --measure --out gru.png",
    ),
    "demo": ("cellwise demo lstm", "cellwise demo my_cells.py:MGU --epochs 500"),
    "forecast update": (
        "cellwise forecast update runs/sales-gru newer.csv",
        "cellwise forecast update runs/sales-gru newer.csv --out runs/sales-july",
    ),
    "text generate": (
        "cellwise text generate runs/novel-gru --start 'It was' --length 1000",
        "cellwise text generate runs/novel-gru --samples 5 --temperature 1 --min-p 0.05 --seed 7",
        "cellwise text generate runs/novel-gru --interactive",
    ),
    "text score": (
        "cellwise text score runs/novel-gru lines.txt",
        "cellwise text score runs/novel-gru lines.txt --html lines.html",
        "cellwise text score runs/novel-gru lines.txt --json",
    ),
    "translate lines": (
        "cellwise translate lines runs/en-es",
        "cellwise translate lines runs/sounds --beam 1",
    ),
    "forecast explain": (
        "cellwise forecast explain runs/sales-gru",
        "cellwise forecast explain runs/sales-gru --set promo=0",
        "cellwise forecast explain runs/sales-gru newer.csv --set price=-10% --out what-if.csv",
    ),
    "forecast export": ("cellwise forecast export runs/sales-gru --out results.xlsx",),
    "forecast backtest": (
        "cellwise forecast backtest sales.csv --horizon 28 --cutoffs 6",
        "cellwise forecast backtest runs/sales-gru --json",
    ),
    "trace": (
        "cellwise trace runs/demo",
        "cellwise trace runs/sales-gru newer.csv --out newer.html",
        "cellwise trace --demo --cell gru",
    ),
    "gradients": (
        "cellwise gradients --no-train",
        "cellwise gradients --cells lstm,my_cells.py:MGU --out gradients.png",
    ),
    "memory": (
        "cellwise memory --task recall --minutes 1",
        "cellwise memory --cells gru,lstm,lstm+1 --out memory.png",
    ),
    "compare-cells": (
        "cellwise compare-cells rnn lstm gru mgu --seeds 3",
        "cellwise compare-cells gru my_cells.py:Mine --problems digits,forecast",
        "cellwise compare-cells all --seconds 5 --out runs/equal-time",
    ),
    "bench": (
        "cellwise bench gru lstm",
        "cellwise bench my_cells.py:MGU --shapes 100,16,64,128 --modes forward,train",
    ),
    "reproduce": ("cellwise reproduce m3-monthly --seeds 1", "cellwise reproduce japanese-vowels"),
}


def epilog(command: str) -> str | None:
    """The end of a command's help; None for a command without examples."""
    return examples(EXAMPLES.get(command, ()))
