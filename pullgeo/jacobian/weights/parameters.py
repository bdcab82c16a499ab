"""Where each parameter of a module stands in its flat vector of weights."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class ParameterLayout:
    """The order of ``torch.nn.utils.parameters_to_vector(module.parameters())``: each distinct parameter once."""

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]

    @classmethod
    def of(cls, module: nn.Module) -> "ParameterLayout":
        """The layout of a module's own parameter vector."""
        named = list(module.named_parameters())
        return cls(tuple(name for name, _ in named), tuple(p for _, p in named))

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.parameters)

    def vector(self) -> Float[Tensor, " p"]:
        """The weights as one vector, connected to the parameters for differentiation."""
        return torch.cat([p.reshape(-1) for p in self.parameters])

    def split(self, theta: Float[Tensor, "*b p"]) -> list[Float[Tensor, "*b _"]]:
        """The flat pieces that belong to each parameter."""
        return list(theta.split([p.numel() for p in self.parameters], dim=-1))

    def named(self, theta: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """Parameters by name, in their own shapes, as ``torch.func.functional_call`` takes them."""
        pieces = self.split(theta)
        return {n: piece.view(p.shape) for n, p, piece in zip(self.names, self.parameters, pieces, strict=True)}

    def gather(self, theta: Float[Tensor, "*b p"], parameters: Iterable[nn.Parameter]) -> Float[Tensor, "*b _"]:
        """The coordinates of the given parameters, in the given order."""
        pieces = {id(p): piece for p, piece in zip(self.parameters, self.split(theta), strict=True)}
        return torch.cat([pieces[id(p)] for p in parameters], dim=-1)
