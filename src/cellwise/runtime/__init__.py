"""Between layers and backends: how callers give their batches, the dispatch, and the streaming step."""

# First of all: torch brings our layers along (cellwise._lazy), and these import what lies below here.
import torch as torch
