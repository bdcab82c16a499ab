"""What the products accept: vectors, matrices and flags, checked and brought into stacks with the tangents leading."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import DeviceError, DtypeError, OptionError, ShapeError
from pullgeo.jacobian.base import Jacobian
from pullgeo.metric.base import Metric
from pullgeo.metric.structured import Dense, Diagonal, Identity
from pullgeo.typing import Wrt

_CHOICES: dict[str, Wrt] = {"input": "input", "weight": "weight", "weights": "weight"}


def checked_wrt(where: str, wrt: str) -> Wrt:
    """The argument that a Jacobian is taken with respect to; ``"weights"`` means ``"weight"``.

    Raises:
        OptionError: it is neither.
    """
    if wrt not in _CHOICES:
        raise OptionError(
            f'{where}: wrt must be "input" or "weight" (or "weights", which means the same), got {wrt!r}.'
        )
    return _CHOICES[wrt]


@dataclass(frozen=True, eq=False)
class Side:
    """The tangent space on one side of a Jacobian, and the checks of what is said to live there.

    Args:
        where: the product that asks, for its messages.
        name: ``"input"``, ``"weight"`` or ``"output"``.
        batch: number of points.
        shape: shape of a value at one point.
        dtype: precision of the Jacobian.
        device: its device.
    """

    where: str
    name: str
    batch: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def source(cls, where: str, J: Jacobian, wrt: Wrt) -> "Side":
        """Where a Jacobian starts."""
        s = J.signature
        return cls(where, wrt, s.batch, s.in_shape, s.dtype, s.device)

    @classmethod
    def target(cls, where: str, J: Jacobian) -> "Side":
        """Where a Jacobian ends."""
        s = J.signature
        return cls(where, "output", s.batch, s.out_shape, s.dtype, s.device)

    @property
    def n(self) -> int:
        """Dimension of the tangent space."""
        return math.prod(self.shape)

    def vector(self, vector: Tensor) -> Float[Tensor, "1 b *x"]:
        """One vector for each point, flat or in the value's own shape, as a stack of one."""
        self._check_tensor("vector", vector)
        self._check_flat_or_shaped("vector", vector)
        return vector.reshape(1, self.batch, *self.shape)

    def columns(self, matrix: Tensor) -> Float[Tensor, "k b *x"]:
        """The k columns of ``(b, n, k)``."""
        self._check_tensor("matrix", matrix)
        if matrix.ndim != 3 or matrix.shape[:2] != (self.batch, self.n):
            raise self._shape_error("matrix", f"({self.batch}, {self.n}, k)", matrix)
        return matrix.permute(2, 0, 1).reshape(matrix.shape[2], self.batch, *self.shape)

    def rows(self, matrix: Tensor) -> Float[Tensor, "k b *x"]:
        """The k rows of ``(b, k, n)``."""
        self._check_tensor("matrix", matrix)
        if matrix.ndim != 3 or (len(matrix), matrix.shape[2]) != (self.batch, self.n):
            raise self._shape_error("matrix", f"({self.batch}, k, {self.n})", matrix)
        return matrix.permute(1, 0, 2).reshape(matrix.shape[1], self.batch, *self.shape)

    def metric(self, matrix: Tensor | None, from_diag: bool) -> Metric:
        """The metric that a matrix, a diagonal or ``None`` stands for."""
        if matrix is None:
            return Identity(self.n, self.dtype, self.device)
        self._check_tensor("matrix", matrix)
        if from_diag:
            self._check_flat_or_shaped("matrix (from_diag=True)", matrix)
            return Diagonal(matrix.reshape(self.batch, self.n))
        self._check_square(matrix)
        return Dense(matrix)

    def diagonal(self, matrix: Tensor | None, from_diag: bool) -> Float[Tensor, "1 b *x"]:
        """The diagonal that ``diag_backprop`` starts from, as a stack of one; a whole matrix gives its own."""
        if matrix is None:
            return torch.ones(1, self.batch, *self.shape, dtype=self.dtype, device=self.device)
        self._check_tensor("matrix", matrix)
        if not from_diag and matrix.shape == (self.batch, self.n, self.n):
            matrix = matrix.diagonal(dim1=1, dim2=2)
        self._check_flat_or_shaped("matrix (diag_backprop=True)", matrix)
        return matrix.reshape(1, self.batch, *self.shape)

    def _check_tensor(self, what: str, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise DtypeError(f"{self.where}: {what} must be a torch.Tensor, got {type(value).__name__}.")
        if value.dtype != self.dtype:
            raise DtypeError(
                f"{self.where}: {what} must be {self.dtype} as the module's output is, got {value.dtype}. "
                f"Use {what}.to({self.dtype})."
            )
        if value.device != self.device:
            raise DeviceError(
                f"{self.where}: {what} must be on {self.device} as the module's output is, got {value.device}. "
                f"Use {what}.to({str(self.device)!r})."
            )

    def _check_flat_or_shaped(self, what: str, value: Tensor) -> None:
        if value.shape not in ((self.batch, self.n), (self.batch, *self.shape)):
            own = "" if len(self.shape) == 1 else f" or {(self.batch, *self.shape)}"
            raise self._shape_error(what, f"({self.batch}, {self.n}){own}", value)

    def _check_square(self, matrix: Tensor) -> None:
        if matrix.shape != (self.batch, self.n, self.n):
            hint = " A diagonal needs from_diag=True." if matrix.shape == (self.batch, self.n) else ""
            raise self._shape_error("matrix", f"({self.batch}, {self.n}, {self.n}) or None", matrix, hint)

    def _shape_error(self, what: str, expected: str, value: Tensor, hint: str = "") -> ShapeError:
        return ShapeError(
            f"{self.where}: {what} must have shape {expected}, got {tuple(value.shape)}. It lives on the {self.name} "
            f"side, which has dimension {self.n} at each of {self.batch} points.{hint}"
        )


def check_value(where: str, val: Tensor | None, J: Jacobian) -> None:
    """Raise if ``val`` cannot be the module's output at x. It is not used beyond that: the output is computed anew.

    Raises:
        DtypeError: it is not a tensor.
        ShapeError: it has another shape than the output.
    """
    if val is None:
        return
    expected = (J.signature.batch, *J.signature.out_shape)
    if not isinstance(val, Tensor):
        raise DtypeError(f"{where}: val must be the module's output at x or None, got {type(val).__name__}.")
    if val.shape != expected:
        raise ShapeError(
            f"{where}: val must be the module's output at x, of shape {expected}, or None; got {tuple(val.shape)}. "
            "The vector or matrix comes after it."
        )
