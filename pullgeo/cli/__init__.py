"""The command line: ``pullgeo demo``, ``pullgeo report`` and ``pullgeo diagnose``."""

from pullgeo.cli.entry import main

__all__ = ["main"]
