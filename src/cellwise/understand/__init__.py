"""What a person wants to know about a cell, computed and drawn from the definition that runs."""
