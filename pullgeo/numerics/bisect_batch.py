"""Functions that refuse some points, evaluated at all the others."""

from collections.abc import Callable

import torch
from torch import Tensor

from pullgeo.errors import NonFiniteError, SingularMetricError


def where_defined(function: Callable[..., Tensor], shape: tuple[int, ...], *points: Tensor) -> Tensor:
    """``function(*points)``, NaN for the samples at which it raises.

    A metric or a connection raises if it does not exist at one point of a batch, while a solver must not lose the
    other curves. Points that are not finite are left out, and so are those that the error names. A batch that is
    refused without names is halved until the points that are to blame stand alone.

    Args:
        function: batches ``(n, d)`` to ``(n, *shape)``, sample by sample.
        shape: of its result at one point.
        points: its arguments.

    Cost: one call, and one more if the error names the points; else about 2 log n further ones for each bad point.
    """

    def only(good: Tensor) -> Tensor:
        whole = points[0].new_full((len(good), *shape), torch.nan)
        return whole.index_put((good.nonzero().squeeze(1),), where_defined(function, shape, *(p[good] for p in points)))

    finite = torch.stack([torch.isfinite(p).flatten(1).all(1) for p in points]).all(0)
    if not bool(finite.all()):
        return only(finite)
    try:
        return function(*points)
    except (NonFiniteError, SingularMetricError) as error:
        n = len(points[0])
        if error.bad is not None and error.bad.shape == (n,) and n > 1:
            return only(~error.bad)
        if n <= 1:
            return points[0].new_full((n, *shape), torch.nan)
        halves = (slice(0, n // 2), slice(n // 2, n))
        return torch.cat([where_defined(function, shape, *(p[half] for p in points)) for half in halves])
