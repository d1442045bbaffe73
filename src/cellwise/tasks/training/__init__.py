"""Training: the loop, the run folder that it fills, and what is shown meanwhile."""
