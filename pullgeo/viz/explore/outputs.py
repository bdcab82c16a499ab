"""What a page shows of a place: the decoder's output there, or what a function of the user's makes of it."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.manifold.ambient.flat import Flat
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.decoders.ensemble import Ensemble, MeanAndDeviation
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.viz.batches import at_home
from pullgeo.viz.explore.slice import lifted_decoder
from pullgeo.viz.explore.surface import Surface, sample_outputs

Shown = Callable[[Float[Tensor, "b 2"]], Tensor]
"""Places in float64 to what is shown there, ``(b, *out)``."""

Render = Callable[[Tensor], Any]
"""Outputs of the decoder ``(b, *out)`` to what is shown instead, ``(b, *shape)``."""


def shown_map(manifold: Manifold, render: Render | None = None) -> Shown | None:
    """What is shown at places; ``None`` for a manifold that decodes nothing.

    The decoder's output, but the mean of a `MeanAndDeviation`, and the average of an `Ensemble`.

    Args:
        manifold: with two latents; see `Slice.restrict`.
        render: what to show instead of outputs.
    """
    if not isinstance(manifold, PullbackManifold):
        return None
    double = manifold.in_double()
    lift, decoder = lifted_decoder(double.decoder)

    def outputs(xy: Tensor) -> Tensor:
        home = at_home(double, xy.clone())
        z = home if lift is None else lift(home)
        if isinstance(decoder, MeanAndDeviation):
            return decoder.mean(z)
        if isinstance(decoder, Ensemble):
            members = [getattr(decoder, f"member{number}")(z) for number in range(decoder.count)]
            return torch.stack(members).mean(0)
        return double.decode(home)

    if render is None:
        return outputs
    return lambda xy: torch.as_tensor(render(outputs(xy)))


def shown_payload(manifold: Manifold, surface: Surface, render: Render | None = None) -> dict[str, Any]:
    """The part of ``payload.decode`` that decodes: from the page's surface where it can, from one of its own else.

    Args:
        manifold: with two latents, the one that was sampled.
        surface: its surface.
        render: what to show instead of outputs.

    Cost: none, or a forward pass for each of 64 x 64 places.
    """
    show = shown_map(manifold, render)
    if show is None or not isinstance(manifold, PullbackManifold):
        return {"D": 0}
    plain = (
        isinstance(manifold.ambient, Flat) and manifold.ambient.matrix is None and manifold.ambient.embedding is None
    )
    if render is None and plain and surface.components:
        decoder = lifted_decoder(manifold.decoder)[1]
        linear: Callable[[Tensor], Tensor] | None = None
        if isinstance(decoder, MeanAndDeviation):
            with torch.no_grad():
                centre = torch.tensor([[sum(surface.x) / 2, sum(surface.y) / 2]], dtype=torch.float64)
                size = show(centre)[0].numel()
            linear = lambda v: v[..., :size]  # noqa: E731
        elif isinstance(decoder, Ensemble):
            count = decoder.count
            linear = lambda v: v.unflatten(-1, (count, -1)).sum(-2) / count**0.5  # noqa: E731
        return surface.decode_payload(linear=linear)
    return sample_outputs(show, surface.x, surface.y).decode_payload(own=True)
