"""Cubic interpolation through equidistant nodes."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def moments(nodes: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Second derivatives, per node spacing, of the cubic spline through the nodes, with not-a-knot ends.

    ``m_{i-1} + 4 m_i + m_{i+1} = 6 (x_{i-1} - 2 x_i + x_{i+1})`` inside; at either end the third derivative is
    continuous over the first inner node, so that the spline is of fourth order up to the ends. Two nodes give a
    straight line, three a parabola.

    Source: de Boor, *A Practical Guide to Splines*, chapter IV. Cost: one product with an n x n matrix, which is kept.
    """
    n = nodes.shape[1]
    if n < 3:
        return torch.zeros_like(nodes)
    second_differences = nodes[:, :-2] - 2 * nodes[:, 1:-1] + nodes[:, 2:]
    if n == 3:
        return second_differences.expand(-1, 3, -1)
    own: Tensor = torch.as_tensor(_of_second_differences(n)).to(nodes) @ second_differences
    return own


@lru_cache(maxsize=16)
def _of_second_differences(n: int) -> np.ndarray:
    """The matrix ``(n, n - 2)`` that takes second differences to moments."""
    matrix = 4 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)
    matrix[0, :3] = matrix[-1, -3:] = 1, -2, 1
    return 6 * np.linalg.inv(matrix)[:, 1:-1]


def evaluate(nodes: Float[Tensor, "b n d"], t: Float[Tensor, "*b m"]) -> Float[Tensor, "b m d"]:
    """The spline at times in [0, 1], ``(m,)`` or ``(b, m)``; beyond, its end pieces go on."""
    i, s = _locate(nodes, t)
    m, r = moments(nodes), 1 - s
    values = r * _at(nodes, i) + s * _at(nodes, i + 1)
    return values + (r**3 - r) / 6 * _at(m, i) + (s**3 - s) / 6 * _at(m, i + 1)


def differentiate(nodes: Float[Tensor, "b n d"], t: Float[Tensor, "*b m"]) -> Float[Tensor, "b m d"]:
    """The spline's derivative with respect to time."""
    i, s = _locate(nodes, t)
    m, r = moments(nodes), 1 - s
    slope = _at(nodes, i + 1) - _at(nodes, i)
    slope = slope - (3 * r**2 - 1) / 6 * _at(m, i) + (3 * s**2 - 1) / 6 * _at(m, i + 1)
    return slope * (nodes.shape[1] - 1)


def differentiate_twice(nodes: Float[Tensor, "b n d"], t: Float[Tensor, "*b m"]) -> Float[Tensor, "b m d"]:
    """The spline's second derivative with respect to time."""
    i, s = _locate(nodes, t)
    m = moments(nodes)
    return ((1 - s) * _at(m, i) + s * _at(m, i + 1)) * (nodes.shape[1] - 1) ** 2


def _locate(nodes: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    segments = nodes.shape[1] - 1
    position = t.to(nodes.dtype) * segments
    # a time that is not a number is on no segment, and its point is not a number either
    i = position.detach().nan_to_num().floor().clamp(0, segments - 1).long()
    return i, (position - i).unsqueeze(-1)


def _at(values: Tensor, i: Tensor) -> Tensor:
    if i.ndim == 1:
        return values[:, i]
    return values.gather(1, i.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
