"""Several cells, settings and seeds trained on the same data and measured side by side."""
