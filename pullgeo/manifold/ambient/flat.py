"""Flat space: a constant metric on the output, and what is isometrically embedded in Euclidean space."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._repr import function_text
from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.energy.chord import ChordEnergy
from pullgeo.jacobian.contractions import flat
from pullgeo.manifold.ambient.base import Ambient, Decode, Expand
from pullgeo.metric.base import Metric
from pullgeo.metric.structured import Identity


@dataclass(frozen=True, eq=False)
class Flat(Ambient):
    """R^D with the constant metric ``matrix``, Euclidean if it is ``None``.

    A sphere or a Stiefel manifold whose metric is that of the matrices around it is flat in this sense: the outputs lie
    on it (``constraint``), and lengths in it are lengths in the space around it.

    Raises:
        OptionError: the metric has a batch of points.
    """

    matrix: Metric | None = None

    def __post_init__(self) -> None:
        if self.matrix is not None and self.matrix.diag().ndim != 1:
            raise OptionError(
                "PullbackManifold: ambient must be a constant metric without a batch, such as Identity(D), "
                f"Diagonal(values) with values (D,), Dense(matrix) with matrix (D, D); got {self.matrix!r}. For a "
                "metric that depends on the output pass the function that computes it."
            )

    def __repr__(self) -> str:
        space = "Euclidean" if self.matrix is None else repr(self.matrix)
        return space if self.embedding is None else f"{space} after {function_text(self.embedding)}"

    def metric(self, y: Float[Tensor, "b *out"]) -> Metric:
        """The constant M.

        Raises:
            ShapeError: it is of another dimension than the output.
        """
        D = torch.Size(y.shape[1:]).numel()
        if self.matrix is None:
            return _identity(D, y.dtype, y.device)
        if self.matrix.dim != D:
            raise ShapeError(
                f"PullbackManifold: the decoder's flattened output has dimension {D} and the ambient metric lives in "
                f"dimension {self.matrix.dim}. They must be the same."
            )
        return self.matrix

    def segment_energy(self, a: Float[Tensor, "n *out"], b: Float[Tensor, "n *out"]) -> Float[Tensor, " n"]:
        """``(b - a)ᵀ M (b - a)``."""
        step = (b - a).flatten(1)
        return (step * self.metric(a).apply(step)).sum(-1)

    def lowered_christoffel(
        self, y: Float[Tensor, "b *out"], u: Float[Tensor, "b D"], w: Float[Tensor, "b D"]
    ) -> Float[Tensor, "b D"]:
        """Zero."""
        return torch.zeros_like(u)

    def discretise(self, expand: Expand, decode: Decode) -> DiscreteEnergy:
        """Chords and the bends between them, of fourth order."""
        return ChordEnergy(_flattened(decode), expand, self.matrix)


@lru_cache(maxsize=64)
def _identity(D: int, dtype: torch.dtype, device: torch.device) -> Identity:
    return Identity(D, dtype, device)


def _flattened(decode: Decode) -> Decode:
    def flattened(z: Tensor) -> Tensor:
        y = decode(z)
        return y if y.ndim == 2 else flat(y.unsqueeze(0)).squeeze(0)

    return flattened
