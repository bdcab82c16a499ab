"""One file for each family of layers; importing this package registers their rules."""

from pullgeo.jacobian.rules import activations, containers, linear, shapes

__all__ = ["activations", "containers", "linear", "shapes"]
