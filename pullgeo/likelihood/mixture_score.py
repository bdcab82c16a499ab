"""The Fisher information of mixtures, in the logits of the weights and the parameters of the components."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.transforms import vjp
from pullgeo.likelihood.mixture_nodes import Nodes
from pullgeo.metric.base import Metric
from pullgeo.numerics.chunking import PASSES


@dataclass(frozen=True, eq=False)
class MixtureScores(Metric):
    """``Σ_i W_i s_i s_iᵀ`` at each location, with the scores ``s_i = ∂ log p(x_i)`` at nodes: never negative.

    The nodes stay where they are when the scores are taken.

    Args:
        nodes: the sum that stands for the expectation.
        y: the parameters, ``(b, s, C)``, as `MixtureLayout` packs them.
    """

    nodes: Nodes
    y: Float[Tensor, "b s C"]

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Locations times parameters."""
        return self.y.shape[1] * self.y.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        return self.y.dtype

    def apply(self, v: Float[Tensor, "*k b n"]) -> Float[Tensor, "*k b n"]:
        """``Σ_i W_i s_i ⟨s_i, v⟩``. Cost: one backward pass through the log-density at all nodes."""
        self._check("apply", v)
        stack = v.reshape(-1, *self.y.shape)
        parts = []
        for part, scores, weights in self._parts():
            along = torch.einsum("nbsc,kbsc->knbs", scores, stack[:, part]) * weights
            parts.append(torch.einsum("nbsc,knbs->kbsc", scores, along))
        return (torch.cat(parts, 1) if parts else stack).reshape(v.shape)

    def quadratic(self, T: Float[Tensor, "k b n"]) -> Float[Tensor, "k b"]:
        """``Σ_i W_i ⟨s_i, T⟩²``. Cost: as `apply`."""
        return torch.cat([T.new_zeros(len(T), 0), *self._squares(T)], 1)

    def squares(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k n b s"]:
        """``W_i ⟨s_i, T⟩²`` of every node and location: their sum is `quadratic`, and their spread its error."""
        x, weights = self.nodes.at(self.y)
        scores = _scores(self.nodes, self.y, x)
        return weights * torch.einsum("nbsc,kbsc->knbs", scores, T.reshape(len(T), *self.y.shape)).square()

    def dense(self) -> Float[Tensor, "b n n"]:
        """The matrices, with zeros between the locations."""
        s, C = self.y.shape[1:]
        blocks = [self.y.new_zeros(0, s, C, C)]
        blocks += [torch.einsum("nbs,nbsc,nbsd->bscd", W, scores, scores) for _, scores, W in self._parts()]
        whole = torch.einsum("bscd,st->bsctd", torch.cat(blocks), torch.eye(s, dtype=self.dtype, device=self.y.device))
        return whole.reshape(len(self.y), self.dim, self.dim)

    def diag(self) -> Float[Tensor, "b n"]:
        """The diagonals."""
        found = [torch.einsum("nbs,nbsc->bsc", W, scores.square()) for _, scores, W in self._parts()]
        return torch.cat([self.y[:0], *found]).flatten(1)

    def _squares(self, T: Tensor) -> Iterator[Tensor]:
        for part, scores, weights in self._parts():
            along = torch.einsum("nbsc,kbsc->knbs", scores, T[:, part].reshape(len(T), -1, *self.y.shape[1:]))
            yield (weights * along.square()).sum((1, 3))

    def _parts(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Scores and weights of some rows at a time."""
        if not len(self.y):
            return
        each = self.y[0].numel() * self.y.element_size() * 512
        for part in PASSES.slices(len(self.y), each):
            y = self.y[part]
            x, weights = self.nodes.at(y)
            yield part, _scores(self.nodes, y, x), weights


def _scores(nodes: Nodes, y: Float[Tensor, "b s C"], x: Float[Tensor, "n #b #s *event"]) -> Float[Tensor, "n b s C"]:
    wide = y.expand(len(x), *y.shape)
    log_p, pull = vjp(lambda theta: nodes.layout.log_density(theta, x), wide)
    scores: Tensor = pull(torch.ones_like(log_p))[0]
    return scores
