"""Where the book's own code and the browser of the tests lie."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS.parent / "docs"), str(TESTS / "understand")]
