"""Timing of layers: both sides interleaved in one process, ratios with their spread, losses shown like wins.

settings   what is asked for                    clock     A B B A, and pauses in between
sides      who is compared, and what is run     ratios    medians, quartiles, ratios of neighbours
onnx       onnxruntime as a side                peak      what the machine can do at most
contests   a mode as a table of contenders      load      other processes that take all cores
check      what is wrong is not timed           memory    peak and growth, in fresh processes
measure    all of it, row by row                machine, record, report, picture: what is kept and shown
"""
