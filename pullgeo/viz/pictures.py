"""Decoded latents as pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pullgeo.errors import NonFiniteError, OptionError, ShapeError
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.viz.batches import at_home, evaluate

_COLOURS = (1, 3)


@dataclass(frozen=True, eq=False)
class Pictures:
    """What a decoder returns, as 8-bit pictures.

    Attributes:
        manifold: whose decoder it is.
        shape: channels (1 or 3), height and width.
        low, high: the values shown black and white; what lies beyond is cut off.
    """

    manifold: PullbackManifold
    shape: tuple[int, int, int]
    low: float
    high: float

    def __call__(
        self, z: Float[Tensor, "n d"], max_side: int | None = None
    ) -> UInt8[np.ndarray, "n height width channels"]:
        """Decode n latents; pictures with a longer side than ``max_side`` are averaged down to it.

        Raises:
            NonFiniteError: the decoder returned NaN or infinity.
        """
        channels, height, width = self.shape
        shrink = min(1.0, (max_side or max(height, width)) / max(height, width))
        size = max(1, round(height * shrink)), max(1, round(width * shrink))

        def pixels(batch: Tensor) -> Tensor:
            values = _decode(self.manifold, batch).reshape(-1, channels, height, width).double()
            if size != (height, width):
                values = adaptive_avg_pool2d(values, size)
            grey = (values - self.low) / (self.high - self.low) * 255
            return grey.round().clamp(0, 255).to(torch.uint8).movedim(1, -1)

        return evaluate(self.manifold, pixels, z).numpy(force=True)


def pictures_of(where: str, manifold: Manifold, z: Float[Tensor, "n d"], image_shape: Any = None) -> Pictures | None:
    """How to show what the decoder returns, or ``None`` where it returns no pictures.

    Args:
        where: the function that was called, for messages.
        manifold: pictures are decoded by a `PullbackManifold`; other manifolds have none.
        z: latents that the decoder is meant for. Where it returns numbers in [0, 1] for them, 0 is black and 1 white;
            otherwise their least value is black and their greatest white.
        image_shape: ``(height, width)`` or ``(channels, height, width)`` with 1 or 3 channels. If ``None``, outputs
            that have such a shape already are pictures, and flat ones are not.

    Raises:
        OptionError: ``image_shape`` is no such tuple, or is given for a manifold that decodes nothing.
        ShapeError: the decoder's output has another number of entries than ``image_shape``.
        NonFiniteError: the decoder returned NaN or infinity.
    """
    given = None if image_shape is None else _checked_shape(where, image_shape)
    if not isinstance(manifold, PullbackManifold):
        if given is not None:
            raise OptionError(
                f"{where}: image_shape={image_shape} was given, but a {type(manifold).__name__} decodes nothing. "
                "Leave image_shape out, or use a PullbackManifold."
            )
        return None
    z = at_home(manifold, z)
    with torch.no_grad():
        out = manifold.decode(z[:1].clone()).shape[1:]
    shape = given or _as_picture(tuple(out))
    if shape is None:
        return None
    if out.numel() != shape[0] * shape[1] * shape[2]:
        raise ShapeError(
            f"{where}: image_shape={image_shape} has {shape[0] * shape[1] * shape[2]} entries and the decoder returns "
            f"{out.numel()}, of shape {tuple(out)}. They must be the same."
        )
    ranges = evaluate(manifold, lambda batch: torch.stack(_decode(manifold, batch).aminmax()).reshape(1, 2), z)
    low, high = float(ranges[:, 0].min()), float(ranges[:, 1].max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return Pictures(manifold, shape, low, high if high > low else low + 1.0)


def _decode(manifold: PullbackManifold, z: Tensor) -> Tensor:
    values = manifold.decode(z)
    bad = ~torch.isfinite(values.flatten(1)).all(1)
    if bool(bad.any()):
        first = z[int(bad.nonzero()[0])]
        raise NonFiniteError(f"viz: the decoder returned NaN or infinity at z = {first.tolist()}. Check its weights.")
    return values


def _checked_shape(where: str, image_shape: Any) -> tuple[int, int, int]:
    entries = tuple(image_shape) if isinstance(image_shape, list | tuple | torch.Size) else ()
    whole = all(isinstance(n, int) and n > 0 for n in entries)
    if whole and len(entries) == 2:
        return (1, *entries)
    if whole and len(entries) == 3 and entries[0] in _COLOURS:
        return entries
    raise OptionError(
        f"{where}: image_shape must be (height, width) or (channels, height, width) with 1 or 3 channels, "
        f"got {image_shape!r}."
    )


def _as_picture(out: tuple[int, ...]) -> tuple[int, int, int] | None:
    if len(out) == 2:
        return (1, *out)
    if len(out) == 3 and out[0] in _COLOURS:
        return out
    return None
