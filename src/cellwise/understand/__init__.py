"""What a person wants to know about a cell, computed and drawn from the definition that runs."""

from cellwise.understand.views import VIEWS, view

__all__ = ["VIEWS", "view"]
