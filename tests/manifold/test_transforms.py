"""Under torch's transforms of functions: right derivatives, or an error that names the way out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

from pullgeo import BoundaryValue, MetricManifold, PullbackManifold, frechet_mean
from pullgeo.errors import GradModeError
from pullgeo.manifold import Manifold

F64 = torch.float64
X = torch.tensor([[0.3, -0.2], [0.1, 0.4], [-0.3, 0.2]], dtype=F64)
Y = torch.tensor([[0.1, 0.3], [0.5, 0.2], [0.2, -0.1]], dtype=F64)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5)).double()


def bump(z: Tensor) -> Tensor:
    return torch.eye(2, dtype=z.dtype) * (1 + z.square().sum(1))[:, None, None]


SPACES = {"decoder": PullbackManifold(network()), "metric": MetricManifold(bump)}
CALLS: dict[str, Callable[[Manifold, Tensor, Tensor], Tensor]] = {
    "dist": lambda m, x, y: m.dist(x, y),
    "geodesic": lambda m, x, y: m.geodesic(x, y).length,
    "problem": lambda m, x, y: BoundaryValue(m, x, y).z0,
    "logmap": lambda m, x, y: m.logmap(x, y),
    "transp": lambda m, x, y: m.transp(x, y, y),
}
TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor]], object]] = {
    "vmap": lambda f: vmap(f)(X),
    "jacrev": lambda f: jacrev(f)(X),
    "jacfwd": lambda f: jacfwd(f)(X),
    "hessian": lambda f: hessian(lambda x: f(x).sum())(X),
    "grad": lambda f: grad(lambda x: f(x).sum())(X),
    "jvp": lambda f: jvp(f, (X,), (Y,)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", SPACES)
def test_searches_refuse_transforms(kind: str, name: str, transform: str) -> None:
    def function(x: Tensor) -> Tensor:
        return CALLS[name](SPACES[kind], x, Y if x.ndim == 2 else Y[0])

    with pytest.raises(GradModeError, match=r"batched already.*torch\.autograd"):
        TRANSFORMS[transform](function)


@pytest.mark.parametrize("kind", SPACES)
def test_exponentials_refuse_what_torch_cannot_transform(kind: str) -> None:
    space = SPACES[kind]
    for transform in (vmap, jacrev):
        with pytest.raises(GradModeError, match="batched already"):
            transform(lambda x: space.expmap(x, (Y if x.ndim == 2 else Y[0]) / 9))(X)
    expected = torch.autograd.functional.jacobian(lambda x: space.expmap(x, Y[:1] / 9), X[:1])
    torch.testing.assert_close(jacfwd(lambda x: space.expmap(x, Y[:1] / 9))(X[:1]), expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.dist(X, Y),
        lambda m: m.expmap(X, Y / 9),
        lambda m: m.logmap(X, Y),
    ],
)
def test_weights_of_a_functional_call(call: Callable[[Manifold], Tensor]) -> None:
    net = network()

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self) -> Tensor:
            return call(PullbackManifold(self.net)).square().sum()

    loss, weight = Loss(), net[0].weight
    expected = torch.autograd.grad(loss(), weight)[0]
    with pytest.raises(GradModeError, match="transforms"):
        grad(lambda w: functional_call(loss, {"net.0.weight": w}, ()))(weight.detach())
    w = weight.detach().clone().requires_grad_()
    with pytest.raises(GradModeError, match="functional_call"):
        functional_call(loss.requires_grad_(False), {"net.0.weight": w}, ()).backward()
    space = PullbackManifold(lambda z: functional_call(net, {"0.weight": w}, (z,)))
    torch.testing.assert_close(torch.autograd.grad(call(space).square().sum(), w)[0], expected)


def test_the_way_out_leads_out() -> None:
    space = SPACES["metric"]

    def distance(x: Tensor) -> Tensor:
        return space.dist(x, Y).sum()

    jacobian = torch.autograd.functional.jacobian(distance, X)
    step = 1e-5 * torch.eye(6, dtype=F64).reshape(6, 3, 2)
    slopes = torch.stack([(distance(X + h) - distance(X - h)) / 2e-5 for h in step]).reshape(3, 2)
    torch.testing.assert_close(jacobian, slopes, rtol=1e-6, atol=1e-8)
    assert torch.autograd.functional.hessian(distance, X).shape == (3, 2, 3, 2)


@pytest.mark.parametrize("kind", SPACES)
def test_tangents_of_forward_mode_are_not_lost_without_a_word(kind: str) -> None:
    space = SPACES[kind]
    with forward_ad.dual_level():
        x = forward_ad.make_dual(X, Y)
        for call in CALLS.values():
            with pytest.raises(GradModeError, match="forward mode"):
                call(space, x, Y)
        assert forward_ad.unpack_dual(space.norm(x, Y)).tangent is not None


@pytest.mark.parametrize("kind", SPACES)
def test_local_geometry_transforms(kind: str) -> None:
    space = SPACES[kind]
    expected = torch.autograd.functional.jacobian(space.log_volume, X)
    torch.testing.assert_close(jacrev(space.log_volume)(X), expected)
    torch.testing.assert_close(jacfwd(space.log_volume)(X), expected)
    with pytest.raises(GradModeError, match="batched already"):
        vmap(space.log_volume)(X)
    with pytest.raises(GradModeError, match="batched already"):
        vmap(grad(lambda x: space.log_volume(x).sum()))(X)
    with pytest.raises(GradModeError, match="frechet_mean"):
        jacrev(lambda x: frechet_mean(space, x).point)(X)
