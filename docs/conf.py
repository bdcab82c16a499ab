"""Sphinx configuration: ``sphinx-build -W docs docs/_build``."""

from pathlib import Path
from typing import Any

from pullgeo import PullbackManifold, __version__, datasets, viz, zoo

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


def write_map(app: Any, exception: Exception | None) -> None:
    """The living map that primer.rst shows: 7 MB, which need not be committed."""
    if exception is None and app.builder.format == "html":
        digits, vae = datasets.digits(), zoo.digits_vae()
        z = vae.encode(digits.images).detach()
        viz.explore(
            PullbackManifold(vae.decoder),
            z,
            digits.labels,
            image_shape=digits.image_shape,
            pictures=digits.images,
            path=Path(app.outdir) / "map.html",
        )


def setup(app: Any) -> None:
    app.connect("build-finished", write_map)
