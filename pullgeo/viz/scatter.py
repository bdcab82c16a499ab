"""Latents as traces on a map, one for each class."""

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from pullgeo.manifold.base import Manifold
from pullgeo.viz.batches import log_volumes
from pullgeo.viz.classes import Classes, visible
from pullgeo.viz.plane import Plane
from pullgeo.viz.sprites import SpriteSheet
from pullgeo.viz.style import MUTED, PAPER, class_style

# Vector graphics serve this many points well.
_MANY = 10_000


def latent_traces(
    manifold: Manifold, z: Float[Tensor, "n d"], classes: Classes | None, plane: Plane, sprites: SpriteSheet | None
) -> list[go.Scatter | go.Scattergl]:
    """Latents by class; the pointer's box says a latent's row, class, coordinates and log-volume."""
    volumes = log_volumes(manifold, z, "latent_map: a latent")
    x = plane.project(z)
    kind = go.Scattergl if len(z) > _MANY else go.Scatter
    size = 6 if len(z) < 3000 else 4
    groups = [("latents", np.arange(len(z)), {"color": MUTED, "symbol": "circle"})]
    if classes is not None:
        groups = [(name, np.flatnonzero(classes.index == k), class_style(k)) for k, name in enumerate(classes.names)]
    first, second = plane.dims
    return [
        kind(
            x=x[rows, 0],
            y=x[rows, 1],
            mode="markers",
            name=visible(name),
            marker={**style, "size": size, "opacity": 0.9, "line": {"color": PAPER, "width": 0.7}},
            customdata=np.stack([rows, volumes[rows]], axis=1),
            hovertemplate=(
                f"latent %{{customdata[0]:d}}{'' if classes is None else f', class {visible(name)}'}<br>"
                f"z[{first}] %{{x:.3g}}, z[{second}] %{{y:.3g}}<br>log √det G %{{customdata[1]:.3f}}<extra></extra>"
            ),
            meta=None if sprites is None else sprites.for_points(z[rows]),
        )
        for name, rows, style in groups
    ]
