"""Products at points where a matrix in the map has equal eigenvalues or singular values, as limits."""

from collections.abc import Callable

import torch
from torch import Tensor

from pullgeo._torch.equal_values import plain, spreading

_EVEN = torch.tensor([1.5, -0.6, 0.1], dtype=torch.float64)
"""Of values of an even function at 1, 2 and 3: what it is at 0, up to the sixth power."""

_ROUGH = torch.tensor([4 / 3, -1 / 3, 0.0], dtype=torch.float64)
"""The same up to the fourth power, which shows whether there is a limit."""

_ODD = torch.tensor([5.0, -4.0, 1.0], dtype=torch.float64)
"""Of values of an odd function at 1, 2 and 3: zero, up to the fifth power."""


def with_limits(product: Callable[[], Tensor], axis: int = 1) -> Tensor:
    """A product; where equal values make it NaN, its limit as they are moved apart, if that exists.

    The limit is that of the even part in the size h of the move, from six products, with an error of ``O(h⁶)`` and one
    of rounding, ``ε/h`` for first and ``ε/h²`` for second derivatives. They are alike for ``h ~ ε^(1/8)``: about 1e-11
    of the product in double precision, for a function that is smooth over the distance between the matrix's values.
    What has no derivative there, as a vector by itself, has products that grow as ``1/h``, and stays NaN.

    Args:
        product: of all samples; computed again if it is not finite.
        axis: that of samples.

    Cost: as the product, and six times more where there are equal values.
    """
    with spreading() as found:
        value = product()
    if not found.met or bool(torch.isfinite(plain(value)).all()):
        return value
    epsilon = torch.finfo(value.dtype).eps
    sides = []
    for sign in (1, -1):
        moved = []
        for n in (1, 2, 3):
            with spreading(sign * n * epsilon**0.125 / 3):
                moved.append(product())
        sides.append(torch.stack(moved))
    even, odd = (sides[0] + sides[1]) / 2, (sides[0] - sides[1]) / 2
    parts = ((_EVEN, even), (_ROUGH, even), (_ODD, odd))
    limit, rough, left = (torch.einsum("n,n...->...", w.to(value), part) for w, part in parts)
    others = [dim for dim in range(value.ndim) if dim != axis]
    error = torch.maximum((limit - rough).abs(), left.abs()).detach().amax(others, keepdim=True)
    scale = torch.cat(sides).detach().abs().amax(0).amax(others, keepdim=True)
    return torch.where(error <= epsilon**0.375 * scale, limit, torch.nan)
