"""The Fisher information of class logits: diagonal minus rank one at every location."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import SingularMetricError
from pullgeo.jacobian.base import LinearKind
from pullgeo.jacobian.signature import Signature
from pullgeo.metric.rooted import FactoredMetric


@dataclass(frozen=True, eq=False)
class CategoricalFisher(FactoredMetric):
    """``M = diag p - p pᵀ`` over the classes of each location; coordinates are classes first, then locations.

    All products come of ``log p``, so they stay finite and keep their digits whatever the size of the logits. ``M`` is
    singular: adding the same number to all logits of a location changes nothing.

    Args:
        log_p: logarithms of the probabilities, ``(b, c, s)`` with c classes at each of s locations.

    Example:
        >>> M = CategoricalFisher(torch.tensor([[[0.5], [0.25], [0.25]]]).log())
        >>> M.dense()
        tensor([[[ 0.2500, -0.1250, -0.1250],
                 [-0.1250,  0.1875, -0.0625],
                 [-0.1250, -0.0625,  0.1875]]])
    """

    log_p: Float[Tensor, "b c s"]

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Classes times locations."""
        return self.log_p.shape[1] * self.log_p.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the logarithms."""
        return self.log_p.dtype

    @property
    def root_map(self) -> "CategoricalRoot":
        """``diag(√p) (1 - √p √pᵀ)`` at every location."""
        return CategoricalRoot((0.5 * self.log_p).exp())

    def apply(self, v: Float[Tensor, "*k b n"]) -> Float[Tensor, "*k b n"]:
        """``p (v - Σ p v)``."""
        self._check("apply", v)
        p, shaped = self.log_p.exp(), v.reshape(*v.shape[:-2], *self.log_p.shape)
        return (p * (shaped - (p * shaped).sum(-2, keepdim=True))).reshape(v.shape)

    def dense(self) -> Float[Tensor, "b n n"]:
        """The matrices, with zeros between the locations."""
        p = self.log_p.exp()
        blocks = (p * -self.log_p.expm1()).movedim(1, -1).diag_embed() - _products_of_others(p.movedim(1, -1))
        places = torch.eye(p.shape[2], dtype=p.dtype, device=p.device)
        return torch.einsum("bscd,st->bcsdt", blocks, places).reshape(len(p), self.dim, self.dim)

    def diag(self) -> Float[Tensor, "b n"]:
        """``p (1 - p)``, with all its digits where p is close to one."""
        return (self.log_p.exp() * -self.log_p.expm1()).reshape(len(self.log_p), self.dim)

    def solve(self, w: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """There is no inverse.

        Raises:
            SingularMetricError: always.
            ShapeError: ``w`` does not live in this cotangent space.
        """
        self._check("solve", w)
        raise SingularMetricError(
            "CategoricalFisher.solve: M is singular at every point, because logits that differ by a constant give the "
            "same probabilities. Pull it back to a space without that direction first, or add a small multiple of the "
            "identity."
        )

    def logdet(self) -> Float[Tensor, " b"]:
        """Minus infinity: the metric is singular."""
        return self.log_p.new_full((len(self.log_p),), -torch.inf)


@dataclass(frozen=True, eq=False)
class CategoricalRoot(LinearKind):
    """``R = diag(a) (1 - a aᵀ)`` at each location, for the amplitudes ``a = √p``, which are unit vectors there.

    Args:
        amplitudes: ``(b, c, s)``.
    """

    amplitudes: Float[Tensor, "b c s"]

    @property
    def signature(self) -> Signature:  # type: ignore[override]
        """``(c, s) -> (c, s)``."""
        return Signature.between(self.amplitudes, self.amplitudes)

    def push(self, T: Float[Tensor, "k b c s"]) -> Float[Tensor, "k b c s"]:
        """``a (T - a Σ a T)``."""
        return self.amplitudes * self._projected(T)

    def pull(self, W: Float[Tensor, "k b c s"]) -> Float[Tensor, "k b c s"]:
        """``a W`` without its part along ``a``."""
        return self._projected(self.amplitudes * W)

    def _projected(self, T: Tensor) -> Tensor:
        return T - self.amplitudes * (self.amplitudes * T).sum(-2, keepdim=True)


def _products_of_others(p: Tensor) -> Tensor:
    """``p pᵀ`` without its diagonal."""
    products = p.unsqueeze(-1) * p.unsqueeze(-2)
    return products - products.diagonal(dim1=-2, dim2=-1).diag_embed()
