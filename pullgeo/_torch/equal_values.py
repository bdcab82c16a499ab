"""Singular vectors and eigenvectors where values are equal: what is built of them may have derivatives all the same.

Vectors of equal values have none: they are any basis of their space. Functions of a matrix have, as ``V g(Λ) Vᵀ``,
whose derivative within such a space is ``g'(λ)``; but that is not in the derivatives of vectors and values, which give
0/0. It is the limit of derivatives nearby: while a `Spread` is in force, equal values are moved apart by a size, which
is small beside their distance from other values, and products at several sizes, of both signs, tell the limit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Spread:
    """By how much equal values are moved apart.

    Args:
        size: of that, relative; zero leaves matrices as they are.
        met: whether there were equal values.
    """

    size: float = 0.0
    met: bool = False


_IN_FORCE: ContextVar[Spread | None] = ContextVar("spread", default=None)


@contextmanager
def spreading(size: float = 0.0) -> Iterator[Spread]:
    """Within this context equal values are noted, and moved apart."""
    spread = Spread(size)
    token = _IN_FORCE.set(spread)
    try:
        yield spread
    finally:
        _IN_FORCE.reset(token)


def is_spread() -> bool:
    """Whether equal values are to be moved apart."""
    spread = _IN_FORCE.get()
    return spread is not None and spread.size != 0


def near(values: Tensor) -> Tensor:
    """``(*b, n, n)``: which values are equal, as far as derivatives of vectors can tell.

    Nearer ones leave derivatives of functions of the matrix less than a quarter of their digits.
    """
    gaps = (values.unsqueeze(-1) - values.unsqueeze(-2)).abs()
    return gaps <= rounding(values).unsqueeze(-1)


def rounding(values: Tensor) -> Tensor:
    """``(*b, 1)``: the difference of values that counts as none."""
    return values.abs().amax(-1, keepdim=True) * torch.finfo(values.dtype).eps ** 0.75


def offsets(values: Tensor, zeros: int | None = None) -> Tensor:
    """By how much each value is to be moved: zero, but for those that are equal.

    Args:
        values: ``(*b, n)``, not differentiated.
        zeros: of singular values, how many that vanish have no vectors with derivatives; they are moved to one side.
    """
    spread = _IN_FORCE.get()
    if spread is None or not values.numel():
        return torch.zeros_like(values)
    same, none = near(values), values.abs() <= rounding(values)
    place = torch.arange(values.shape[-1], device=values.device)
    rank, count = (same & (place < place.unsqueeze(-1))).sum(-1), same.sum(-1)
    offset = rank - (count - 1) / 2
    if zeros is not None:
        offset = torch.where(none & (count >= zeros), rank + 1.0, offset)
    if not spread.met:
        spread.met = bool(plain(offset != 0).any())
    if not spread.size:
        return torch.zeros_like(values)
    others = torch.where(same, torch.inf, (values.unsqueeze(-1) - values.unsqueeze(-2)).abs()).amin(-1)
    largest = values.abs().amax(-1, keepdim=True)
    scale = torch.minimum(others, torch.where(none, largest, values.abs()))
    scale = torch.where(same, scale.unsqueeze(-2), torch.inf).amin(-1)
    return spread.size * offset.to(values.dtype) * torch.where(largest == 0, 1.0, scale)


def plain(tensor: Tensor) -> Tensor:
    """What a tensor within transforms holds."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


class WithoutDerivative(torch.autograd.Function):
    """Vectors, some of which have no derivative: what asks for it gets NaN."""

    generate_vmap_rule = True

    @staticmethod
    def forward(vectors: Tensor, lacking: Tensor) -> Tensor:
        """The vectors."""
        return vectors.view_as(vectors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep which."""
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        """The cotangents, or NaN."""
        (lacking,) = ctx.saved_tensors
        # a factor, as the derivative of what is replaced by NaN would be zero
        return cotangents[0] * torch.where(lacking, torch.nan, cotangents[0].new_ones(())), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        """The tangents, or NaN."""
        (lacking,) = ctx.saved_tensors
        return tangents[0] * torch.where(lacking, torch.nan, tangents[0].new_ones(()))
