"""Functions that torch would take for constant without a word are refused by name wherever they are differentiated."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold
from pullgeo._torch.without_derivative import WITHOUT_DERIVATIVE
from pullgeo.errors import ModuleError
from pullgeo.jacobian import linearize
from tests.jacobian.architectures import random

X = random(3, 2, seed=1).abs() + 0.5
MODES = [torch.enable_grad, torch.no_grad, torch.inference_mode]


def bessel(z: Tensor) -> Tensor:
    return torch.special.modified_bessel_k0(z)


def test_they_are_all_that_torch_leaves_unconnected() -> None:
    unconnected = set()
    for name in dir(torch.special):
        function = getattr(torch.special, name)
        for more in ((), (2,)):
            try:
                value = function(X.clone().requires_grad_(), *more)
            except (TypeError, RuntimeError, LookupError):
                continue
            if isinstance(value, Tensor) and value.is_floating_point() and not value.requires_grad:
                unconnected.add(function)
    assert unconnected == WITHOUT_DERIVATIVE


PRODUCTS: dict[str, Callable[[Any], Any]] = {
    "push": lambda J: J.push(torch.ones(1, 3, *J.signature.in_shape, dtype=X.dtype)),
    "pull": lambda J: J.pull(torch.ones(1, 3, *J.signature.out_shape, dtype=X.dtype)),
    "dense": lambda J: J.dense(),
    "second": lambda J: J.second_push(*[torch.ones(1, 3, *J.signature.in_shape, dtype=X.dtype)] * 2),
}


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("mode", MODES)
def test_products_refuse_them(mode: type[torch.no_grad], product: str) -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor([0.3, 0.7], dtype=X.dtype))

        def forward(self, x: Tensor) -> Tensor:
            return bessel(self.a) * x

    with mode():
        for function, wrt in ((lambda z: torch.cat([z, bessel(z)], 1), "input"), (Weighted(), "weight")):
            with pytest.raises(ModuleError, match="modified_bessel_k0 is to be differentiated"):
                PRODUCTS[product](linearize(function, X, wrt)[1])


GEOMETRY: dict[str, Callable[[Any], Any]] = {
    "dist": lambda manifold: manifold.dist(X, X + 1),
    "expmap": lambda manifold: manifold.expmap(X, torch.ones_like(X)),
    "logarithm": lambda manifold: manifold.logarithm(X, X + 1),
    "curvature": lambda manifold: manifold.scalar_curvature(X),
}


@pytest.mark.parametrize("method", GEOMETRY)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_metrics_that_consist_of_them_have_no_connection(mode: type[torch.no_grad], method: str) -> None:
    def conformal(y: Tensor) -> Tensor:
        return (1 + bessel(y[:, :1])).unsqueeze(2) * torch.eye(y.shape[1], dtype=y.dtype)

    manifolds = [
        MetricManifold(conformal),
        PullbackManifold(lambda z: torch.cat([z, z.square()], 1), ambient=conformal),
        PullbackManifold(lambda z: torch.cat([z, bessel(z)], 1)),
    ]
    for manifold in manifolds:
        with mode(), pytest.raises(ModuleError, match="modified_bessel_k0"):
            GEOMETRY[method](manifold)


def test_what_does_not_depend_on_them_is_served() -> None:
    class Scaled(nn.Module):
        def __init__(self, within: Callable[[], Any]) -> None:
            super().__init__()
            self.register_buffer("c", torch.tensor([0.3, 0.7], dtype=X.dtype))
            self.a = nn.Parameter(torch.tensor([0.3, 0.7], dtype=X.dtype))
            self.within = within

        def forward(self, x: Tensor) -> Tensor:
            with self.within():
                factor = bessel(self.a if self.within is torch.no_grad else self.c)
            return factor * x

    for within in (torch.no_grad, torch.enable_grad):
        for mode in MODES[:2]:
            with mode():
                J = linearize(Scaled(within), X)[1]
            expected = torch.diag(bessel(torch.tensor([0.3, 0.7], dtype=X.dtype))).expand(3, 2, 2)
            torch.testing.assert_close(J.dense(), expected)
