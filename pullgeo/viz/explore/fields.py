"""Layers of a map that the page cannot compute from its surface: they are shipped as grids of numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from scipy.stats import gaussian_kde
from torch import Tensor

from pullgeo.errors import GeometryError, OptionError
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.decoders.ensemble import Ensemble, MeanAndDeviation
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.chunking import FIELDS
from pullgeo.numerics.progress import counted
from pullgeo.viz.batches import at_home
from pullgeo.viz.explore.packing import packed
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.explore.surface import Interval

SIDE = 96
_MOST_KERNELS = 2000


@dataclass(frozen=True, eq=False)
class Field:
    """Numbers on a grid over the map.

    Attributes:
        name: of the layer, as the menu shows it.
        words: one sentence that explains it.
        formula: as text.
        unit: of the numbers.
        values: ``(ny, nx)``, row j at y_j; NaN where there is none.
        x: the interval of the first coordinate; the first column is at its lower end, the last at its upper end.
        y: the interval of the second one.
    """

    name: str
    words: str
    formula: str
    unit: str
    values: Float64[np.ndarray, "ny nx"]
    x: Interval
    y: Interval

    def payload(self) -> dict[str, Any]:
        """The field as the page reads it; values in single precision."""
        return {
            "name": self.name,
            "words": self.words,
            "formula": self.formula,
            "unit": self.unit,
            "x": list(self.x),
            "y": list(self.y),
            "values": packed(self.values.astype(np.float32)),
        }


def latent_density(
    xy: Float64[np.ndarray, "n 2"], x: Interval, y: Interval, *, side: int = SIDE, seed: int = 0
) -> Field | None:
    """Where latents lie: a Gaussian kernel density estimate with Scott's bandwidth; ``None`` where there is none.

    There is none for fewer than three latents, or for latents on a line. Of more than 2000 a random choice is taken.

    Args:
        xy: latents on the map, `Slice.project`.
        x: the interval of the first coordinate.
        y: the interval of the second one.
        side: grid nodes along each axis.
        seed: of the choice.

    Source: Scott, *Multivariate Density Estimation*, 1992; `scipy.stats.gaussian_kde`.
    """
    points = xy[np.isfinite(xy).all(1)]
    if len(points) > _MOST_KERNELS:
        points = points[np.random.default_rng(seed).permutation(len(points))[:_MOST_KERNELS]]
    if len(points) < 3 or np.linalg.matrix_rank(points - points.mean(0)) < 2:
        return None
    values = gaussian_kde(points.T)(_grid(x, y, side).T).reshape(side, side)
    return Field(
        "density of the latents",
        "How many latents lie around each place: a sum of Gaussian bumps, one for each latent.",
        "p(z) = 1/n Σ N(z; z_i, H)",
        "latents per unit of area, as a share of all",
        values,
        x,
        y,
    )


def decoder_uncertainty(
    manifold: Manifold, plane: Slice, x: Interval, y: Interval, *, side: int = SIDE
) -> Field | None:
    """How uncertain the decoder is, ``None`` for one that does not say.

    For `MeanAndDeviation` the root mean square of σ over the outputs; for an `Ensemble` the root mean square of the
    members' standard deviation.

    Args:
        manifold: the whole manifold, before `Slice.restrict`.
        plane: the plane that is shown.
        x: the interval of the map's first coordinate.
        y: the interval of the second one.
        side: grid nodes along each axis.
    """
    if not isinstance(manifold, PullbackManifold):
        return None
    decoder = manifold.in_double().decoder
    spread: Callable[[Tensor], Tensor]
    if isinstance(decoder, MeanAndDeviation):
        words = "The decoder's own standard deviation σ: root mean square over its outputs."
        formula = "√(1/D Σ_j σ_j(z)²)"
        deviation = decoder.deviation

        def spread(z: Tensor) -> Tensor:
            return deviation(z).flatten(1).square().mean(1).sqrt()

    elif isinstance(decoder, Ensemble) and decoder.count > 1:
        words = "How much the ensemble's members differ: root mean square of their standard deviation over the outputs."
        formula = "√(1/D Σ_j Var_s f_s,j(z))"
        count = decoder.count

        def spread(z: Tensor) -> Tensor:
            members = decoder(z).unflatten(1, (count, -1)) * count**0.5
            return members.var(1).mean(1).sqrt()

    else:
        return None
    values = _evaluated(manifold.in_double(), plane, x, y, side, spread)
    return Field("decoder uncertainty", words, formula, "unit of the output", values, x, y)


def scalar_curvature(manifold: Manifold, plane: Slice, x: Interval, y: Interval, *, side: int = 24) -> Field | None:
    """The scalar curvature of the whole latent space on the plane; ``None`` for two latents: the page computes that.

    Places at which it does not exist (a singular metric, no second derivatives) are empty; ``None`` where it exists
    nowhere.

    Args:
        manifold: the whole manifold, before `Slice.restrict`.
        plane: the plane that is shown.
        x: the interval of the map's first coordinate.
        y: the interval of the second one.
        side: grid nodes along each axis.

    Cost: side² evaluations of `Manifold.scalar_curvature`.
    """
    if len(plane.origin) <= 2:
        return None
    double = manifold.in_double()

    def curvature(z: Tensor) -> Tensor:
        return where_defined(double.scalar_curvature, (), z)

    try:
        values = _evaluated(double, plane, x, y, side, curvature)
    except GeometryError:
        return None
    if not np.isfinite(values).any():
        return None
    return Field(
        "scalar curvature",
        "Curvature of the whole latent space, not of the slice: the sum over all pairs of directions; positive where "
        "geodesics draw together, negative where they spread.",
        "S = Σ_{i≠j} K(e_i, e_j)",
        "1 / unit of length²",
        values,
        x,
        y,
    )


def _grid(x: Interval, y: Interval, side: int) -> Float64[np.ndarray, "n 2"]:
    if side < 2:
        raise OptionError(f"viz.explore: side must be at least 2, got {side}.")
    return np.stack(np.meshgrid(np.linspace(*x, side), np.linspace(*y, side)), -1).reshape(-1, 2)


def _evaluated(
    manifold: Manifold, plane: Slice, x: Interval, y: Interval, side: int, function: Callable[[Tensor], Tensor]
) -> Float64[np.ndarray, "ny nx"]:
    z = at_home(manifold, plane.lift(torch.from_numpy(_grid(x, y, side))))
    with torch.no_grad():
        values = torch.cat([function(part.clone()) for (part,) in counted(FIELDS.split(z))])
    numbers = values.double().numpy(force=True).reshape(side, side)
    return np.where(np.isfinite(numbers), numbers, np.nan)
