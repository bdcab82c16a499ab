"""Central differences with two Richardson extrapolations: the derivative that knows nothing of autograd."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import OptionError


def central_difference(
    function: Callable[[Tensor], Tensor], point: Float[Tensor, " n"], step: float = 1e-2
) -> Float[Tensor, "*out n"]:
    """∂f/∂p_i for every i, error O(h⁶) plus rounding of about ``1e-15 |f| / h``.

    With D(h) = (f(p + h e_i) - f(p - h e_i)) / 2h = f' + c₂h² + c₄h⁴ + ..., the combination
    (64 D(h/4) - 20 D(h/2) + D(h)) / 45 cancels c₂ and c₄ (Richardson, twice).

    Args:
        function: ``(n,) -> (*out)``.
        point: float64 point ``(n,)``.
        step: largest step h.

    Returns:
        ``(*out, n)``, the derivative's axis last.

    Raises:
        OptionError: ``step`` is not positive.

    Cost: 6 n evaluations.

    Example:
        >>> central_difference(torch.sin, torch.zeros(1, dtype=torch.float64)).round(decimals=12)
        tensor([[1.]], dtype=torch.float64)
    """
    if not step > 0:
        raise OptionError(f"central_difference: step must be positive, got {step}. Take 1e-2 for smooth functions.")
    nodes = point + offsets(point.numel(), step).to(point)
    return combine(torch.stack([function(node) for node in nodes]), step)


def offsets(n: int, step: float) -> Float[Tensor, "m n"]:
    """Where a derivative in n coordinates looks: for each of three steps, forth and back along every axis (m = 6n).

    Raises:
        OptionError: ``step`` is not positive.
    """
    if not step > 0:
        raise OptionError(f"central_difference: step must be positive, got {step}. Take 1e-2 for smooth functions.")
    axes = torch.eye(n, dtype=torch.float64)
    return torch.cat([sign * h * axes for h in (step, step / 2, step / 4) for sign in (1, -1)])


def combine(values: Float[Tensor, "m *out"], step: float) -> Float[Tensor, "*out n"]:
    """The derivative from the values at `offsets`."""
    wide, middle, narrow = (
        (forth - back) / (2 * h)
        for (forth, back), h in zip(values.unflatten(0, (3, 2, -1)), (step, step / 2, step / 4), strict=True)
    )
    return ((64 * narrow - 20 * middle + wide) / 45).movedim(0, -1)
