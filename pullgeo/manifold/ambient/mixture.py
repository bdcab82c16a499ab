"""Mixtures as points of a space with the Fisher-Rao metric."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td

from pullgeo._torch.plain_memory import inference_named, outside_inference
from pullgeo.likelihood.mixture_layout import MixtureLayout
from pullgeo.likelihood.mixture_nodes import Listed, Nodes
from pullgeo.likelihood.mixture_score import MixtureScores
from pullgeo.manifold.ambient.base import Ambient
from pullgeo.numerics.chunking import PASSES


@dataclass(frozen=True, eq=False)
class MixtureInformation(Ambient):
    """Parameters of mixtures, as `MixtureLayout` packs them, with the Fisher information by a sum over nodes.

    The energy of a segment is ``Σ_i W_i (log p_b(x_i) - log p_a(x_i))²`` with the nodes of its middle. As the
    difference is odd in the step, it is the midpoint rule up to the fourth power of the length, and it has no
    derivative inside.

    Args:
        nodes: the sum that stands for the expectation.
    """

    nodes: Nodes

    def __repr__(self) -> str:
        return f"its Fisher information by {self.nodes}"

    def metric(self, y: Float[Tensor, "b s C"]) -> MixtureScores:
        """The information at each location."""
        with inference_named():
            return MixtureScores(self.nodes, outside_inference(y))

    def segment_energy(self, a: Float[Tensor, "n s C"], b: Float[Tensor, "n s C"]) -> Float[Tensor, " n"]:
        """By differences of log-densities at the nodes of the middle."""
        if not len(a):  # torch's own densities of matrices do not take that
            return a.sum((1, 2))
        each = a[0].numel() * a.element_size() * 512
        return torch.cat([self.pieces(*part).sum((0, 2)) for part in PASSES.split(a, b, each=each)])

    @property
    def fits_single(self) -> bool:
        """Nodes are held in float64 and rounded to the precision of the parameters."""
        return True

    def pieces(self, a: Float[Tensor, "n s C"], b: Float[Tensor, "n s C"]) -> Float[Tensor, "i n s"]:
        """What every node i adds to the energy of a segment, at each location."""
        x, weights = self.nodes.at((a + b) / 2)
        change = self.nodes.layout.log_density(b, x) - self.nodes.layout.log_density(a, x)
        return weights * change.square()


@dataclass(frozen=True, eq=False)
class RootsOfProbabilities:
    """``2 √p`` of all values of a finite support: an isometry into a Euclidean space.

    Args:
        nodes: the values.
    """

    nodes: Listed

    def __call__(self, mixture: td.MixtureSameFamily) -> Float[Tensor, "b s n"]:
        """The roots."""
        layout: MixtureLayout = self.nodes.layout
        y = layout.pack(mixture)
        x = self.nodes.values.to(y)[:, None, None]
        return 2 * torch.exp(0.5 * layout.log_density(y, x)).movedim(0, -1)
