"""Any trained decoder is taken as it is, and what cannot be served is refused by name."""

import copy
import functools

import geoopt
import pytest
import torch
from torch import Tensor, nn

from pullgeo import BoundaryValue, MetricManifold, PullbackManifold, Status, frechet_mean, solve
from pullgeo.errors import (
    CoupledSamplesError,
    DtypeError,
    GeometryError,
    ModuleError,
    NonFiniteError,
    OptionError,
    ShapeError,
)
from pullgeo.geodesic import Georce, Shooting
from pullgeo.metric import Dense, Diagonal, Identity
from pullgeo.testing.oracles.jacobians import dense_jacobian
from pullgeo.viz import latent_map

B, D = 3, 2


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(D, 12), nn.SiLU(), nn.Unflatten(1, (3, 2, 2)), nn.ConvTranspose2d(3, 2, 3, stride=2), nn.Sigmoid()
    ).eval()


def points(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, B, D, dtype=torch.float64, generator=generator).to(dtype)
    return z[0], z[1]


class Model(nn.Module):
    """A model of which only a method is the decoder, and whose decoder returns more than a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, 5))

    def decode(self, z: Tensor) -> Tensor:
        return self.net(z)

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        return {"mean": self.net(z), "scale": z}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_image_decoder_in_either_precision(dtype: torch.dtype) -> None:
    decoder = convolutional().to(dtype)
    before = copy.deepcopy(decoder.state_dict())
    manifold = PullbackManifold(decoder)
    z0, z1 = points(dtype)
    J = dense_jacobian(decoder, z0)
    G = manifold.metric(z0).dense()
    assert G.dtype == dtype
    torch.testing.assert_close(G.double(), J.mT @ J, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-6)
    solution = manifold.geodesic(z0, z1)
    assert bool(solution.converged.all())
    assert solution.length.dtype == solution.curve(torch.linspace(0, 1, 7)).dtype == dtype
    assert all(torch.equal(before[k], v) for k, v in decoder.state_dict().items())
    assert next(decoder.parameters()).dtype == dtype
    assert not decoder.training


def test_single_precision_decoder_gives_the_distances_of_its_double() -> None:
    decoder = convolutional()
    z0, z1 = points(torch.float32)
    single = PullbackManifold(decoder).dist(z0, z1)
    double = PullbackManifold(copy.deepcopy(decoder).double()).dist(z0.double(), z1.double())
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=0)


def test_bound_methods_functions_and_picked_outputs_are_decoders() -> None:
    model = Model()
    z0, z1 = points(torch.float32)
    expected = PullbackManifold(model.net).dist(z0, z1)
    torch.testing.assert_close(PullbackManifold(model.decode).dist(z0, z1), expected)
    torch.testing.assert_close(PullbackManifold(model, output=lambda out: out["mean"]).dist(z0, z1), expected)
    double = copy.deepcopy(model).double()
    function = PullbackManifold(lambda z: double.net(z)).dist(z0.double(), z1.double())
    torch.testing.assert_close(function.float(), expected)


@pytest.mark.parametrize(
    "ambient", [Identity(5), Diagonal(torch.arange(1.0, 6.0).double()), Dense(torch.eye(5).double() * 3 + 1)]
)
def test_ambient_metrics(ambient: Identity | Diagonal | Dense) -> None:
    decoder = Model().net.double()
    z0, z1 = points()
    J = dense_jacobian(decoder, z0)
    manifold = PullbackManifold(decoder, ambient)
    torch.testing.assert_close(manifold.metric(z0).dense(), J.mT @ ambient.dense() @ J)
    rooted = nn.Sequential(decoder, nn.Linear(5, 5, bias=False).double())
    with torch.no_grad():
        rooted[1].weight.copy_(ambient.root().mT)
    torch.testing.assert_close(manifold.dist(z0, z1), PullbackManifold(rooted).dist(z0, z1))
    torch.testing.assert_close(manifold.expmap(z0, z1), PullbackManifold(rooted).expmap(z0, z1))


@pytest.mark.heavy
def test_distance_differentiates_to_end_points_and_weights() -> None:
    decoder = nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    z0, z1 = (z.requires_grad_() for z in points())

    def distance(z0: Tensor, z1: Tensor, *weights: Tensor) -> Tensor:
        return PullbackManifold(decoder).dist(z0, z1)

    assert torch.autograd.gradcheck(distance, (z0, z1, *decoder.parameters()))
    assert torch.autograd.gradgradcheck(distance, (z0, z1))


def test_points_train_under_geoopts_optimisers() -> None:
    manifold = PullbackManifold(convolutional().double())
    start, target = points()
    z = geoopt.ManifoldParameter(start.clone(), manifold=manifold)
    optimiser = geoopt.optim.RiemannianAdam([z], lr=0.05)
    goal = manifold.decode(target).detach()
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = (manifold.decode(z) - goal).square().sum()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


def test_riemannian_gradient_undoes_the_metric() -> None:
    manifold = PullbackManifold(convolutional().double())
    z, v = points()
    torch.testing.assert_close(manifold.egrad2rgrad(z, manifold.metric(z).apply(v)), v)


@pytest.mark.usefixtures("without_type_checks")
def test_named_errors_say_what_to_do() -> None:
    z0, z1 = points()
    decoder = convolutional().double()
    manifold = PullbackManifold(decoder)
    with pytest.raises(OptionError, match="decoder must be"):
        PullbackManifold(3)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="ambient must be a constant metric"):
        PullbackManifold(decoder, Diagonal(torch.ones(B, 5)))
    with pytest.raises(ShapeError, match=r"z\[None\]"):
        manifold.metric(z0[0])
    with pytest.raises(DtypeError, match="floating point"):
        manifold.metric(torch.ones(3, 2, dtype=torch.long))
    with pytest.raises(NonFiniteError, match="1 of 3 points hold NaN or infinity, the first at index 1"):
        manifold.metric(torch.where(torch.arange(3)[:, None] == 1, torch.nan, z0))
    with pytest.raises(ShapeError, match="tangents must have the points' last dimension"):
        manifold.inner(z0, torch.ones(B, 7, dtype=torch.float64))
    with pytest.raises(ShapeError, match="output has dimension 50 and the ambient metric lives in dimension 3"):
        PullbackManifold(decoder, Identity(3)).metric(z0)
    with pytest.raises(DtypeError, match=r"x is torch.float32 and the module's parameters are torch.float64"):
        manifold.metric(z0.float())
    with pytest.raises(ModuleError, match="returned dict"):
        PullbackManifold(Model().double()).metric(z0)
    with pytest.raises(NonFiniteError, match="the decoder returned NaN or infinity at 3 of 3 latents"):
        PullbackManifold(nn.Sequential(nn.Linear(D, 3).double(), nn.Threshold(1e9, torch.nan))).metric(z0)
    with pytest.raises(CoupledSamplesError, match=r"Call module.eval\(\) first"):
        PullbackManifold(nn.Sequential(nn.Linear(D, 4), nn.BatchNorm1d(4)).double()).geodesic(z0, z1)
    with pytest.raises(ShapeError, match="metric_fn must map"):
        MetricManifold(lambda z: z).metric(z0)


@pytest.mark.usefixtures("without_type_checks")
def test_arrays_and_batches_that_do_not_fit_are_refused_by_name() -> None:
    manifold = PullbackManifold(nn.Linear(2, 5).double())
    z = torch.arange(6, dtype=torch.float64).reshape(3, 2)
    calls = (manifold.dist, manifold.logmap, manifold.expmap, manifold.inner, manifold.norm, manifold.egrad2rgrad)
    for call in calls:
        for other in (z.numpy(), z.tolist()):
            with pytest.raises(DtypeError, match="as_tensor"):
                call(other, z)
        with pytest.raises(ShapeError, match=r"must broadcast, got shapes \(3, 2\), \(2, 2\)"):
            call(z, z[:2])
        with pytest.raises(ShapeError, match="got a number"):
            call(z[0, 0], z[0, 0])
    for single in (manifold.metric, manifold.log_volume, manifold.christoffel, manifold.condition_number):
        with pytest.raises(DtypeError, match="as_tensor"):
            single(z.numpy())


def test_outputs_may_be_numbers() -> None:
    manifold = PullbackManifold(lambda z: z[:, 0].exp())  # (b, 1) to (b,): lengths are differences of exponentials
    z0, z1 = (torch.tensor([[a], [b], [c]], dtype=torch.float64) for a, b, c in ((-1.0, 0.5, 2.0), (1.0, 0.7, -0.3)))
    truth = (z1.exp() - z0.exp()).abs().squeeze(1)
    torch.testing.assert_close(manifold.dist(z0, z1), truth, rtol=1e-7, atol=0)
    torch.testing.assert_close(manifold.metric(z0).dense(), (2 * z0).exp().unsqueeze(2))
    torch.testing.assert_close(manifold.christoffel(z0), torch.ones(3, 1, 1, 1, dtype=torch.float64))


def test_a_decoder_left_in_train_mode_is_refused_before_it_runs() -> None:
    decoder = nn.Sequential(nn.Linear(2, 7), nn.BatchNorm1d(7), nn.Linear(7, 5)).double()
    before = copy.deepcopy(decoder.state_dict())
    z = torch.arange(6, dtype=torch.float64).reshape(3, 2)
    for ask in (PullbackManifold(decoder).dist, PullbackManifold(decoder).geodesic, PullbackManifold(decoder).logmap):
        with pytest.raises(CoupledSamplesError, match=r"Call module.eval\(\) first"):
            ask(z, z + 1)
    torch.testing.assert_close(decoder.state_dict(), before, rtol=0, atol=0)


def test_functions_over_single_precision_weights_are_decoders_too() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 5))
    double = copy.deepcopy(net).double()
    z = torch.arange(6, dtype=torch.float32).reshape(3, 2)
    expected = PullbackManifold(lambda z: double(z).sigmoid())
    for decoder in (lambda z: net(z).sigmoid(), functools.partial(lambda net, z: net(z).sigmoid(), net)):
        manifold = PullbackManifold(decoder)
        length = manifold.dist(z, z + 1)
        assert length.dtype == torch.float32
        torch.testing.assert_close(length, expected.dist(z.double(), z.double() + 1).float())
        torch.testing.assert_close(manifold.logmap(z, z + 1), expected.logmap(z.double(), z.double() + 1).float())
        gradient = torch.autograd.grad(length.sum(), net[0].weight)[0]
        truth = torch.autograd.grad(expected.dist(z.double(), z.double() + 1).sum(), double[0].weight)[0]
        torch.testing.assert_close(gradient, truth.float())
    with pytest.raises(ModuleError, match="cannot be multiplied"):
        PullbackManifold(lambda z: net(z)).dist(torch.zeros(2, 3), torch.ones(2, 3))


def test_what_is_no_riemannian_metric_is_refused_and_constants_may_be_in_single_precision() -> None:
    z = torch.arange(6, dtype=torch.float64).reshape(3, 2)
    eye, turn = torch.eye(2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    lorentz = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    for matrix, what in ((eye + 0.1 * turn, "not symmetric"), (lorentz, "not positive"), (-eye, "not positive")):
        manifold = MetricManifold(lambda z, G=matrix: G.to(z) * (1 + z[:, :1, None] ** 2))
        for ask in (manifold.metric, lambda z, m=manifold: m.dist(z, z + 1), lambda z, m=manifold: m.norm(z, z)):
            with pytest.raises(GeometryError, match=f"{what}.*3 points|{what}.*6 points"):
                ask(z)
    for degenerate in (0 * eye, torch.ones(2, 2), 1e-14 * eye):
        assert MetricManifold(lambda z, G=degenerate: G.to(z).expand(len(z), 2, 2)).geodesic(z, z + 1).converged.all()
    constant = MetricManifold(lambda z: 4 * eye.expand(len(z), 2, 2))
    torch.testing.assert_close(constant.dist(z.float(), z.float() + 1), torch.full((3,), 8**0.5))


def test_a_metric_that_is_negative_on_the_way_gives_no_length() -> None:
    def well(z: Tensor) -> Tensor:  # positive at the end points, negative around the origin
        return torch.eye(2, dtype=z.dtype) * (1 - 1.5 * (-4 * z.square().sum(1)).exp())[:, None, None]

    z = torch.tensor([[-1.0, 0.1], [-1.0, 0.5], [-2.0, 0.0]], dtype=torch.float64)
    for manifold in (MetricManifold(well), PullbackManifold(nn.Identity(), ambient=well)):
        solution = solve(BoundaryValue(manifold, z, -z))
        for status, length in zip(solution.status, solution.length.tolist(), strict=True):
            assert not status.converged or length > 0
        assert solution.status[2] is Status.NON_FINITE
        assert "the metric is not positive" in solution.status[2].value
        assert manifold.dist(z, -z).isnan()[2]


def test_solve_refuses_what_is_no_riemannian_metric_too() -> None:
    z = torch.arange(6, dtype=torch.float64).reshape(3, 2)

    def lorentz(z: Tensor) -> Tensor:
        return torch.diag(torch.tensor([1.0, -1.0])).to(z).expand(len(z), 2, 2)

    for manifold in (MetricManifold(lorentz), PullbackManifold(nn.Identity(), ambient=lorentz)):
        with pytest.raises(GeometryError, match="not positive"):
            solve(BoundaryValue(manifold, z, z + 1))


def test_precisions_do_not_mix() -> None:
    manifold = PullbackManifold(nn.Linear(2, 3))
    x, u = torch.zeros(3, 2), torch.ones(3, 2, dtype=torch.float64)
    for ask in (manifold.inner, manifold.norm, manifold.egrad2rgrad, manifold.expmap):
        with pytest.raises(DtypeError, match=r"same dtype, got torch.float32, torch.float64.*u.to\(x.dtype\)"):
            ask(x, u)


@pytest.mark.parametrize("decoder", [nn.Identity(), nn.Flatten()])
def test_metrics_that_are_the_same_at_every_point_serve_everything(decoder: nn.Module) -> None:
    """Pulled back through a map that changes nothing a metric keeps having no batch of its own."""
    z, w, v = torch.randn(3, 3, 2, dtype=torch.float64)
    for ambient, scale in ((None, 1.0), (Diagonal(torch.tensor([4.0, 4.0], dtype=torch.float64)), 2.0)):
        manifold = PullbackManifold(decoder, ambient=ambient)
        torch.testing.assert_close(manifold.logmap(z, w), w - z)
        torch.testing.assert_close(manifold.expmap(z, v), z + v)
        torch.testing.assert_close(manifold.transp(z, w, v), v)
        for solver in (None, Georce(segments=8), Shooting(segments=8)):
            torch.testing.assert_close(manifold.geodesic(z, w, solver).length, scale * (w - z).norm(dim=1))
        torch.testing.assert_close(manifold.scalar_curvature(z), torch.zeros(3, dtype=torch.float64))
        torch.testing.assert_close(frechet_mean(manifold, z).point.squeeze(), z.mean(0))
        latent_map(manifold, z, indicatrices=3)
