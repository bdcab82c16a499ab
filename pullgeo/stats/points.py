"""Point sets as users hold them: torch tensors and numpy arrays."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.grad_mode import check_transforms
from pullgeo._torch.plain_memory import outside_inference
from pullgeo.errors import DtypeError, NonFiniteError, ShapeError

Points = Tensor | np.ndarray
"""A set of points, one a row: a torch tensor or a numpy array ``(n, d)``."""


def as_points(where: str, z: Points, *, name: str = "z") -> Float[Tensor, "n d"]:
    """A point set as a tensor without a graph.

    Floating point tensors keep precision and device; numpy arrays keep their precision; whole numbers become float64.

    Args:
        where: the function that was called, for messages.
        z: points ``(n, d)``, at least one of them.
        name: the argument's name, for messages.

    Raises:
        ShapeError: ``z`` is not ``(n, d)`` with n and d at least 1.
        DtypeError: ``z`` does not hold real numbers.
        NonFiniteError: a row holds NaN or infinity.
        GradModeError: a transform of ``torch.func`` is on.

    Example:
        >>> as_points("example", np.array([[1, 2], [3, 4]]))
        tensor([[1., 2.],
                [3., 4.]], dtype=torch.float64)
    """
    if not isinstance(z, Tensor | np.ndarray):
        raise DtypeError(
            f"{where}: {name} must be a torch.Tensor or a numpy array, got {type(z).__name__}. Use np.asarray({name})."
        )
    if isinstance(z, Tensor):
        check_transforms(where)
    if z.ndim != 2 or 0 in z.shape:
        fix = f"A single point is {name}[None]." if z.ndim == 1 else "One point a row, at least one row and one column."
        raise ShapeError(f"{where}: {name} must have shape (n, d), got {tuple(z.shape)}. {fix}")
    if isinstance(z, Tensor) and (z.layout != torch.strided or z.device.type == "meta"):
        got = "no values, on the meta device" if z.device.type == "meta" else f"{z.layout}"
        raise DtypeError(f"{where}: {name} must hold its values row by row, got {got}. Use {name}.to_dense().")
    points = (outside_inference(z.detach()) if isinstance(z, Tensor) else _as_tensor(where, z, name)).resolve_conj()
    if points.is_complex() or points.dtype == torch.bool:
        raise DtypeError(f"{where}: {name} must hold real numbers, got {points.dtype}.")
    if not points.is_floating_point():
        points = points.double()
    bad = (~torch.isfinite(points).all(1)).nonzero().flatten()
    if len(bad):
        raise NonFiniteError(
            f"{where}: {len(bad)} of the {len(points)} rows of {name} hold NaN or infinity, the first is row "
            f"{int(bad[0])}. Drop them, or fix what produced them."
        )
    return points


def as_numbers(where: str, values: object, *, name: str, like: Tensor) -> Float[Tensor, "*any"]:
    """Real numbers in float64, with the graph behind them, on the device of another tensor.

    Args:
        where: the function that was called, for messages.
        values: a tensor, an array, or anything that torch makes a tensor of.
        name: the argument's name, for messages.
        like: names the device.

    Raises:
        DtypeError: they are no real numbers.

    Example:
        >>> as_numbers("example", [1, 2], name="weights", like=torch.zeros(1))
        tensor([1., 2.], dtype=torch.float64)
    """
    try:
        numbers = outside_inference(torch.as_tensor(values, device=like.device))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DtypeError(
            f"{where}: {name} must be real numbers, a tensor or an array of them, got {type(values).__name__}: {error}."
        ) from error
    if numbers.is_complex():
        raise DtypeError(f"{where}: {name} must be real numbers, got {numbers.dtype}. Use {name}.real.")
    return numbers.double()


def _as_tensor(where: str, z: np.ndarray, name: str) -> Tensor:
    if z.dtype.kind not in "fiub":
        raise DtypeError(f"{where}: {name} must hold real numbers, got an array of {z.dtype}.")
    # torch knows neither other byte orders nor negative strides, nor floats longer than a double
    native = z.dtype.newbyteorder("=") if z.dtype.kind != "f" or z.dtype.itemsize <= 8 else np.dtype(np.float64)
    if native.kind == "u":
        native = np.dtype(np.float64)
    return torch.as_tensor(np.array(z, dtype=native, order="C"))
