"""The curvature of a learned manifold."""

from torch import Tensor

from pullgeo.errors import GeometryError
from pullgeo.manifold import curvature
from pullgeo.manifold.chart import Chart, rows


class Curved(Chart):
    """A chart's curvature. Signs and indices are the same throughout, and stated at `riemann_tensor`."""

    def riemann_tensor(self, z: Tensor) -> Tensor:
        """``R^l_ijk`` as ``[*b, l, i, j, k]``, component l of ``R(∂_i, ∂_j)∂_k``.

        ``R(X, Y)Z = ∇_X ∇_Y Z - ∇_Y ∇_X Z - ∇_[X,Y] Z``. With an `immersion` by the equation of Gauss,
        ``R_lijk = ⟨II_jk, II_il⟩ - ⟨II_ik, II_jl⟩``; else ``∂_i Γ^l_jk - ∂_j Γ^l_ik + Γ^l_im Γ^m_jk - Γ^l_jm Γ^m_ik``.

        Cost: d(d+1)/2 second-order passes with an immersion; else d times `christoffel` and two backward passes.
        """
        return curvature.riemann_tensor(self, rows(z)).reshape(*z.shape, *z.shape[-1:] * 3)

    def ricci(self, z: Tensor) -> Tensor:
        """``Ric_jk = R^i_ijk`` as ``[*b, j, k]``; ``(d - 1)/r² G`` on a sphere of radius r.

        Cost: as `riemann_tensor`.
        """
        return curvature.ricci(self, rows(z)).reshape(*z.shape, z.shape[-1])

    def scalar_curvature(self, z: Tensor) -> Tensor:
        """``S = G^jk Ric_jk``, ``(*b)``; ``d(d - 1)/r²`` on a sphere of radius r. Cost: as `riemann_tensor`."""
        return curvature.scalar_curvature(self, rows(z)).reshape(z.shape[:-1])

    def sectional_curvature(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """``⟨R(u, v)v, u⟩ / (‖u‖² ‖v‖² - ⟨u, v⟩²)``, ``(*b)``; ``+1/r²`` on a sphere, NaN where u, v span no plane.

        Cost: three second-order passes with an `immersion`, two connections and their derivatives otherwise.

        Example:
            >>> import torch
            >>> from pullgeo import PullbackManifold
            >>> def saddle(z):  # (x, y, xy)
            ...     return torch.cat([z, z[:, :1] * z[:, 1:]], 1)
            >>> PullbackManifold(saddle).sectional_curvature(torch.zeros(1, 2), *torch.eye(2))
            tensor([-1.])
        """
        lead, (z, u, v) = self._flat("sectional_curvature", z, u, v)
        return curvature.sectional_curvature(self, z, u, v).reshape(lead)

    def second_fundamental_form(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """``II(u, v) = f''(u, v) - J G⁻¹ JᵀM f''(u, v)``, ``(*b, D)``: the normal part of the second derivative.

        Raises:
            GeometryError: the manifold is not immersed in a flat space.
            SingularMetricError: the decoder squashes a direction at a point.
        """
        lead, (z, u, v) = self._flat("second_fundamental_form", z, u, v)
        immersion = self.immersion(z)
        if immersion is None:
            raise GeometryError(
                f"{type(self).__name__}.second_fundamental_form: expected a manifold immersed in a flat space by a "
                "decoder, got one that is given by its metric or whose ambient space is curved. riemann_tensor and "
                "sectional_curvature serve every manifold."
            )
        return immersion.second_form(u.unsqueeze(0), v.unsqueeze(0)).reshape(*lead, immersion.tangents.shape[2])
