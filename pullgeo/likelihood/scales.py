"""What a network may put out for the spread of a Gaussian."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


class Scale(ABC):
    """A parameter ``s`` of the standard deviation: ``log σ`` as a function of it, with two derivatives."""

    @abstractmethod
    def log_std(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """``log σ``."""

    @abstractmethod
    def slope(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """``∂ log σ/∂s``."""

    @abstractmethod
    def curvature(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """``∂² log σ/∂s²``."""


@dataclass(frozen=True)
class Std(Scale):
    """``s = σ``, positive."""

    def log_std(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """``log s``."""
        return s.log()

    def slope(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """``1/s``."""
        return s.reciprocal()

    def curvature(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """``-1/s²``."""
        return -s.square().reciprocal()


@dataclass(frozen=True)
class LogStd(Scale):
    """``s = log σ``."""

    def log_std(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """``s``."""
        return s

    def slope(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """One."""
        return torch.ones_like(s)

    def curvature(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Zero."""
        return torch.zeros_like(s)


@dataclass(frozen=True)
class Variance(Scale):
    """``s = σ²``, positive."""

    def log_std(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """``½ log s``."""
        return 0.5 * s.log()

    def slope(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """``1/(2s)``."""
        return 0.5 * s.reciprocal()

    def curvature(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """``-1/(2s²)``."""
        return -0.5 * s.square().reciprocal()


@dataclass(frozen=True)
class LogVariance(Scale):
    """``s = log σ²``."""

    def log_std(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """``s/2``."""
        return 0.5 * s

    def slope(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """One half."""
        return torch.full_like(s, 0.5)

    def curvature(self, s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Zero."""
        return torch.zeros_like(s)
