"""Metrics whose root is a structured map."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.contractions import flat, gram
from pullgeo.metric.base import Metric


class FactoredMetric(Metric):
    """``M = R Rᵀ`` with a root ``R`` that is a map of its own and is never multiplied out.

    Products go through the root, ``⟨Rᵀ u, Rᵀ v⟩``, so that grams are positive whatever the rounding.
    """

    @property
    @abstractmethod
    def root_map(self) -> Jacobian:
        """``R``, from r coordinates to the space in which the metric lives, whose shape it may keep."""

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Dimension of the space where the root ends."""
        return self.root_map.signature.n_out

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the root."""
        return self.root_map.signature.dtype

    def apply(self, v: Float[Tensor, "*k b n"]) -> Float[Tensor, "*k b n"]:
        """``R Rᵀ v``."""
        self._check("apply", v)
        return self.root_map.push(self._seen(v)).reshape(v.shape)

    def inner(self, u: Float[Tensor, "*k b n"], v: Float[Tensor, "*k b n"]) -> Float[Tensor, "*k b"]:
        """``⟨Rᵀ u, Rᵀ v⟩``.

        Raises:
            ShapeError: the vectors do not live in this tangent space.
        """
        self._check("inner", u)
        self._check("inner", v)
        left = self._seen(u)
        return (flat(left) * flat(left if v is u else self._seen(v))).sum(-1).reshape(u.shape[:-1])

    def gram(self, T: Float[Tensor, "k b n"]) -> Float[Tensor, "b k k"]:
        """``⟨Rᵀ T_i, Rᵀ T_j⟩`` for a stack of k tangents."""
        seen = self._seen(T)
        return gram(seen, seen)

    def quadratic(self, T: Float[Tensor, "k b n"]) -> Float[Tensor, "k b"]:
        """``‖Rᵀ T_i‖²`` for a stack of k tangents."""
        return flat(self._seen(T)).square().sum(-1)

    def dense(self) -> Float[Tensor, "b n n"]:
        """The matrices."""
        R = self.root_map.dense()
        return R @ R.mT

    def diag(self) -> Float[Tensor, "b n"]:
        """The squared rows of the root, added up."""
        s = self.root_map.signature
        ones = torch.ones(1, s.batch, *s.in_shape, dtype=s.dtype, device=s.device)
        return flat(self.root_map.push_squared(ones)).squeeze(0)

    def root(self) -> Float[Tensor, "b n r"]:
        """``R`` as matrices."""
        return self.root_map.dense()

    def columns(self, part: slice) -> Float[Tensor, "k b n"]:
        """Some columns of the root."""
        R = self.root_map
        return flat(R.push(R.signature.in_basis()[part]))

    def _seen(self, v: Tensor) -> Tensor:
        R = self.root_map
        return R.pull(v.reshape(v.shape[:-2].numel(), v.shape[-2], *R.signature.out_shape))


@dataclass(frozen=True, eq=False)
class Factored(FactoredMetric):
    """``M = R Rᵀ`` for a root that is given as a map.

    Args:
        R: the root.
    """

    R: Jacobian

    @property
    def root_map(self) -> Jacobian:
        """``R``."""
        return self.R
