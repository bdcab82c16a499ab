"""One of several classes at each location."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from pullgeo.errors import ShapeError
from pullgeo.likelihood.base import Likelihood, euclidean, per_sample
from pullgeo.likelihood.categorical_fisher import CategoricalFisher
from pullgeo.likelihood.embeddings import CategoricalSphere


@dataclass(frozen=True, eq=False)
class Categorical(Likelihood):
    """Classes with logits ``η`` along axis 1: ``(b, C)`` or ``(b, C, *s)`` with a class at each location.

    Targets are class indices ``(b, *s)`` of an integer dtype, or probabilities ``(b, C, *s)`` that sum to one over the
    classes, such as one-hot vectors. Everything is finite for logits of any size.

    Example:
        >>> logits = torch.tensor([[0.0, 1e4, 0.0]])
        >>> Categorical().nll(logits, torch.tensor([1])), Categorical().nll(logits, torch.tensor([2]))
        (tensor([0.]), tensor([10000.]))
    """

    def fisher(self, eta: Float[Tensor, "b *out"]) -> CategoricalFisher:
        """``diag p - p pᵀ`` at each location."""
        self._check_eta("fisher", eta)
        log_p = torch.log_softmax(eta, 1)
        return CategoricalFisher(log_p.reshape(len(eta), eta.shape[1], eta.shape[2:].numel()))

    def sample(self, eta: Float[Tensor, "b *out"], generator: torch.Generator, count: int = 1) -> Int[Tensor, "k b *s"]:
        """Class indices."""
        self._check_eta("sample", eta)
        places = (len(eta), *eta.shape[2:])
        p = torch.softmax(eta, 1).movedim(1, -1).reshape(-1 if eta.numel() else 0, eta.shape[1])
        if len(p) == 0:
            return torch.zeros(count, *places, dtype=torch.long, device=eta.device)
        drawn = torch.multinomial(p, count, replacement=True, generator=generator)
        return drawn.T.reshape(count, *places)

    @property
    def embedding(self) -> CategoricalSphere:
        """``2 √p``, on a sphere of radius 2 at each location."""
        return CategoricalSphere()

    def distance(self, eta: Float[Tensor, "b *out"], other: Float[Tensor, "b *out"]) -> Float[Tensor, " b"]:
        """``2 arccos Σ √(p p')``, the great-circle distance; over locations the root of the sum of squares."""
        self._check_pair(eta, other)
        a, b = (0.5 * torch.log_softmax(eta, 1)).exp(), (0.5 * torch.log_softmax(other, 1)).exp()
        # the half angle from both chords has its digits at every distance, which the arc cosine has not
        near, far = torch.linalg.vector_norm(a - b, dim=1), torch.linalg.vector_norm(a + b, dim=1)
        return euclidean(4 * torch.atan2(near, far))

    def _nll(self, eta: Tensor, target: Tensor) -> Tensor:
        log_p = torch.log_softmax(eta, 1)
        if target.is_floating_point():
            return per_sample(-(target * log_p).sum(1))
        return per_sample(-log_p.gather(1, target.unsqueeze(1)).squeeze(1))

    def _gradient(self, eta: Tensor, target: Tensor) -> Tensor:
        p = torch.softmax(eta, 1)
        if target.is_floating_point():
            return p - target
        return p - torch.zeros_like(p).scatter(1, target.unsqueeze(1), 1.0)

    def _checked(self, where: str, eta: Tensor, target: Shaped[Tensor, "b *t"]) -> Tensor:
        self._check_eta(where, eta)
        indices = not target.is_floating_point()
        expected = (len(eta), *eta.shape[2:]) if indices else eta.shape
        if target.shape != expected:
            raise ShapeError(
                f"Categorical.{where}: for an output of shape {tuple(eta.shape)} the target must be class indices of "
                f"shape {(len(eta), *eta.shape[2:])} and an integer dtype, or probabilities of shape "
                f"{tuple(eta.shape)} and a floating point dtype; got {target.dtype} of shape {tuple(target.shape)}."
            )
        if indices:
            fits = (target >= 0) & (target < eta.shape[1])
            self._require(where, fits, f"class indices from 0 to {eta.shape[1] - 1}")
            return target.long()
        sums = target.sum(1)
        fits = (target >= 0).all(1) & ((sums - 1).abs() < 1e-3)
        self._require(where, fits, "probabilities that sum to one over axis 1")
        return target.to(eta.dtype)

    def _check_eta(self, where: str, eta: Tensor) -> None:
        super()._check_eta(where, eta)
        if eta.ndim < 2 or eta.shape[1] == 0:
            raise ShapeError(
                f"Categorical.{where}: the output must have shape (b, C, *s) with the classes along axis 1, got "
                f"{tuple(eta.shape)}."
            )
