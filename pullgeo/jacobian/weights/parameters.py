"""Where each parameter of a module stands in its flat vector of weights.

A complex parameter has two coordinates for each entry, its real and its imaginary part, in the order of
``torch.view_as_real``; so all weights are one real vector, and its gradient is what torch keeps in ``grad``.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn


def coordinate_count(parameter: Tensor) -> int:
    """How many real numbers a parameter holds."""
    return parameter.numel() * (2 if parameter.is_complex() else 1)


def to_coordinates(parameter: Tensor) -> Float[Tensor, " n"]:
    """The real numbers that a parameter holds, connected to it for differentiation."""
    real = torch.view_as_real(parameter.resolve_conj()) if parameter.is_complex() else parameter
    return real.reshape(-1)


def from_coordinates(flat: Float[Tensor, "*b n"], parameter: Tensor) -> Num[Tensor, "..."]:
    """What the coordinates of a parameter stand for: tensors of its shape, complex if it is."""
    if not parameter.is_complex():
        return flat.reshape(*flat.shape[:-1], *parameter.shape)
    pairs = flat.reshape(*flat.shape[:-1], *parameter.shape, 2)
    return torch.complex(pairs[..., 0], pairs[..., 1])  # view_as_complex fails under transforms


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
        return sum(map(coordinate_count, self.parameters))

    def vector(self) -> Float[Tensor, " p"]:
        """The weights as one vector, connected to the parameters for differentiation."""
        return torch.cat([to_coordinates(p) for p in self.parameters])

    def split(self, theta: Num[Tensor, "*b p"]) -> list[Num[Tensor, "*b _"]]:
        """The flat pieces that belong to each parameter."""
        return list(theta.split([coordinate_count(p) for p in self.parameters], dim=-1))

    def named(self, theta: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """Parameters by name, in their own shapes, as ``torch.func.functional_call`` takes them."""
        pieces = self.split(theta)
        return {n: from_coordinates(piece, p) for n, p, piece in zip(self.names, self.parameters, pieces, strict=True)}

    def gather(self, theta: Float[Tensor, "*b p"], parameters: Iterable[nn.Parameter]) -> Float[Tensor, "*b _"]:
        """The coordinates of the given parameters, in the given order."""
        pieces = {id(p): piece for p, piece in zip(self.parameters, self.split(theta), strict=True)}
        return torch.cat([pieces[id(p)] for p in parameters], dim=-1)
