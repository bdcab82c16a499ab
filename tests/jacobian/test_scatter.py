"""Products that are scattered, whose tangents torch gets wrong."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pullgeo import linearize

INDEX = torch.tensor([[0, 1, 0, 2], [1, 1, 1, 0], [2, 0, 2, 2]])


def along_rows(x: Tensor, include: bool) -> Tensor:
    index = INDEX.expand(len(x), 3, 4)
    return (1.5 * x[:, :, :3]).scatter_reduce(2, index, x[:, :, 1:].sin(), "prod", include_self=include)


def along_columns(x: Tensor, include: bool) -> Tensor:
    """An index that is smaller than what it points into and than what it takes from."""
    index = INDEX[:2, :3].T.expand(len(x), 3, 2)
    return (x + 2).scatter_reduce(1, index, x.cos(), "prod", include_self=include)


def in_place(x: Tensor, include: bool) -> Tensor:
    return (x[:, :, :3] * 1).scatter_reduce_(-1, INDEX.expand(len(x), 3, 4), x[:, :, 1:], "prod", include_self=include)


def with_zeros(x: Tensor, include: bool) -> Tensor:
    return along_rows(torch.where(x.abs() < 0.4, 0 * x, x), include)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("function", [along_rows, along_columns, in_place, with_zeros])
def test_scattered_products(function: Callable[[Tensor, bool], Tensor], include: bool) -> None:
    x = torch.randn(3, 3, 5, dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        return function(x, include)

    y, J = linearize(f, x)
    torch.testing.assert_close(y, f(x))
    T, W, h = torch.randn(2, *x.shape).double(), torch.randn(2, *y.shape).double(), 1e-5
    moved = torch.stack([(f(x + h * t) - f(x - h * t)) / (2 * h) for t in T])
    torch.testing.assert_close(J.push(T), moved, rtol=1e-6, atol=1e-8)
    assert (J.pull(W) * T).sum() == pytest.approx(float((W * moved).sum()), rel=1e-6)
    z = x.clone().requires_grad_()
    pushed = linearize(f, z)[1].push(T)
    (slope,) = torch.autograd.grad((pushed * W).sum(), z)
    ends = [(linearize(f, x + s * h * T[0])[1].push(T) * W).sum() for s in (1, -1)]
    assert float((slope * T[0]).sum()) == pytest.approx(float((ends[0] - ends[1]) / (2 * h)), rel=1e-5, abs=1e-7)
