"""How an immersed manifold bends away from its tangent spaces."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.metric.base import Metric
from pullgeo.metric.structured import Dense


@dataclass(frozen=True, eq=False)
class Immersion:
    """A map f into a flat space, to second order at b points.

    Args:
        tangents: the columns of ``J``, ``(d, b, D)``.
        second_derivative: ``f''(T_k, S_k)`` for stacks of k pairs of tangents: ``(k, b, d)`` twice to ``(k, b, D)``.
        ambient: the constant inner product M of the flat space.
    """

    tangents: Float[Tensor, "d b D"]
    second_derivative: Callable[[Tensor, Tensor], Tensor]
    ambient: Metric

    def second_form(self, T: Float[Tensor, "k b d"], S: Float[Tensor, "k b d"]) -> Float[Tensor, "k b D"]:
        """``II(T_k, S_k)``: the part of ``f''(T_k, S_k)`` that is normal, ``f'' - J G⁻¹ Jᵀ M f''``.

        Raises:
            SingularMetricError: the map squashes a direction at a point.
        """
        normal = self.second_derivative(T, S)
        G = Dense(self.ambient.gram(self.tangents))
        # what the first projection leaves tangent by rounding, where G is badly conditioned, the second removes
        for _ in range(2):
            force = torch.einsum("ibo,kbo->kbi", self.tangents, self.ambient.apply(normal))
            normal = normal - torch.einsum("ibo,kbi->kbo", self.tangents, G.solve(force))
        return normal

    def all_second_forms(self) -> Float[Tensor, "d d b D"]:
        """``II(∂_i, ∂_j)`` for all i and j. Cost: d(d+1)/2 second-order passes in one stack."""
        d, b, D = self.tangents.shape
        i, j = torch.triu_indices(d, d, device=self.tangents.device)
        basis = torch.eye(d, dtype=self.tangents.dtype, device=self.tangents.device)
        T, S = (basis[k].unsqueeze(1).expand(-1, b, -1) for k in (i, j))
        forms = self.second_form(T, S)
        return forms.new_zeros(d, d, b, D).index_put((i, j), forms).index_put((j, i), forms)
