"""Settings of the documentation.

    pip install -e ".[docs]"
    python -m sphinx -W --keep-going -n docs docs/_build

Then open docs/_build/index.html. Pictures are made by docs/pictures.py; the pages' examples are run by
tests/package/test_documents.py.
"""

from cylstm import __version__

project = "cylstm"
copyright = "The cylstm developers"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_argparse_cli",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
smartquotes_action = "D"  # dashes only: h' is no quotation
default_role = "py:obj"  # a name in a docstring is a link where there is something of that name
nitpick_ignore_regex = [("py:obj", "(?s).*"), ("py:class", ".*")]  # and code, or words, where there is not

# Docstrings say types and shapes in words; annotations would say them again, in less.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_param = napoleon_use_rtype = napoleon_use_ivar = False

myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = "cylstm"
html_static_path = ["_static"]
html_css_files = ["cylstm.css"]
html_show_sphinx = False
