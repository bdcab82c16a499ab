"""Uniform tensor-product cubic splines through values on a lattice."""

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor


def spline_coefficients(values: Float64[np.ndarray, "nx ny k"]) -> Float64[np.ndarray, "nx2 ny2 k"]:
    """Coefficients of the cubic B-splines that interpolate the values, ``n + 2`` along each axis.

    Knots are uniform; at the ends the third derivative goes on from the first cell to the second ("not a knot").

    Raises:
        ValueError: there are fewer than 4 nodes along an axis.
    """
    along_x = _solved(values)
    return np.moveaxis(_solved(np.moveaxis(along_x, 1, 0)), 0, 1)


def _solved(values: np.ndarray) -> np.ndarray:
    n = values.shape[0]
    if n < 4:
        raise ValueError(f"spline_coefficients: expected at least 4 nodes along each axis, got {n}.")
    # five diagonals below and above hold the two end conditions; scipy wants matrix[i, j] at bands[4 + i - j, j]
    bands = np.zeros((9, n + 2))
    for shift, weight in zip((-1, 0, 1), (1 / 6, 4 / 6, 1 / 6), strict=True):
        rows = np.arange(1, n + 1)
        bands[4 - shift, rows + shift] = weight
    for j, weight in enumerate((1.0, -4.0, 6.0, -4.0, 1.0)):
        bands[4 - j, j] = weight
        bands[4 + j, n + 1 - j] = weight
    right = np.zeros((n + 2, values[0].size))
    right[1:-1] = values.reshape(n, -1)
    return scipy.linalg.solve_banded((4, 4), bands, right).reshape(n + 2, *values.shape[1:])


def filled(values: Float64[np.ndarray, "nx ny k"], known: Bool[np.ndarray, "nx ny"]) -> Float64[np.ndarray, "nx ny k"]:
    """The values, continued smoothly to the nodes that are not known.

    Splines need numbers everywhere; what they are far from the known nodes does not matter. They minimise squared
    second differences, and stay within the range of what is known.
    """
    if known.all():
        return values
    nx, ny = known.shape

    def differences(n: int) -> scipy.sparse.csr_matrix:
        return scipy.sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(n - 2, n), format="csr")

    second = scipy.sparse.vstack(
        [
            scipy.sparse.kron(differences(nx), scipy.sparse.identity(ny)),
            scipy.sparse.kron(scipy.sparse.identity(nx), differences(ny)),
            # a trace of first differences keeps far places bounded, and the matrix regular
            0.05
            * scipy.sparse.kron(scipy.sparse.diags([-1.0, 1.0], [0, 1], shape=(nx - 1, nx)), scipy.sparse.identity(ny)),
            0.05
            * scipy.sparse.kron(scipy.sparse.identity(nx), scipy.sparse.diags([-1.0, 1.0], [0, 1], shape=(ny - 1, ny))),
        ]
    ).tocsc()
    there = known.ravel()
    flat = values.reshape(nx * ny, -1).copy()
    given = flat[there]
    free = second[:, ~there]
    factor = scipy.sparse.linalg.splu((free.T @ free).tocsc())
    flat[~there] = np.clip(factor.solve(-(free.T @ (second[:, there] @ given))), given.min(0), given.max(0))
    return flat.reshape(values.shape)


def cell_weights(t: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights ``(b, 4)`` of a cell's four coefficients at places in [0, 1], with first and second derivatives.

    Args:
        t: places in the cell.
        scale: cells a unit of the coordinate.
    """
    s = 1 - t
    value = torch.stack([s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3], -1) / 6
    first = torch.stack([-(s**2), 3 * t**2 - 4 * t, 4 * s - 3 * s**2, t**2], -1) * (scale / 2)
    second = torch.stack([s, 3 * t - 2, 3 * s - 2, t], -1) * scale**2
    return value, first, second


class Spline(torch.nn.Module):
    """A map from places ``(b, 2)`` to k numbers by given coefficients, as the page evaluates it; in float64.

    Args:
        coefficients: ``(nx + 2, ny + 2, k)``.
        x: the interval along the first axis.
        y: the interval along the second axis.
    """

    coefficients: Tensor

    def __init__(
        self, coefficients: Float[np.ndarray, "nx2 ny2 k"], x: tuple[float, float], y: tuple[float, float]
    ) -> None:
        super().__init__()
        self.register_buffer("coefficients", torch.as_tensor(coefficients, dtype=torch.float64))
        nx, ny = coefficients.shape[0] - 2, coefficients.shape[1] - 2
        self.nodes = (nx, ny)
        self.x, self.y = x, y
        self.per = ((nx - 1) / (x[1] - x[0]), (ny - 1) / (y[1] - y[0]))

    def forward(self, place: Float[Tensor, "b 2"]) -> Float[Tensor, "b k"]:
        """The values."""
        c, (wx, _, _), (wy, _, _) = self._at(place)
        return torch.einsum("bi,bj,bijk->bk", wx, wy, c)

    def jet(self, place: Float[Tensor, "b 2"]) -> Float[Tensor, "6 b k"]:
        """Values, derivatives by x and by y, and second derivatives xx, xy, yy."""
        c, wx, wy = self._at(place)
        along = [torch.einsum("bj,bijk->bik", w, c) for w in wy]
        pairs = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
        return torch.stack([torch.einsum("bi,bik->bk", wx[i], along[j]) for i, j in pairs])

    def _at(self, place: Tensor) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        cells, weights = [], []
        for axis, (low, per, n) in enumerate(zip((self.x[0], self.y[0]), self.per, self.nodes, strict=True)):
            u = (place[:, axis] - low) * per
            cell = u.detach().floor().nan_to_num(0.0).clamp(0, n - 2)  # a place that is NaN has the value NaN
            weights.append(cell_weights(u - cell, per))
            cells.append(cell.long()[:, None] + torch.arange(4, device=place.device))
        c = self.coefficients[cells[0][:, :, None], cells[1][:, None, :]]
        return c, weights[0], weights[1]
