"""The calls of docs/coming_from.rst beside those of the packages it names, each where that package is installed."""

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold, frechet_mean, linearize
from pullgeo import nnj as our_nnj
from pullgeo.geodesic import Georce
from pullgeo.jacobian import sample_gradients, tangent_kernel
from pullgeo.likelihood import Categorical, Gaussian, ggn_diag, laplace_backend
from pullgeo.manifold import LandMetric
from pullgeo.testing.charts import AngularSphere, HalfPlane

# What the other packages warn of when they are imported and used is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

PAGE = (Path(__file__).parents[2] / "docs" / "coming_from.rst").read_text(encoding="utf-8")
EXACT = 1e-12
Peer = Callable[[str], ModuleType]


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    """Imports a package that may be missing, or not load beside the numpy that is here.

    Some make numbers in the default precision, and geomstats changes it; what they do ends with the test.
    """
    monkeypatch.setenv("GEOMSTATS_BACKEND", "pytorch")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield partial(pytest.importorskip, exc_type=ImportError)
    torch.set_default_dtype(before)


def close(theirs: Tensor, ours: Tensor, rtol: float = EXACT) -> None:
    """The same shape, and the same numbers relative to the largest."""
    assert theirs.shape == ours.shape
    assert theirs.dtype == ours.dtype == torch.float64
    assert float((theirs - ours).detach().abs().max()) <= rtol * float(ours.detach().abs().max())


def points(seed: int) -> Tensor:
    return torch.randn(3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def decoder() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5)).double().requires_grad_(False)


@pytest.fixture
def classes() -> Tensor:
    return torch.tensor([0, 3, 1])


@pytest.mark.parametrize(
    "name", ["stochman", "nnj", "geomstats", "BackPACK", "laplace-torch", "torch.func", "geodesic_toolbox"]
)
def test_every_package_has_its_section(name: str) -> None:
    assert f"\n{name}\n{'-' * len(name)}\n" in PAGE


def embedded(stochman: Any, decoder: nn.Module) -> Any:
    """The decoder as stochman sees it."""

    class Embedded(stochman.manifold.EmbeddedManifold):
        def embed(self, points: Tensor, jacobian: bool = False) -> Any:
            y, J = linearize(decoder, points.reshape(-1, 2))
            y = y.reshape(*points.shape[:-1], -1)
            return (y, J.dense()) if jacobian else y

    return Embedded()


def test_metrics_of_stochman(decoder: nn.Module, peer: Peer) -> None:
    stochman = peer("stochman")
    theirs, ours, z = embedded(stochman, decoder), PullbackManifold(decoder), points(1)
    close(theirs.metric(z), ours.metric(z).dense())
    close(theirs.log_volume(z), ours.log_volume(z))
    # Their weights are densities, ours are 1 at a datum: rho and the metric differ by the density's constant.
    data, sigma, rho = points(2), 0.7, 0.01
    K = 1 / (2 * math.pi * sigma**2)
    close(stochman.manifold.LocalVarMetric(data, sigma, rho).metric(z), LandMetric(data, sigma, rho / K)(z).diag() / K)


def test_geodesics_of_stochman(decoder: nn.Module, peer: Peer) -> None:
    stochman = peer("stochman")
    theirs, manifold, z0, z1 = embedded(stochman, decoder), PullbackManifold(decoder), points(1), points(2)
    solution = manifold.geodesic(z0, z1)
    assert bool(solution.converged.all())
    nodes = solution.curve.nodes
    # Their energy and length are those of chords alone, an error of second order in 1/32; ours add the bends.
    close(theirs.curve_energy(nodes, reduction="none"), solution.energy, 5e-5)
    close(theirs.curve_length(nodes), solution.length, 3e-5)
    curve, success = theirs.connecting_geodesic(z0, z1)
    assert bool(success)
    fine = torch.linspace(0, 1, 2049, dtype=torch.float64)
    # A cubic spline of a few knots by Adam: a little longer.
    ratio = theirs.curve_length(curve(fine)) / solution.length
    assert bool((ratio > 1 - 1e-7).all())
    assert bool((ratio < 1 + 1e-5).all())
    # The derivative and the length of that spline.
    close(theirs.dist2(z0, z1), manifold.dist(z0, z1).square(), 1e-2)
    close(theirs.logmap(z0, z1), manifold.logmap(z0, z1), 1e-2)


def test_nnj_of_stochman(decoder: nn.Sequential, peer: Peer) -> None:
    peer("stochman")
    from stochman import nnj

    theirs = nnj.Sequential(nnj.Linear(2, 7), nnj.Tanh(), nnj.Linear(7, 5)).double()
    theirs.load_state_dict(decoder.state_dict())
    for their, our in zip(
        theirs(points(1), jacobian=True), our_nnj.convert_to_nnj(decoder)(points(1), jacobian=True), strict=True
    ):
        close(their, our)


def test_products_of_nnj(decoder: nn.Sequential, peer: Peer) -> None:
    nnj = peer("nnj")
    theirs, ours, z = nnj.utils.convert_to_nnj(decoder), our_nnj.convert_to_nnj(decoder), points(1)
    val = theirs(z)
    generator = torch.Generator().manual_seed(3)
    v = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    M = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    close(theirs.jvp(z, val, z), ours.jvp(z, None, z))
    close(theirs.vjp(z, val, v, wrt="weight"), ours.vjp(z, None, v, wrt="weight"))
    close(theirs.jTmjp(z, val, None), ours.jTmjp(z, None, None))
    close(theirs.jTmjp(z, val, M), ours.jTmjp(z, None, M))
    close(theirs.jTmjp(z, val, None, wrt="weight", to_diag=True), ours.jTmjp(z, None, None, "weight", to_diag=True))
    options = {"wrt": "weight", "from_diag": True, "to_diag": True, "diag_backprop": True}
    close(theirs.jTmjp(z, val, torch.ones_like(v), **options), ours.jTmjp(z, None, torch.ones_like(v), **options))
    blocks = theirs.jTmjp(z, val, None, wrt="weight"), ours.jTmjp(z, None, None, wrt="weight")
    for their, our in zip(*blocks, strict=True):
        close(their, our)
    their_ggn = nnj.LogBernoulli(aggregate_batch="sum").ggn(z, theirs, wrt="weight")
    close(their_ggn, our_nnj.LogBernoulli(aggregate_batch="sum").ggn(z, ours, wrt="weight"))


def immersed(geomstats: Any, f: Callable[[Tensor], Tensor], n: int) -> Any:
    """A map from two coordinates to n as geomstats sees it."""
    from geomstats.geometry.base import ImmersedSet
    from geomstats.geometry.euclidean import Euclidean

    class Immersed(ImmersedSet):
        def __init__(self) -> None:
            super().__init__(dim=2)

        def _define_embedding_space(self) -> Any:
            return Euclidean(n)

        def immersion(self, point: Tensor) -> Tensor:
            return f(point)

        belongs = is_tangent = projection = random_point = to_tangent = random_tangent_vec = None

    return Immersed()


def test_pulled_back_metrics_of_geomstats(decoder: nn.Module, peer: Peer) -> None:
    geomstats = peer("geomstats")
    from geomstats.numerics.geodesic import ExpODESolver
    from geomstats.numerics.ivp import GSIVPIntegrator

    space, manifold, z, u = immersed(geomstats, decoder, 5), PullbackManifold(decoder), points(1), 0.3 * points(2)
    close(space.metric.metric_matrix(z), manifold.metric(z).dense())
    close(space.metric.christoffels(z), manifold.christoffel(z))
    # Their default is Euler's method with 100 steps, of first order.
    ours = manifold.expmap(z[0], u[0])
    close(space.metric.exp(u[0], z[0]), ours, 5e-5)
    space.metric.exp_solver = ExpODESolver(space, integrator=GSIVPIntegrator(n_steps=100, step_type="rk4"))
    close(space.metric.exp(u[0], z[0]), ours, 1e-9)
    first, second = torch.eye(2, dtype=torch.float64)
    form = space.metric.second_fundamental_form(z[0])
    close(form[:, 0, 1], manifold.second_fundamental_form(z[0], first, second), 1e-10)


def test_hyperbolic_space_of_geomstats(peer: Peer) -> None:
    peer("geomstats")
    from geomstats.geometry.poincare_half_space import PoincareHalfSpace
    from geomstats.learning.frechet_mean import FrechetMean

    space, manifold = PoincareHalfSpace(2), MetricManifold(HalfPlane())
    z = torch.tensor([[0.0, 1], [1, 2], [0.5, 0.7], [2, 1], [1.5, 3]], dtype=torch.float64)
    close(space.metric.dist(z[0], z[1:]), manifold.dist(z[0], z[1:]), 1e-6)
    close(space.metric.log(z[1], z[0]), manifold.logmap(z[0], z[1]), 1e-7)
    close(space.metric.exp(0.3 * z[1], z[0]), manifold.expmap(z[0], 0.3 * z[1]), 1e-7)
    mean = FrechetMean(space)
    mean.set(epsilon=1e-12, max_iter=200)  # the default, 1e-4, is off by 0.4 % here
    # A metric without a decoder has energies of second order, and ours is off by 4e-6.
    close(mean.fit(z).estimate_, frechet_mean(manifold, z).point.squeeze(0), 1e-5)


def test_curvatures_that_the_page_quotes(peer: Peer) -> None:
    geomstats = peer("geomstats")
    from geomstats.geometry.poincare_half_space import PoincareHalfSpace

    first, second = torch.eye(2, dtype=torch.float64)
    z = torch.tensor([1.0, 2.0], dtype=torch.float64)
    close(MetricManifold(HalfPlane()).sectional_curvature(z, first, second), torch.tensor(-1.0).double(), 1e-10)
    close(PullbackManifold(AngularSphere()).sectional_curvature(z, first, second), torch.tensor(1.0).double(), 1e-10)
    if geomstats.__version__ != "2.8.0":
        pytest.skip("the page quotes what geomstats 2.8.0 returns")
    # Not the curvatures, which are -1 and 1 everywhere.
    theirs = PoincareHalfSpace(2).metric.sectional_curvature(first, second, z)
    assert float(theirs) == pytest.approx(0.4)
    theirs = immersed(geomstats, AngularSphere(), 3).metric.sectional_curvature(first, second, z)
    assert float(theirs) == pytest.approx(0.41228, abs=1e-5)


def test_curvature_matrices_of_backpack(decoder: nn.Sequential, classes: Tensor, peer: Peer) -> None:
    backpack = peer("backpack")
    from backpack.extensions import BatchGrad, DiagGGNExact

    z = points(1)
    model = backpack.extend(copy.deepcopy(decoder).requires_grad_())
    loss = backpack.extend(nn.CrossEntropyLoss(reduction="sum"))
    with backpack.backpack(DiagGGNExact(), BatchGrad()):
        loss(model(z), classes).backward()
    diagonal = torch.cat([p.diag_ggn_exact.flatten() for p in model.parameters()])
    close(diagonal, ggn_diag(decoder, z, Categorical(), reduction="sum"))
    mean = backpack.extend(nn.CrossEntropyLoss())
    squares = backpack.extend(nn.MSELoss(reduction="sum"))
    for lossfunc, target, likelihood, reduction in (
        (mean, classes, Categorical(), "mean"),
        (squares, torch.zeros(3, 5, dtype=torch.float64), Gaussian(sigma=0.5**0.5), "sum"),
    ):
        with backpack.backpack(DiagGGNExact()):
            lossfunc(model(z), target).backward()
        diagonal = torch.cat([p.diag_ggn_exact.flatten() for p in model.parameters()])
        close(diagonal, ggn_diag(decoder, z, likelihood, reduction=reduction))
    gradients = torch.cat([p.grad_batch.flatten(1) for p in model.parameters()], 1)
    close(gradients, sample_gradients(decoder, z, lambda y: nn.functional.cross_entropy(y, classes, reduction="none")))


@pytest.mark.parametrize("structure", ["diag", "full"])
def test_posteriors_of_laplace_torch(structure: str, decoder: nn.Sequential, classes: Tensor, peer: Peer) -> None:
    laplace = peer("laplace")
    model = decoder.requires_grad_()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(points(1), classes), batch_size=2)
    precisions = []
    for options in ({}, {"backend": laplace_backend()}):
        la = laplace.Laplace(model, "classification", "all", structure, **options)
        la.fit(loader)
        precisions.append(la.H)
    close(*precisions)


def test_transforms_of_torch(decoder: nn.Sequential) -> None:
    from torch.func import functional_call, hessian, jacrev, jvp, vjp, vmap

    z, u = points(1), points(2)
    _, J = linearize(decoder, z)
    v = torch.randn(3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    close(vmap(jacrev(decoder))(z), J.dense())
    close(jvp(decoder, (z,), (u,))[1], J.push(u.unsqueeze(0)).squeeze(0))
    close(vjp(decoder, z)[1](v)[0], J.pull(v.unsqueeze(0)).squeeze(0))
    second = torch.einsum("bkij,bi,bj->bk", vmap(hessian(decoder))(z), z, u)
    close(second, J.second_push(z.unsqueeze(0), u.unsqueeze(0)).squeeze(0))
    theirs = vmap(jacrev(lambda p, x: functional_call(decoder, p, (x,))), (None, 0))(
        dict(decoder.named_parameters()), z
    )
    rows = torch.cat([part.flatten(2) for part in theirs.values()], 2)
    close(rows, linearize(decoder, z, "weight")[1].dense())
    close(torch.einsum("bkp,clp->bkcl", rows, rows), tangent_kernel(decoder, z))


def test_solvers_of_geodesic_toolbox(decoder: nn.Module, peer: Peer) -> None:
    toolbox = peer("geodesic_toolbox")
    manifold, z0, z1 = PullbackManifold(decoder), points(1), points(2)
    flat = toolbox.IdentityCoMetric(is_diag=False)
    cometric = toolbox.PullBackCometric(decoder, flat, reg_coef=0.0, method="vmap")
    close(cometric.metric_tensor(z0), manifold.metric(z0).dense())
    close(cometric(z0), torch.linalg.inv(manifold.metric(z0).dense()), 1e-9)
    # By default they take central differences of step 1e-4, and add 1e-3 times the identity.
    added = toolbox.PullBackCometric(decoder).metric_tensor(z0) - manifold.metric(z0).dense()
    assert torch.allclose(added, 1e-3 * torch.eye(2, dtype=torch.float64).expand(3, 2, 2), atol=1e-7)
    # Their default tolerance of 1e-6 is on the gradient as it is, and ends early; ours has no scale.
    nodes = toolbox.GEORCE(cometric, T=100, tol=1e-10, max_iter=2000).get_trajectories(z0.clone(), z1.clone()).detach()
    ours = manifold.geodesic(z0, z1, Georce(segments=100, tol=1e-10))
    assert bool(ours.converged.all())
    energies = torch.stack([100 * cometric.metric(curve[:-1], curve.diff(dim=0)).sum() for curve in nodes])
    close(energies, ours.energy, 1e-9)
    # The energy of left end points has an error of first order in 1/100; Newton's has one of fourth.
    close(energies.sqrt(), ours.length, 1e-9)
    close(ours.length, manifold.dist(z0, z1), 3e-3)
