"""``python -m pullgeo``, the same as the command ``pullgeo``."""

import sys

from pullgeo.cli.entry import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
