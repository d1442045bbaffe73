"""How the book is built: `make docs`, or `python -m sphinx -E -W --keep-going docs docs/build/html`."""

import sys
from pathlib import Path

import torch

from cellwise import __version__

sys.path.insert(0, str(Path(__file__).parent))
# Small networks only wait for a second thread, and their numbers should not hang on how many there are.
torch.set_num_threads(1)

project = "cellwise"
author = "The cellwise authors"
copyright = "The cellwise authors, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "book"]
exclude_patterns = ["build", "book", "measured"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nitpicky = False

# Docstrings name code in single backticks, as Markdown does.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False

pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = f"cellwise {__version__}"
html_static_path = ["_static"]
html_css_files = ["book.css", "diagrams.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": False}
