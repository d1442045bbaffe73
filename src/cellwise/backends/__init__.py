"""Plan in, results out: each backend a folder of its own, none knowing another."""

# First of all: torch brings our layers along (cellwise._lazy), and these import what lies below here.
import torch as torch
