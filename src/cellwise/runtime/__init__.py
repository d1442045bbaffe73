"""Between layers and backends: how callers give their batches, the dispatch, and the streaming step."""
