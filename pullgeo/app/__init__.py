"""The living map beside a small server for one machine; its packages come with ``pullgeo[app]``."""

from pullgeo.app.serve import serve

__all__ = ["serve"]
