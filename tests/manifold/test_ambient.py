"""Pullbacks from curved spaces: metrics against dense Jacobians, energies against autograd, known distances."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import geoopt
import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold, linearize
from pullgeo.errors import OffManifoldError, OptionError, ShapeError
from pullgeo.geodesic import QuadraticModel
from pullgeo.geodesic.energy.ambient_segment import AmbientSegmentEnergy
from pullgeo.geodesic.energy.base import Expansion
from pullgeo.geodesic.energy.chord import ChordEnergy
from pullgeo.jacobian import Chain, Graph
from pullgeo.likelihood import Bernoulli, Categorical, Gaussian, HeteroscedasticGaussian, Likelihood, LogStd
from pullgeo.manifold import Ambient, ProjectOnto
from pullgeo.manifold.ambient import Flat
from pullgeo.manifold.ambient.space_forms import squared_arc
from pullgeo.metric import Dense, Diagonal, Metric
from pullgeo.testing.oracles.connection import christoffel
from pullgeo.testing.oracles.jacobians import dense_jacobian

B, D, T = 3, 2, 5


class Identity(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z.clone()


class Ball(nn.Module):
    """A network whose outputs lie in the ball of radius 0.8."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = network(dim)

    def forward(self, z: Tensor) -> Tensor:
        y = self.net(z)
        return 0.8 * y / (1 + y.square().sum(1, keepdim=True)).sqrt()


class Hyperbola(nn.Module):
    """A network whose outputs lie on the hyperboloid."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(3)

    def forward(self, z: Tensor) -> Tensor:
        y = self.net(z)
        return torch.cat([(1 + y.square().sum(1, keepdim=True)).sqrt(), y], 1)


class Covariance(nn.Module):
    """L Lᵀ + I/5 of the matrix that a network returns."""

    def __init__(self, n: int = 3) -> None:
        super().__init__()
        self.net, self.n = network(n * n), n

    def forward(self, z: Tensor) -> Tensor:
        L = self.net(z).unflatten(1, (self.n, self.n))
        return L @ L.mT + torch.eye(self.n, dtype=z.dtype) / 5


class Cholesky(nn.Module):
    """All positive definite 2 x 2 matrices."""

    def forward(self, z: Tensor) -> Tensor:
        a, b, c = z[:, 0].exp(), z[:, 1], z[:, 2].exp()
        return torch.stack([a * a, a * b, a * b, b * b + c * c], 1).unflatten(1, (2, 2))


class Both(nn.Module):
    """A point of a ball beside a covariance and a point of a sphere."""

    def __init__(self) -> None:
        super().__init__()
        self.ball, self.matrix, self.sphere = (
            Ball(2),
            Covariance(2),
            nn.Sequential(network(3), ProjectOnto(geoopt.Sphere())),
        )

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([self.ball(z), self.matrix(z).flatten(1), self.sphere(z)], 1)


class Valley(nn.Module):
    """A metric on R^4 that depends on the point and has no structure."""

    def forward(self, y: Tensor) -> Tensor:
        root = torch.diag_embed(1 + y.square()) + y.unsqueeze(2) * y.roll(1, 1).unsqueeze(1)
        return root @ root.mT


def network(dim: int) -> nn.Module:
    torch.manual_seed(dim)
    return nn.Sequential(nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, dim)).double()


def inverse_square(y: Tensor) -> Diagonal:
    return Diagonal(1 / (1 + y.flatten(1).square()))


def ball_metric(y: Tensor, c: float = 0.7) -> Tensor:
    factor = 4 / (1 - c * y.square().sum(1)).square()
    return factor[:, None, None] * torch.eye(y.shape[1], dtype=y.dtype)


def matrix_metric(y: Tensor) -> Tensor:
    inverse = torch.linalg.inv(y)
    return torch.stack([torch.kron(P, P) for P in inverse])


def euclidean(y: Tensor) -> Tensor:
    return torch.eye(y[0].numel(), dtype=y.dtype).expand(len(y), -1, -1)


def product_metric(y: Tensor) -> Tensor:
    parts = zip(ball_metric(y[:, :2]), matrix_metric(y[:, 2:6].unflatten(1, (2, 2))), euclidean(y[:, 6:]), strict=True)
    return torch.stack([torch.block_diag(*part) for part in parts])


def ball() -> geoopt.PoincareBall:
    return geoopt.PoincareBall(torch.tensor(0.7, dtype=torch.float64))


CASES = {
    "field of matrices": (lambda: network(4), Valley, lambda y: Valley()(y)),
    "field of metrics": (lambda: network(4), lambda: inverse_square, lambda y: inverse_square(y).dense()),
    "Poincare ball": (lambda: Ball(4), ball, ball_metric),
    "hyperboloid": (Hyperbola, geoopt.Lorentz, lambda y: torch.tensor([-1.0, 1, 1, 1]).diag().expand(len(y), 4, 4)),
    "positive definite": (Covariance, geoopt.SymmetricPositiveDefinite, matrix_metric),
    "sphere": (lambda: nn.Sequential(network(4), ProjectOnto(geoopt.Sphere())), geoopt.Sphere, euclidean),
    "scaled": (lambda: Ball(3), lambda: geoopt.Scaled(ball(), 2.0), lambda y: 4 * ball_metric(y)),
    "product": (
        Both,
        lambda: geoopt.ProductManifold((ball(), 2), (geoopt.SymmetricPositiveDefinite(), (2, 2)), (geoopt.Sphere(), 3)),
        product_metric,
    ),
    "canonical Stiefel": (
        lambda: nn.Sequential(network(6), nn.Unflatten(1, (3, 2)), ProjectOnto(geoopt.CanonicalStiefel())),
        geoopt.CanonicalStiefel,
        lambda y: torch.stack([torch.kron(torch.eye(3) - Y @ Y.T / 2, torch.eye(2)) for Y in y.detach()]),
    ),
    "another learned manifold": (
        lambda: network(3),
        lambda: PullbackManifold(nn.Linear(3, 5).double()),
        None,
    ),
}  # fmt: skip


def points(scale: float = 1.0) -> Tensor:
    return scale * torch.randn(B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def curves() -> Tensor:
    return 0.5 * torch.randn(B, T + 1, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][2] is not None])
def test_metric_and_connection(name: str) -> None:
    decoder, ambient, matrix = (make() if i < 2 else make for i, make in enumerate(CASES[name]))
    manifold, z = PullbackManifold(decoder, ambient), points()
    y, J = decoder(z).detach(), dense_jacobian(decoder, z)
    G = manifold.metric(z)
    expected = J.mT @ matrix(y).double() @ J
    torch.testing.assert_close(G.dense(), expected)
    v, w = points().flip(0), points().roll(1, 1)
    torch.testing.assert_close(G.inner(v, w), torch.einsum("bi,bij,bj->b", v, expected, w))
    M = manifold.ambient.metric(decoder(z))
    torch.testing.assert_close(M.dense().expand(B, -1, -1), matrix(y).double())
    torch.testing.assert_close(M.diag().expand(B, -1), matrix(y).double().diagonal(dim1=1, dim2=2))
    gamma = christoffel(lambda z: manifold.metric(z).dense(), z)
    for other in (v, w):
        turned = torch.einsum("bkij,bi,bj->bk", gamma, v, other)
        torch.testing.assert_close(manifold.connection(z, v, other), turned, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", list(CASES))
def test_expansion_is_exact(name: str) -> None:
    decoder, ambient = CASES[name][0](), CASES[name][1]()
    space, nodes = PullbackManifold(decoder, ambient), curves()
    with torch.no_grad():  # as solvers call it
        at = space.expand_energy(nodes)
    torch.testing.assert_close(at.energy, space.energy(nodes))
    for p in range(B):

        def energy(inner: Tensor, p: int = p) -> Tensor:
            return space.energy(torch.cat([nodes[p, :1], inner.view(T - 1, D), nodes[p, -1:]]).unsqueeze(0)).squeeze(0)

        inner = nodes[p, 1:-1].reshape(-1)
        gradient = torch.autograd.functional.jacobian(energy, inner)
        torch.testing.assert_close(at.gradient[p].reshape(-1), gradient, rtol=1e-9, atol=1e-9)
    # of the last curve, as all are treated alike
    hessian = torch.autograd.functional.hessian(energy, inner)
    torch.testing.assert_close(at.hessian.dense()[p], hessian, rtol=1e-8, atol=1e-8)


def test_given_metrics_by_linear_systems_expand_the_same_without_gradients() -> None:
    def inverse(z: Tensor) -> Tensor:
        matrix = Valley()(torch.cat([z, z], 1))[:, :2, :2]
        return torch.linalg.solve(matrix, torch.eye(2, dtype=z.dtype).expand_as(matrix))

    space, nodes = MetricManifold(inverse), curves()
    with torch.no_grad():
        blocks = space.expand_energy(nodes).hessian.dense()
    torch.testing.assert_close(blocks, space.expand_energy(nodes).hessian.dense())


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][2] is not None])
def test_energy_tends_to_the_integral(name: str) -> None:
    decoder, ambient = CASES[name][0](), CASES[name][1]()
    space = PullbackManifold(decoder, ambient)

    def curve(t: Tensor) -> Tensor:
        return torch.stack([t.sin(), (2 * t).cos() * t], -1)

    def velocity(t: Tensor) -> Tensor:
        return torch.stack([t.cos(), (2 * t).cos() - 2 * t * (2 * t).sin()], -1)

    t = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    exact = float(space.metric(curve(t)).quadratic(velocity(t).unsqueeze(0)).detach().mean())
    coarse, fine = (
        float(space.energy(curve(torch.linspace(0, 1, n + 1, dtype=torch.float64)).unsqueeze(0)).detach()) - exact
        for n in (24, 48)
    )
    assert abs(coarse) < 0.02 * exact
    assert abs(fine) < 0.3 * abs(coarse) + 1e-6 * exact  # of second order at least


def test_poincare_ball_by_the_identity() -> None:
    a, b = torch.zeros(2).double(), torch.full((2,), 0.5).double()
    assert abs(float(PullbackManifold(Identity(), geoopt.PoincareBall()).dist(a, b)) - 1.7627471740) < 1e-10
    x, y = 0.4 * points(), 0.4 * points().flip(0) + 0.1
    manifold = PullbackManifold(Identity(), ball())
    torch.testing.assert_close(manifold.dist(x, y), ball().dist(x, y), rtol=1e-10, atol=0)
    torch.testing.assert_close(manifold.expmap(x, y), ball().expmap(x, y), rtol=1e-8, atol=1e-9)


def test_positive_definite_matrices_by_a_chart_of_all_of_them() -> None:
    manifold = PullbackManifold(Cholesky(), geoopt.SymmetricPositiveDefinite())
    generator = torch.Generator().manual_seed(5)
    x, y = 0.8 * torch.randn(2, B, 3, dtype=torch.float64, generator=generator)
    A, C = Cholesky()(x), Cholesky()(y)
    expected = torch.linalg.eigvals(torch.linalg.solve(A, C)).real.log().norm(dim=1)
    torch.testing.assert_close(manifold.dist(x, y), expected, rtol=1e-9, atol=0)


def test_product_adds_squares_and_scaling_multiplies() -> None:
    ball = geoopt.PoincareBall(torch.tensor(1.0, dtype=torch.float64))
    plane = geoopt.Euclidean(ndim=1)
    both = PullbackManifold(Identity(), geoopt.ProductManifold((ball, 2), (plane, 1)))
    x, y = (torch.cat([0.4 * p, p[:, :1]], 1) for p in (points(), points().flip(0)))
    expected = (ball.dist(x[:, :2], y[:, :2]).square() + (x - y)[:, 2].square()).sqrt()
    torch.testing.assert_close(both.dist(x, y), expected, rtol=1e-9, atol=0)
    doubled = PullbackManifold(Identity(), geoopt.Scaled(ball, 2.0))
    torch.testing.assert_close(doubled.dist(x[:, :2], y[:, :2]), 2 * ball.dist(x[:, :2], y[:, :2]), rtol=1e-9, atol=0)


def test_great_circles_of_a_sphere_whose_chart_is_a_decoder() -> None:
    class Chart(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.cat([z, torch.ones_like(z[:, :1])], 1)

    chart = nn.Sequential(Chart(), ProjectOnto(geoopt.Sphere()))
    x, y = points(), points().flip(0) + 0.3
    expected = geoopt.Sphere().dist(chart(x), chart(y))
    torch.testing.assert_close(PullbackManifold(chart, geoopt.Sphere()).dist(x, y), expected, rtol=1e-8, atol=0)


def test_a_field_is_what_the_same_metric_is_on_its_own() -> None:
    x, y = points(0.5), points(0.5).flip(0) + 0.2
    field = MetricManifold(lambda z: ball_metric(z, 0.3))
    expected, nodes = field.dist(x, y), torch.stack([x, x + y, y], 1)
    torch.testing.assert_close(PullbackManifold(Identity(), lambda z: ball_metric(z, 0.3)).dist(x, y), expected)
    torch.testing.assert_close(PullbackManifold(Identity(), field).energy(nodes), field.energy(nodes))
    diagonal = MetricManifold(inverse_square)
    full = MetricManifold(lambda z: inverse_square(z).dense())
    torch.testing.assert_close(diagonal.expand_energy(nodes).gradient, full.expand_energy(nodes).gradient)
    torch.testing.assert_close(diagonal.connection(x, y, x), full.connection(x, y, x))


def test_another_learned_manifold_composes() -> None:
    torch.manual_seed(0)
    inner, outer = network(3), nn.Sequential(nn.Linear(3, 5), nn.Softplus()).double()
    x, y = points(), points().flip(0)
    there = PullbackManifold(nn.Sequential(inner, outer), Diagonal(torch.arange(1.0, 6.0).double()))
    here = PullbackManifold(inner, PullbackManifold(outer, Diagonal(torch.arange(1.0, 6.0).double())))
    torch.testing.assert_close(here.dist(x, y), there.dist(x, y))
    assert here.decode(x).shape == (B, 3)


@dataclass(frozen=True)
class Informed:
    """A likelihood that tells its Fisher information only."""

    likelihood: Likelihood

    def fisher(self, eta: Tensor) -> Metric:
        return self.likelihood.fisher(eta)


LIKELIHOODS = {
    "Bernoulli": (Bernoulli(), (2, 2)),
    "categorical": (Categorical(), (4,)),
    "Gaussian": (Gaussian(torch.tensor([0.5, 2.0])), (2, 2)),
    "Gaussian with its deviation": (HeteroscedasticGaussian(LogStd()), (4,)),
}


@pytest.mark.parametrize("name", list(LIKELIHOODS))
def test_likelihoods_by_their_isometry_or_their_information(name: str) -> None:
    likelihood, shape = LIKELIHOODS[name]
    decoder = nn.Sequential(network(4), nn.Unflatten(1, shape))
    manifold, informed = (PullbackManifold(decoder, given) for given in (likelihood, Informed(likelihood)))
    x, y = points(), points().flip(0)
    J, M = dense_jacobian(decoder, x), likelihood.fisher(decoder(x)).dense().detach()
    torch.testing.assert_close(manifold.metric(x).dense(), J.mT @ M @ J)
    torch.testing.assert_close(manifold.connection(x, y, x), informed.connection(x, y, x))
    torch.testing.assert_close(manifold.dist(x, y), informed.dist(x, y), rtol=1e-4, atol=0)
    torch.testing.assert_close(manifold.decode(x), decoder(x))
    assert isinstance(linearize(manifold._map, x)[1], Chain | Graph)  # by rules, the isometry included


def test_fisher_rao_distances() -> None:
    logits = torch.tensor([[0.2, 0.8], [0.8, 0.2]]).double().logit()
    bernoulli = PullbackManifold(Identity(), Bernoulli())
    torch.testing.assert_close(bernoulli.dist(logits[:, :1], logits[:, 1:]), torch.full((2,), 1.2870022176).double())
    normal = PullbackManifold(Identity(), HeteroscedasticGaussian(LogStd()))
    a, b = torch.zeros(1, 2).double(), torch.tensor([[0.0, 1.0]]).double()
    torch.testing.assert_close(normal.dist(a, b), torch.full((1,), 2**0.5).double(), rtol=1e-6, atol=0)


def test_single_precision_decoders_and_curvature_that_learns() -> None:
    decoder, geometry = Ball(4).float(), geoopt.PoincareBall(0.7, learnable=True)
    single = PullbackManifold(decoder, geometry)
    assert single.in_single() is single
    x, y = points().float(), points().flip(0).float()
    distance = single.dist(x, y)
    assert distance.dtype == torch.float32
    exact = PullbackManifold(Ball(4), geoopt.PoincareBall(geometry.c.detach().double())).dist(x.double(), y.double())
    torch.testing.assert_close(distance.double(), exact, rtol=1e-6, atol=0)
    distance.sum().backward()
    assert float(geometry.isp_c.grad.abs()) > 0
    assert all(bool((p.grad != 0).any()) for p in decoder.net[0].parameters())


def test_distance_differentiates_through_a_curved_space() -> None:
    decoder = Ball(3)
    x, y = points(0.5)[:1], points(0.5)[1:2]
    inputs = (x, y, decoder.net[2].bias.detach())
    steps = [v.flip(-1) + 1 for v in inputs]

    def distance(t: float, track: bool) -> tuple[Tensor, list[Tensor]]:
        x, y, bias = ((v + t * s).requires_grad_(track) for v, s in zip(inputs, steps, strict=True))
        decoder.net[2].bias = nn.Parameter(bias.detach(), requires_grad=track)
        return PullbackManifold(decoder, ball()).dist(x, y).squeeze(0), [x, y, decoder.net[2].bias]

    d, leaves = distance(0.0, True)
    slope = sum((g * s).sum() for g, s in zip(torch.autograd.grad(d, leaves), steps, strict=True))
    ahead, behind = distance(1e-4, False)[0], distance(-1e-4, False)[0]
    torch.testing.assert_close(slope, (ahead - behind) / 2e-4, rtol=1e-6, atol=0)


@pytest.mark.parametrize("curvature", [-1.3, 0.0, 0.8])
def test_squared_arc(curvature: float) -> None:
    chord = torch.cat([torch.zeros(1), torch.logspace(-12, 0.5, 60)]).double().requires_grad_()
    k = torch.tensor(curvature, dtype=torch.float64, requires_grad=True)
    root = math.sqrt(abs(curvature)) or 1.0
    half = chord.detach().sqrt() / 2
    exact = {
        -1: lambda: 2 * torch.asinh(root * half) / root,
        0: lambda: 2 * half,
        1: lambda: 2 * torch.asin(root * half) / root,
    }
    arc = squared_arc(chord, k)
    torch.testing.assert_close(arc, exact[(curvature > 0) - (curvature < 0)]().square(), rtol=1e-13, atol=0)
    (slope,) = torch.autograd.grad(arc.sum(), chord, create_graph=True)
    bend = torch.autograd.grad(slope.sum(), (chord, k))
    assert float(slope[0].detach()) == 1.0
    assert all(bool(torch.isfinite(b).all()) for b in bend)


def test_a_space_of_ones_own() -> None:
    class Doubled(Ambient):
        def metric(self, y: Tensor) -> Metric:
            return Diagonal(torch.full_like(y, 4.0))

    x, y = points(), points().flip(0)
    decoder = network(3)
    torch.testing.assert_close(
        PullbackManifold(decoder, Doubled()).dist(x, y), 2 * PullbackManifold(decoder).dist(x, y), rtol=1e-5, atol=0
    )


def test_a_space_that_states_its_energy_by_methods_warns_and_works() -> None:
    called = []
    with pytest.warns(DeprecationWarning, match=r"Old.expand_energy: a space now states .* by discretise"):

        class Old(Flat):
            def expand_energy(
                self, expand: Callable[[Tensor], Expansion], decode: Callable[[Tensor], Tensor], nodes: Tensor
            ) -> QuadraticModel:
                called.append(len(nodes))
                return ChordEnergy(decode, expand).expand_energy(nodes)

    with pytest.warns(DeprecationWarning, match="Turned.bend is now called lowered_christoffel"):

        class Turned(Ambient):
            def metric(self, y: Tensor) -> Metric:
                return Diagonal(torch.ones_like(y))

            def bend(self, y: Tensor, u: Tensor, w: Tensor) -> Tensor:
                return 7 * u

    class Newer(Old):
        pass

    x, y = points(), points().flip(0)
    decoder = network(3)
    for space in (Old(), Newer()):
        torch.testing.assert_close(PullbackManifold(decoder, space).dist(x, y), PullbackManifold(decoder).dist(x, y))
    assert called
    u = torch.ones(3, 2)
    torch.testing.assert_close(Turned().lowered_christoffel(u, u, u), 7 * u)


@pytest.mark.usefixtures("without_type_checks")
def test_named_errors_say_what_to_do() -> None:
    z, net = points(), network(3)
    with pytest.raises(OffManifoldError, match=r"not points of Sphere: .*pullgeo.manifold.ProjectOnto"):
        PullbackManifold(net, geoopt.Sphere()).metric(z)
    with pytest.raises(OffManifoldError, match=r"not points of PoincareBall.*expmap0"):
        PullbackManifold(nn.Sequential(net, nn.Softplus()), geoopt.PoincareBall()).geodesic(z, z + 1)
    with pytest.raises(OffManifoldError, match=r"not points of SymmetricPositiveDefinite.*L Lᵀ"):
        PullbackManifold(nn.Sequential(network(4), nn.Unflatten(1, (2, 2))), geoopt.SymmetricPositiveDefinite()).metric(
            z
        )
    with pytest.raises(OffManifoldError, match="not points of ProductManifold"):
        PullbackManifold(net, geoopt.ProductManifold((geoopt.Sphere(), 2), (geoopt.Euclidean(), 2))).metric(z)
    with pytest.raises(OptionError, match="complex"):
        PullbackManifold(net, geoopt.UpperHalf())
    with pytest.raises(OptionError, match="ambient must be None, a constant Metric, a function"):
        PullbackManifold(net, 3)
    with pytest.raises(ShapeError, match=r"must map \(3, 3\) to \(3, 3, 3\), got \(3, 3\)"):
        PullbackManifold(net, lambda y: y).metric(z)
    with pytest.raises(ShapeError, match="metric of dimension 3"):
        PullbackManifold(net, lambda y: Diagonal(torch.ones(5))).metric(z)
    with pytest.warns(UserWarning, match="not fully implemented"):
        log_euclidean = geoopt.SymmetricPositiveDefinite("LEM")
    with pytest.raises(OptionError, match='only for "AIM"'):
        PullbackManifold(net, log_euclidean)


class Plain(Ambient):
    """A space that is no dataclass."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def metric(self, y: Tensor) -> Metric:
        return Diagonal(torch.full_like(y, self.scale))


class Bare(Ambient):
    """A space whose metric is a tensor."""

    def metric(self, y: Tensor) -> Metric:
        return torch.diag_embed(torch.ones_like(y))  # type: ignore[return-value]


class Unsummed(Ambient):
    """A space whose segments have as many energies as the output has dimensions."""

    def metric(self, y: Tensor) -> Metric:
        return Diagonal(torch.ones_like(y))

    def segment_energy(self, a: Tensor, b: Tensor) -> Tensor:
        return (b - a).square()


@pytest.mark.usefixtures("without_type_checks")
def test_mistakes_in_a_space_of_ones_own_are_named() -> None:
    z, net = points(), network(3)
    with pytest.raises(OptionError, match=r"ambient is the class Unsummed.*ambient=Unsummed\(\.\.\.\)"):
        PullbackManifold(net, Unsummed)
    with pytest.raises(OptionError, match=r"Plain.in_double: .*embedding.*without an __init__ of its own"):
        PullbackManifold(net, Plain(2.0)).dist(z, z.flip(0))
    for call in (lambda m: m.metric(z), lambda m: m.dist(z, z.flip(0)), lambda m: m.connection(z, z, z)):
        with pytest.raises(ShapeError, match=r"Bare.metric must return a pullgeo.metric.Metric .*got Tensor"):
            call(PullbackManifold(net, Bare()))
    for call in (lambda m: m.energy(curves()), lambda m: m.expand_energy(curves()), lambda m: m.dist(z, z.flip(0))):
        with pytest.raises(ShapeError, match=r"segment_energy must map outputs \(\d+, 3\) .*got \(\d+, 3\)"):
            call(PullbackManifold(net, Unsummed()))


def test_segments_of_flat_space_are_chords() -> None:
    net, nodes = network(4), curves()
    M = Dense(Valley()(torch.ones(1, 4, dtype=torch.float64))[0])
    flat, manifold = Flat(M), PullbackManifold(net, M)
    values = net(nodes.reshape(-1, D)).reshape(B, T + 1, 4).detach()
    chords = values.diff(dim=1)
    expected = T * torch.einsum("bti,ij,btj->b", chords, M.matrix, chords)
    energy = AmbientSegmentEnergy(flat.segment_energy, lambda y, T: flat.metric(y).quadratic(T), manifold.expand, net)
    torch.testing.assert_close(energy.energy(nodes), expected)
    at = energy.expand_energy(nodes)
    torch.testing.assert_close(at.energy, expected)
    empty = energy.expand_energy(nodes[:0])
    assert empty.energy.shape == (0,)
