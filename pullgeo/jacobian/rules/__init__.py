"""One file for each family of layers; importing this package registers their rules."""

from pullgeo.jacobian.rules import (
    activations,
    averaging,
    containers,
    convolution,
    embedding,
    folding,
    linear,
    max_pooling,
    normalization,
    padding,
    several_inputs,
    shapes,
    shuffling,
    softmax,
    upsampling,
)

__all__ = [
    "activations",
    "averaging",
    "containers",
    "convolution",
    "embedding",
    "folding",
    "linear",
    "max_pooling",
    "normalization",
    "padding",
    "several_inputs",
    "shapes",
    "shuffling",
    "softmax",
    "upsampling",
]
