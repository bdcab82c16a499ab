"""Everything that a living map carries, as one dictionary that JSON can hold."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullgeo.manifold.base import Manifold
from pullgeo.viz.batches import at_home, evaluated
from pullgeo.viz.classes import Classes
from pullgeo.viz.explore.accuracy import sample_accurately
from pullgeo.viz.explore.outputs import shown_payload
from pullgeo.viz.explore.packing import packed
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.pictures import pictures_of
from pullgeo.viz.plane import extent_of


def map_payload(
    where: str,
    manifold: Manifold,
    z: Tensor,
    classes: Classes | None,
    plane: Slice,
    *,
    image_shape: tuple[int, ...] | None = None,
    title: str = "Latent geometry",
) -> dict[str, Any]:
    """The plane, the decoder on it as a surface, the latents and their classes, and how exact all that is.

    Raises:
        OptionError, ShapeError: ``image_shape`` does not fit; see `latent_map`.
    """
    xy = plane.project(z)
    x, y = extent_of(xy)
    home = evaluated(manifold)
    pictures = pictures_of(where, home, at_home(home, z), image_shape)
    sliced = plane.restrict(manifold)
    surface, accuracy = sample_accurately(sliced, x, y, torch.from_numpy(xy))
    decode: dict[str, Any] = {"kind": "none"}
    if pictures is not None:
        channels, height, width = pictures.shape
        decode = {
            **shown_payload(sliced, surface),
            "kind": "image",
            # the channels come first in the numbers, as torch has them
            "shape": [height, width, channels] if channels > 1 else [height, width],
            "range": [pictures.low, pictures.high],
        }
    labels = None
    if classes is not None:
        labels = {"names": list(classes.names), "index": packed(classes.index.astype(np.uint8))}
    return {
        "format": 1,
        "title": title,
        "plane": plane.payload(),
        "surface": surface.payload(),
        "decode": decode,
        "latents": {"xy": packed(xy.astype(np.float32)), "labels": labels},
        "accuracy": accuracy.payload(),
    }
