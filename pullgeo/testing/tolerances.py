"""One table of tolerances by dtype, read by every contract check and every test.

A tolerance is *relative to the largest entry* of the expected tensor, because the entries of one product are sums of
terms of that size: a small entry next to large ones carries the rounding of the large ones.
"""

from dataclasses import dataclass

import torch

from pullgeo.errors import DtypeError


@dataclass(frozen=True, eq=False)
class Tolerance:
    """What may differ for one dtype.

    Attributes:
        exact: the same formula evaluated in another order, relative to the largest entry.
        derivative: a derivative against finite differences of a function evaluated in this dtype.
        solver: the result of an iteration (geodesic, ordinary differential equation) against its closed form.
        floor: absolute term, so that expected tensors of zeros can be compared.
    """

    exact: float
    derivative: float
    solver: float
    floor: float


TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float64: Tolerance(exact=1e-10, derivative=1e-7, solver=1e-7, floor=1e-13),
    torch.float32: Tolerance(exact=2e-4, derivative=1e-2, solver=1e-3, floor=1e-6),
    torch.float16: Tolerance(exact=2e-2, derivative=1e-1, solver=1e-1, floor=1e-3),
    torch.bfloat16: Tolerance(exact=1e-1, derivative=3e-1, solver=3e-1, floor=1e-2),
}


def tolerance_for(dtype: torch.dtype) -> Tolerance:
    """The row of `TOLERANCES` for ``dtype``.

    Args:
        dtype: a floating point dtype.

    Raises:
        DtypeError: the table has no row for ``dtype``.

    Example:
        >>> tolerance_for(torch.float64).exact
        1e-10
    """
    if dtype not in TOLERANCES:
        known = ", ".join(str(known) for known in TOLERANCES)
        raise DtypeError(
            f"tolerance_for: expected one of {known}, got {dtype}. Compare real floating point tensors only."
        )
    return TOLERANCES[dtype]
