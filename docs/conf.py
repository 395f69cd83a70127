"""Sphinx's settings of the site; docs/build_site.py lays its pages out and runs it."""

import importlib

from prorank import __version__

# Before autodoc, which imports with TYPE_CHECKING switched on; pydantic's models do not survive that.
for module in ("serve.app", "integrations.langchain", "integrations.llamaindex", "integrations.haystack"):
    importlib.import_module(f"prorank.{module}")

project = "ProRank"
author = copyright = "The ProRank authors"
release = version = __version__
html_title = f"ProRank {__version__}"
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_heading_anchors = 4  # GitHub's, so that links with # work in both
myst_enable_extensions = ["fieldlist"]
default_role = "code"
smartquotes = False  # a label word is "1", not a pair of curls
pygments_style = "friendly"
pygments_dark_style = "github-dark"

autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": False}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_param = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 88

html_theme = "furo"
html_static_path = ["style"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
copybutton_prompt_text = "$ "
