"""The version, said once: the package metadata, `cellwise --version` and the run folders read it here."""

__version__ = "0.12.0"
