"""Sphinx configuration: ``sphinx-build -W docs docs/_build``."""

from pullgeo import __version__

project = "pullgeo"
author = "The pullgeo authors"
copyright = "2026, The pullgeo authors"
release = __version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    # Brings MathJax itself, so that formulas need no network.
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build"]
default_role = "code"
html_theme = "furo"
html_title = f"pullgeo {release}"
autodoc_typehints = "none"
# Shapes such as "n *pixels" are no markup.
napoleon_attr_annotations = False
autodoc_member_order = "bysource"
# What estimators inherit from scikit-learn refers to its glossary.
suppress_warnings = ["ref.term", "ref.ref"]
