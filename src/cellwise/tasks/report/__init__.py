"""Reports: one page a run, whose charts, tables and style every task shares."""
