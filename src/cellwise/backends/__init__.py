"""Plan in, results out: each backend a folder of its own, none knowing another."""
