"""Backward passes that have no derivative: first derivatives serve, second ones are refused by one error."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pullgeo import MetricManifold, PullbackManifold, linearize
from pullgeo.errors import ModuleError
from pullgeo.geodesic import GaussNewton
from pullgeo.manifold.base import Manifold
from tests.releases import newer_torch

F64 = torch.float64
X = torch.tensor([[0.7, -0.3], [0.1, 0.2], [-0.5, 0.4]], dtype=F64)
Y = X + torch.tensor([0.5, 0.3], dtype=F64)
U, V = torch.eye(2, dtype=F64).unsqueeze(1).expand(2, 3, 2)
W = torch.linspace(-1.5, 1.7, 10, dtype=F64).reshape(2, 5).sin()


class Marked(torch.autograd.Function):
    """The sine, marked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * ctx.saved_tensors[0].cos()


class MarkedForTransforms(torch.autograd.Function):
    """The sine, marked, in the form that transforms take; they take its derivative for constant."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    backward = Marked.backward


class Detached(torch.autograd.Function):
    """The sine, with a derivative that is silently constant."""

    forward = Marked.forward

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g.detach() * ctx.saved_tensors[0].detach().cos()


class DetachedForTransforms(torch.autograd.Function):
    """The same in the form that transforms take."""

    forward = MarkedForTransforms.forward
    setup_context = MarkedForTransforms.setup_context
    backward = Detached.backward


class Whole(torch.autograd.Function):
    """The sine, with a backward that has a derivative."""

    forward = Marked.forward

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * ctx.saved_tensors[0].cos()


ONCE = [Marked, MarkedForTransforms, Detached, DetachedForTransforms]


def decoder(sine: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda z: torch.cat([z, sine(z @ W.to(z))], 1)


def metric(sine: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda z: torch.eye(z.shape[1], dtype=z.dtype) * (7 + sine(z).sum(1))[:, None, None]


MANIFOLDS: dict[str, Callable[[Callable[[Tensor], Tensor]], Manifold]] = {
    "decoder": lambda sine: PullbackManifold(decoder(sine)),
    "metric": lambda sine: MetricManifold(metric(sine)),
    "ambient metric": lambda sine: PullbackManifold(decoder(torch.sin), ambient=metric(sine)),
}


def hessian(M: Manifold) -> Tensor:
    z = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(M.dist(z, Y).square().sum(), z, create_graph=True)
    return torch.autograd.grad(slope.sum(), z)[0]


SECOND: dict[str, Callable[[Manifold], object]] = {
    "geodesic": lambda M: M.geodesic(X, Y),
    "dist": lambda M: M.dist(X, Y),
    "hessian": hessian,
    "sectional_curvature": lambda M: M.sectional_curvature(X, U, V),
    "scalar_curvature": lambda M: M.scalar_curvature(X),
}


@pytest.mark.parametrize("operation", SECOND)
@pytest.mark.parametrize("manifold", MANIFOLDS)
@pytest.mark.parametrize("function", ONCE)
def test_second_derivatives_are_refused_by_one_error(function: Any, manifold: str, operation: str) -> None:
    with pytest.raises(ModuleError, match=rf"^Jacobian: .*once but not twice.*\({function.__name__}\)"):
        SECOND[operation](MANIFOLDS[manifold](function.apply))


@pytest.mark.parametrize("manifold", ["metric", "ambient metric"])
@pytest.mark.parametrize("function", [*ONCE, Whole])
def test_christoffel_symbols_differentiate_a_metric_once(function: Any, manifold: str) -> None:
    M, truth = MANIFOLDS[manifold](function.apply), MANIFOLDS[manifold](torch.sin)
    torch.testing.assert_close(M.christoffel(X), truth.christoffel(X))
    torch.testing.assert_close(M.expmap(X, U / 5), truth.expmap(X, U / 5))


@pytest.mark.parametrize("manifold", MANIFOLDS)
def test_a_backward_of_ones_own_that_has_a_derivative_is_served(manifold: str) -> None:
    M, truth = MANIFOLDS[manifold](Whole.apply), MANIFOLDS[manifold](torch.sin)
    torch.testing.assert_close(M.sectional_curvature(X, U, V), truth.sectional_curvature(X, U, V))
    torch.testing.assert_close(hessian(M), hessian(truth), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("product", ["push", "pull"])
@pytest.mark.parametrize("function", ONCE)
def test_products_are_right_and_their_gradients_refused(function: Any, product: str) -> None:
    z = X.clone().requires_grad_()
    J, truth = linearize(decoder(function.apply), z)[1], linearize(decoder(torch.sin), X)[1]
    stack = torch.linspace(-1, 1, 42 if product == "pull" else 12, dtype=F64).reshape(2, 3, -1)
    moved = getattr(J, product)(stack)
    torch.testing.assert_close(moved.detach(), getattr(truth, product)(stack))
    with pytest.raises(ModuleError, match=rf"gradients of products.*\({function.__name__}\)"):
        torch.autograd.grad(moved.square().sum(), z)


LOGITS = torch.linspace(-2, 2, 40, dtype=F64).reshape(2, 20).cos()


def alignment(z: Tensor) -> Tensor:
    n = len(z)
    scores = (z @ LOGITS.to(z)).reshape(n, 5, 4).log_softmax(-1).transpose(0, 1)
    lengths = (torch.full((n,), 5), torch.full((n,), 2))
    loss = F.ctc_loss(scores, torch.tensor([1, 2]).expand(n, 2), *lengths, reduction="none")
    return torch.cat([z, loss[:, None]], 1)


def bag(z: Tensor) -> Tensor:
    table, n = W.mT.to(z), len(z)
    sums = F.embedding_bag(
        torch.arange(5).expand(n, 5).contiguous(), table, mode="sum", per_sample_weights=(z @ W.to(z)).sin()
    )
    return torch.cat([z, sums], 1)


def distances(z: Tensor) -> Tensor:
    points = z[:, None] * torch.arange(1, 4).to(z)[:, None]
    return torch.cat([z, torch.cdist(points, W.mT.to(z).expand(len(z), 5, 2)).flatten(1)], 1)


def attention(z: Tensor) -> Tensor:
    q = (z @ W.to(z)).reshape(-1, 1, 5, 1)
    return torch.cat([z, F.scaled_dot_product_attention(q.sin(), q.cos(), q).flatten(1)], 1)


def samples(z: Tensor) -> Tensor:
    image = torch.linspace(-3, 3, 25, dtype=z.dtype).sin().reshape(1, 1, 5, 5).expand(len(z), 1, 5, 5)
    grid = torch.tanh(z).reshape(-1, 1, 1, 2) + torch.linspace(-0.3, 0.3, 5).to(z).reshape(1, 1, 5, 1)
    return torch.cat([z, F.grid_sample(image, grid, mode="bicubic", align_corners=False).flatten(1)], 1)


@newer_torch
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # which is torch's own
def test_sampled_images_bend_as_differences_say() -> None:
    T, step = torch.stack([U, V]), 1e-5
    pushed = [linearize(samples, X + sign * step * V)[1].push(T) for sign in (1, -1)]
    bent = linearize(samples, X)[1].second_push(T, V.expand_as(T))
    torch.testing.assert_close(bent, (pushed[0] - pushed[1]) / (2 * step), rtol=1e-5, atol=1e-6)


@pytest.mark.quick(2)
@pytest.mark.parametrize("f", [alignment, bag, distances, attention])
def test_second_derivatives_of_distances_where_torch_has_no_double_backward(f: Callable[[Tensor], Tensor]) -> None:
    M, step = PullbackManifold(f), 1e-3
    ends = [(X + s * step * e, s, i) for i, e in enumerate(torch.eye(2, dtype=F64)) for s in (1, -1)]

    def slope(z: Tensor) -> Tensor:
        z = z.clone().requires_grad_()
        return torch.autograd.grad(M.dist(z, Y).square().sum(), z)[0]

    z = X.clone().requires_grad_()
    (first,) = torch.autograd.grad(M.dist(z, Y).square().sum(), z, create_graph=True)
    found = torch.stack([torch.autograd.grad(first[:, i].sum(), z, retain_graph=True)[0] for i in range(2)], 1)
    expected = torch.zeros_like(found)
    for end, sign, i in ends:
        expected[:, :, i] += sign * slope(end) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("function", ONCE)
def test_geodesics_without_second_derivatives_are_the_same(function: Any, dtype: torch.dtype, mode: Any) -> None:
    expected = PullbackManifold(decoder(torch.sin)).geodesic(X, Y)
    assert expected.converged.all()
    with torch.inference_mode():  # as latents often come
        x, y = X.to(dtype, copy=True), Y.to(dtype, copy=True)
    with mode():
        found = PullbackManifold(decoder(function.apply)).geodesic(x, y, GaussNewton())
    assert found.converged.all()
    tolerance = 1e-8 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found.length.double(), expected.length, rtol=tolerance, atol=0)
