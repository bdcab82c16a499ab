"""The last layer of a decoder that ends on a manifold."""

import geoopt
from jaxtyping import Float
from torch import Tensor, nn


class ProjectOnto(nn.Module):
    """A geoopt manifold's projection, ``manifold.projx``, as a layer to append to a decoder.

    Example:
        >>> import geoopt, torch
        >>> from pullgeo import PullbackManifold
        >>> from pullgeo.manifold import ProjectOnto
        >>> sphere = geoopt.Sphere()
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3), ProjectOnto(sphere))
        >>> PullbackManifold(decoder, ambient=sphere).geodesic(torch.zeros(2), torch.ones(2))
        Solution(1 pairs: 1 CONVERGED)
    """

    def __init__(self, manifold: geoopt.Manifold) -> None:
        super().__init__()
        self.manifold = manifold

    def forward(self, y: Float[Tensor, "b *out"]) -> Float[Tensor, "b *out"]:
        """The point of the manifold that the projection gives."""
        return self.manifold.projx(y)
