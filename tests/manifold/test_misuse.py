"""What users get wrong, or leave out: named errors, and results where there is one."""

import sys
import warnings
from collections.abc import Callable
from dataclasses import replace

import geoopt
import pytest
import torch
from torch import Tensor, nn

from pullgeo import BoundaryValue, MetricManifold, Newton, PullbackManifold, frechet_mean
from pullgeo.curve import straight_line
from pullgeo.errors import (
    DtypeError,
    GeometryError,
    GradModeError,
    NonFiniteError,
    OptionError,
    PullgeoError,
    ShapeError,
    SingularMetricError,
)
from pullgeo.manifold import ConformalMetric, KernelDensity, LandMetric, Manifold, RHVAEMetric
from pullgeo.metric import Diagonal

F64 = torch.float64


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5)).double()


def by_autodiff(z: Tensor) -> Tensor:
    return torch.cat([z, z[:, :1].sin() * torch.linalg.vector_norm(z, dim=1, keepdim=True).exp()], 1)


def bump(z: Tensor) -> Tensor:
    return torch.eye(2, dtype=z.dtype) * (1 + z.square().sum(1))[:, None, None]


MANIFOLDS = [PullbackManifold(network()), PullbackManifold(by_autodiff), MetricManifold(bump)]


@pytest.mark.parametrize("space", MANIFOLDS)
def test_one_point_meets_several_tangents(space: Manifold) -> None:
    z = torch.tensor([0.3, -0.2], dtype=F64)
    u, v, w = torch.randn(3, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(0)) / 50
    wide = z.expand(2, 2).clone()
    with torch.no_grad():
        for name in ("sectional_curvature", "transp_follow_expmap"):
            found, expected = getattr(space, name)(z, u, v), getattr(space, name)(wide, u, v)
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10, msg=name)
        # a single geodesic that carries a vector along
        end, carried = space.expmap_transp(z, u[0], w[0])
        torch.testing.assert_close(space.parallel_transport(space.geodesic(z, end).curve, w[0])[0], carried)


@pytest.mark.parametrize("space", MANIFOLDS)
def test_inference_mode_is_refused_where_derivatives_would_vanish(space: Manifold) -> None:
    z = torch.tensor([[0.3, -0.2], [0.1, 0.4]], dtype=F64)
    generator = torch.Generator().manual_seed(0)
    calls: list[Callable[[], object]] = [
        lambda: space.dist(z[:1], z[1:]),
        lambda: BoundaryValue(space, z[:1], z[1:]),
        lambda: frechet_mean(space, z),
        lambda: space.laplace_beltrami(lambda z: z.square().sum(1), z),
        lambda: space.sample(lambda z: -z.square().sum(1), z, 2, 0.1, generator),
    ]
    for call in calls:
        with torch.inference_mode(), pytest.raises(GradModeError, match="no_grad"):
            call()
    with torch.no_grad():
        expected = space.scalar_curvature(z)
    with torch.inference_mode():
        try:
            found = space.scalar_curvature(z)
        except GradModeError:
            return
    torch.testing.assert_close(found.clone(), expected)


def test_a_tangent_of_no_length_has_a_norm_with_a_derivative() -> None:
    u = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=F64, requires_grad=True)
    z = torch.zeros(2, 2, dtype=F64)
    (gradient,) = torch.autograd.grad(MANIFOLDS[0].norm(z, u).sum(), u)
    G = MANIFOLDS[0].metric(z).dense()[1].detach()
    torch.testing.assert_close(gradient, torch.stack([torch.zeros(2, dtype=F64), G[0] / G[0, 0].sqrt()]))


def traced(module: nn.Module) -> nn.Module:
    dtype = next(module.parameters()).dtype
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in use
        return torch.jit.trace(module, torch.zeros(3, 2, dtype=dtype))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(z), z


@pytest.mark.parametrize(
    ("decoder", "expected"),
    [
        (Pair(), "tuple"),
        (lambda z: {"first": z, "other": 2 * z}, "dict"),
        (lambda z: z.numpy(), "ndarray"),
        (lambda z: (10 * z).long(), "int64"),
        (torch.fft.fft, "complex"),
        (lambda z: z.sum(0), "first dimension"),
        (nn.LazyLinear(3), "lazy"),
        (nn.Embedding(4, 3).double(), "indices"),
        (nn.Linear(3, 4).double(), "d = 2"),
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 3)).double(), "d = 2"),
        (nn.Sequential(nn.Linear(2, 3).double(), nn.Linear(3, 3)).to("meta"), "meta"),
        (traced(nn.Linear(2, 3)), "TorchScript|float32"),
    ],
)
def test_decoders_that_are_none_are_refused_by_name(decoder: nn.Module, expected: str) -> None:
    space = PullbackManifold(decoder)
    x, y = torch.zeros(3, 2, dtype=F64), torch.ones(3, 2, dtype=F64)
    for call in (
        space.metric,
        lambda x: space.geodesic(x, y),
        lambda x: space.dist(x, y),
        lambda x: space.expmap(x, y),
    ):
        with torch.no_grad(), pytest.raises(PullgeoError, match=expected):
            call(x)


def test_a_class_is_no_decoder() -> None:
    with pytest.raises(OptionError, match="the class Linear"):
        PullbackManifold(nn.Linear)


def test_a_metric_of_another_precision_than_the_points_is_refused() -> None:
    space = MetricManifold(
        lambda z: torch.eye(2, dtype=F64).expand(len(z), 2, 2) * (1 + z.square().sum(1))[:, None, None]
    )
    for call in (space.metric, lambda z: space.inner(z, z), space.scalar_curvature):
        with pytest.raises(DtypeError, match="float32"):
            call(torch.zeros(3, 2))
    assert space.dist(torch.zeros(3, 2), torch.ones(3, 2)).dtype == torch.float32


@pytest.mark.parametrize("space", MANIFOLDS)
def test_no_points_at_all(space: Manifold) -> None:
    none = torch.zeros(0, 2, dtype=F64)
    assert space.random_walk(none, 3, 0.1, torch.Generator()).shape == (0, 4, 2)
    assert space.exp_differential(none, none, none).shape == (0, 2)
    if isinstance(space, PullbackManifold):
        assert space.second_fundamental_form(none, none, none).shape[0] == 0


@pytest.mark.parametrize("name", ["inner", "norm", "expmap", "retr", "proju", "dist", "logmap", "egrad2rgrad"])
def test_points_without_coordinates_are_refused(name: str) -> None:
    with pytest.raises(ShapeError, match="d > 0"):
        getattr(MANIFOLDS[0], name)(torch.zeros(3, 0, dtype=F64), torch.zeros(3, 0, dtype=F64))


def test_random_walks_ask_for_points() -> None:
    with pytest.raises(DtypeError):
        MANIFOLDS[0].random_walk(torch.zeros(3, 2, dtype=torch.long), 3, 0.1, torch.Generator())


def test_geoopts_random_and_origin() -> None:
    space = MANIFOLDS[0]
    origin = space.origin(3, 2, dtype=F64)
    assert isinstance(origin, geoopt.ManifoldTensor)
    assert origin.manifold is space
    assert not origin.any()
    draws = [space.random((2000, 2), dtype=F64, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*draws)
    assert draws[0].dtype == F64
    torch.testing.assert_close(draws[0].std(0), torch.ones(2, dtype=F64), rtol=0.1, atol=0.0)
    assert space.dist(origin, origin).shape == (3,)
    with pytest.raises(ShapeError):
        space.random()


def test_projections_and_steps_broadcast_as_in_euclidean_space() -> None:
    x, u, v = torch.zeros(3, 1, 2, dtype=F64), torch.ones(2, dtype=F64), torch.ones(4, 2, dtype=F64)
    space, plane = MANIFOLDS[0], geoopt.Euclidean(ndim=1)
    assert space.proju(x, u).shape == plane.proju(x, u).shape == (3, 1, 2)
    assert space.transp_follow_retr(x, u, v).shape == (3, 4, 2)
    with pytest.raises(ShapeError):
        space.retr(torch.zeros(3, 2, dtype=F64), torch.zeros(4, 2, dtype=F64))


def test_tangents_that_are_not_finite_are_none() -> None:
    x = torch.zeros(1, 2, dtype=F64)
    assert MANIFOLDS[0].check_vector_on_tangent(x, x)
    assert not MANIFOLDS[0].check_vector_on_tangent(x, x / 0)


@pytest.mark.parametrize("cg_method", ["steepest", "fr"])
def test_line_searches_train_a_point(cg_method: str) -> None:
    net = network()
    goal = net(torch.tensor([[0.4, -0.3]], dtype=F64)).detach()
    point = geoopt.ManifoldParameter(torch.zeros(1, 2, dtype=F64), manifold=PullbackManifold(net))
    search = geoopt.optim.RiemannianLineSearch([point], cg_method=cg_method, line_search_method="wolfe")

    def closure() -> float:
        search.zero_grad()
        loss = (net(point) - goal).square().sum()
        loss.backward()
        return loss.item()

    before = closure()
    for _ in range(5):
        search.step(closure)
    assert closure() < 1e-3 * before


def test_modules_of_torchscript_in_double_precision_still_serve() -> None:
    plain = nn.Linear(2, 3).double()
    z = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=F64)
    torch.testing.assert_close(PullbackManifold(traced(plain)).dist(*z), PullbackManifold(plain).dist(*z))


@pytest.mark.parametrize(
    "metric",
    [
        LandMetric(torch.zeros(3, 2), 0.5, 0.1),
        RHVAEMetric(torch.zeros(3, 2), torch.ones(3, 2, 2), 0.5, 0.1),
        ConformalMetric(KernelDensity(torch.zeros(3, 2), 0.5), 0.1),
    ],
)
def test_metrics_of_data_know_their_dimension(metric: nn.Module) -> None:
    space = MetricManifold(metric)
    for call in (space.metric, lambda z: space.dist(z, z + 1)):
        with pytest.raises(ShapeError, match=r"\(b, 2\)"):
            call(torch.zeros(4, 3))


@pytest.mark.usefixtures("without_type_checks")
def test_tangents_to_be_transported_are_finite_numbers_and_curves_are_curves() -> None:
    space, line = MANIFOLDS[0], straight_line(torch.zeros(1, 2, dtype=F64), torch.ones(1, 2, dtype=F64))
    with pytest.raises(DtypeError):
        space.parallel_transport(line, torch.ones(1, 2, dtype=torch.long))
    with pytest.raises(NonFiniteError):
        space.parallel_transport(line, torch.full((1, 2), torch.nan, dtype=F64))
    with pytest.raises(GeometryError, match="DiscreteCurve"):
        space.parallel_transport(line.nodes, torch.ones(1, 2, dtype=F64))  # type: ignore[arg-type]


LOCAL: dict[str, Callable[[Manifold, Tensor, Tensor], Tensor]] = {
    "log_volume": lambda m, z, u: m.log_volume(z),
    "condition_number": lambda m, z, u: m.condition_number(z),
    "laplace_beltrami": lambda m, z, u: m.laplace_beltrami(lambda p: p.square().sum(1).sin(), z),
    "christoffel": lambda m, z, u: m.christoffel(z),
    "riemann_tensor": lambda m, z, u: m.riemann_tensor(z),
    "ricci": lambda m, z, u: m.ricci(z),
    "scalar_curvature": lambda m, z, u: m.scalar_curvature(z),
    "sectional_curvature": lambda m, z, u: m.sectional_curvature(z, u, u.flip(0)),
    "second_fundamental_form": lambda m, z, u: m.second_fundamental_form(z, u, u),
    "jacobi_field": lambda m, z, u: m.jacobi_field(z, u / 10, u, u).derivatives,
}


class MetricNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.root = nn.Linear(2, 4).double()

    def forward(self, z: Tensor) -> Tensor:
        R = self.root(z).unflatten(1, (2, 2)).tanh()
        return R @ R.mT + torch.eye(2, dtype=z.dtype)


KINDS = ["decoder", "curved ambient", "metric", "density"]


@pytest.mark.quick(12)
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in KINDS for name in LOCAL if kind == "decoder" or name != "second_fundamental_form"],
)
def test_what_depends_on_nothing_that_requires_gradients_requires_none(kind: str, name: str) -> None:
    torch.manual_seed(0)
    module: nn.Module = {
        "decoder": network,
        "curved ambient": network,
        "metric": MetricNetwork,
        "density": lambda: LandMetric(torch.randn(9, 2, dtype=F64), 1.0, 0.3),
    }[kind]()
    if kind == "decoder":
        space: Manifold = PullbackManifold(module)
    elif kind == "curved ambient":
        space = PullbackManifold(module, lambda y: torch.eye(5, dtype=F64) * (1 + y[:, :1].square()).unsqueeze(2))
    else:
        space = MetricManifold(module)
    z, u = torch.tensor([[0.3, -0.2], [0.1, 0.4]], dtype=F64), torch.tensor([[0.1, 0.0], [0.1, 0.1]], dtype=F64)
    call = LOCAL[name]
    with torch.no_grad():
        without = call(space, z, u)
    assert not without.requires_grad
    module.requires_grad_(False)
    found = call(space, z, u)
    assert not found.requires_grad
    torch.testing.assert_close(found, without)
    assert call(space, z.clone().requires_grad_(), u).requires_grad
    parameters = list(module.requires_grad_().parameters())
    if parameters:
        gradients = torch.autograd.grad(call(space, z, u).square().sum(), parameters, allow_unused=True)
        assert any(g is not None and bool(g.any()) for g in gradients)


@pytest.mark.parametrize(
    "space",
    [PullbackManifold(nn.Identity()), MetricManifold(lambda z: Diagonal(torch.tensor([1.0, 4.0], dtype=z.dtype)))],
)
def test_metrics_that_are_the_same_everywhere_have_a_volume_at_each_point(space: Manifold) -> None:
    z = torch.randn(3, 1, 2, dtype=F64)
    for name in ("log_volume", "condition_number"):
        assert getattr(space, name)(z).shape == (3, 1)
    assert space.laplace_beltrami(lambda p: p.square().sum(1), z).shape == (3, 1)
    assert space.random_walk(z, 2, 0.1, torch.Generator().manual_seed(0)).shape == (3, 1, 3, 2)
    draws = space.sample(lambda p: -p.square().sum(1), z[:, 0], 2, 0.1, torch.Generator().manual_seed(0))
    assert draws.points.shape == (3, 2, 2)


class TestFewerOutputsThanLatents:
    x = torch.tensor([[0.3, -0.2], [0.1, 0.4]], dtype=F64)
    y = torch.tensor([[-0.4, 0.1], [0.5, 0.3]], dtype=F64)

    def test_curves_are_measured(self) -> None:
        torch.manual_seed(0)
        for decoder in (nn.Linear(2, 1).double(), nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()):
            space = PullbackManifold(decoder)
            solution = space.geodesic(self.x, self.y)
            assert bool(solution.converged.all())
            expected = (decoder(self.y) - decoder(self.x)).norm(dim=1)
            torch.testing.assert_close(solution.length, expected)
            torch.testing.assert_close(space.dist(self.x, self.y), expected)
            assert bool((space.log_volume(self.x) < -20).all())

    @pytest.mark.parametrize("grad", [True, False])
    def test_what_needs_a_connection_says_what_to_do(self, grad: bool) -> None:
        space, x, u = PullbackManifold(nn.Linear(2, 1).double()), self.x, self.y
        calls: list[Callable[[], object]] = [
            lambda: space.logmap(x, u),
            lambda: space.expmap(x, u),
            lambda: space.transp(x, u, u),
            lambda: space.christoffel(x),
            lambda: space.ricci(x),
            lambda: space.sectional_curvature(x, u, x),
            lambda: space.exp_differential(x, u, u),
            lambda: space.parallel_transport(straight_line(x, u), u),
        ]
        for call in calls:
            with torch.set_grad_enabled(grad), pytest.raises(SingularMetricError, match=r"outputs, 1, than latents, 2"):
                call()
        with pytest.raises(SingularMetricError, match=r"PullbackManifold\.logarithm"):
            space.logmap(x, u)

    def test_the_fix_works(self) -> None:
        decoder = nn.Linear(2, 1).double()
        space = PullbackManifold(lambda z: torch.cat([decoder(z).flatten(1), 0.01 * z], 1))
        G = PullbackManifold(decoder).metric(self.x).dense() + 1e-4 * torch.eye(2, dtype=F64)
        torch.testing.assert_close(space.metric(self.x).dense(), G)
        torch.testing.assert_close(space.logmap(self.x, self.y), self.y - self.x, rtol=1e-6, atol=1e-8)


def test_one_singular_point_takes_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    # what fails is not tried again with more segments
    module = sys.modules["pullgeo.manifold.logarithm"]
    monkeypatch.setattr(module, "SETTINGS", replace(module.SETTINGS, max_segments=32))

    def folded(z: Tensor) -> Tensor:  # flat in (z_1, z_2^2), singular where z_2 = 0
        return torch.stack([z[:, 0], z[:, 1].square()], 1)

    space = PullbackManifold(folded)
    x = torch.tensor([[0.0, 0.0], [0.0, 0.5]], dtype=F64, requires_grad=True)
    y = torch.tensor([[1.0, 0.3], [1.0, 0.6]], dtype=F64)
    carried = space.transp(x, y, torch.ones(2, dtype=F64))  # along the geodesic that the logarithm begins
    assert bool(carried[0].isnan().all())
    torch.testing.assert_close(carried[1].detach(), torch.tensor([1.0, 0.5 / 0.6], dtype=F64))
    (gradient,) = torch.autograd.grad(carried[1, 1], x)
    torch.testing.assert_close(gradient, torch.tensor([[0, 0], [0, 1 / 0.6]], dtype=F64))


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("solver", ["newton", Newton, 3])
def test_what_is_no_solver(solver: object) -> None:
    x = torch.zeros(1, 2, dtype=F64)
    with pytest.raises(OptionError, match=r"Newton\(segments=32\)"):
        MANIFOLDS[0].geodesic(x, x + 1, solver)
    with pytest.raises(OptionError, match=r"Newton\(segments=32\)"):
        frechet_mean(MANIFOLDS[0], x, solver=solver)
