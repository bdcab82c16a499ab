"""The command line: ``pullgeo demo`` and ``pullgeo report``."""

from pullgeo.cli.entry import main

__all__ = ["main"]
