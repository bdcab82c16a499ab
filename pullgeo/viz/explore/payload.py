"""Everything that a living map carries, as one dictionary that JSON can hold."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullgeo.manifold.base import Manifold
from pullgeo.viz.classes import Classes
from pullgeo.viz.explore.accuracy import sample_accurately
from pullgeo.viz.explore.packing import packed
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.plane import extent_of


def map_payload(
    manifold: Manifold, z: Tensor, classes: Classes | None, plane: Slice, *, title: str = "Latent geometry"
) -> dict[str, Any]:
    """The plane, the decoder on it as a surface, the latents and their classes, and how exact all that is."""
    xy = plane.project(z)
    x, y = extent_of(xy)
    surface, accuracy = sample_accurately(plane.restrict(manifold), x, y, torch.from_numpy(xy))
    labels = None
    if classes is not None:
        labels = {"names": list(classes.names), "index": packed(classes.index.astype(np.uint8))}
    return {
        "format": 1,
        "title": title,
        "plane": plane.payload(),
        "surface": surface.payload(),
        "latents": {"xy": packed(xy.astype(np.float32)), "labels": labels},
        "accuracy": accuracy.payload(),
    }
