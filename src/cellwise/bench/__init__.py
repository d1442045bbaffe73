"""Timing of layers: both sides interleaved in one process, ratios with their spread, losses shown like wins."""
