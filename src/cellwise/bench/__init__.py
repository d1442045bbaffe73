"""Timing of layers: all implementations interleaved in one process, speedups with their spread, losses shown like wins.

settings          what is asked for
implementations   who is compared, and what is run
onnx              onnxruntime as one of them
comparisons       a mode as a table of candidates
check             results that differ are not timed
clock             A B B A, and pauses in between
speedup           medians, quartiles, ratios of neighbouring runs
peak              what the machine can do at most
devices           what a GPU wants otherwise
background_load   other processes that take all cores
memory            peak and growth, in fresh processes
measure           all of it, row by row
machine, results, report, plot: what is kept and shown
"""
