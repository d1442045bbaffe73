"""Cells against cells: small networks trained on five problems with each, at equal parameters or equal time."""
