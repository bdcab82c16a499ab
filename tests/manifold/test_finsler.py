"""Average lengths under Gaussian decoders, against sampled decoders, their bounds and autograd."""

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td

from pullgeo import Newton, PullbackManifold, solve
from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.errors import OptionError
from pullgeo.geodesic import BoundaryValue
from pullgeo.likelihood import Gaussian
from pullgeo.manifold import Ensemble, FinslerSpace, MeanAndDeviation, finsler_length, mean_and_deviation

B, D, T = 3, 2, 5


def network(out: int, seed: int, *last: nn.Module) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, out), *last).double().requires_grad_(False)


def heads(out: int) -> tuple[nn.Module, nn.Module]:
    return network(out, 0), network(out, 1, nn.Softplus())


def manifold_of(out: int) -> PullbackManifold:
    return PullbackManifold(MeanAndDeviation(*heads(out)))


def ends() -> tuple[Tensor, Tensor]:
    z = torch.randn(2, B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return z[0], z[1]


def curves() -> DiscreteCurve:
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    return DiscreteCurve(torch.stack([torch.stack([k * t.sin(), (k + 1) * (2 * t).cos()], 1) for k in (0.5, 1.0, 1.5)]))


@pytest.mark.parametrize(("out", "rtol"), [(1, 1e-4), (5, 1e-6)])  # the speed of one output all but vanishes
def test_average_lengths_are_those_of_sampled_decoders(out: int, rtol: float) -> None:
    mean, deviation = heads(out)
    curve, times = curves(), torch.linspace(0, 1, 201, dtype=torch.float64)
    points = curve(times).flatten(0, 1)
    mu, sigma = (head(points).unflatten(0, (B, 201)) for head in (mean, deviation))
    noise = torch.randn(4000, 1, 1, out, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lengths = torch.cat([(mu + sigma * part).diff(dim=2).norm(dim=3).sum(2) for part in noise.split(500)])
    found = finsler_length(manifold_of(out), curve)
    error = lengths.std(0) / len(lengths) ** 0.5
    assert float(((lengths.mean(0) - found.expected) / error).abs().max()) < 3
    assert float((error / found.expected).max()) < 0.02
    assert bool((found.lower < found.expected).all() & (found.expected < found.upper).all())
    torch.testing.assert_close(found.upper, curve.length(manifold_of(out)), rtol=rtol, atol=0)
    torch.testing.assert_close(found.expected, curve.length(FinslerSpace(manifold_of(out))), rtol=rtol, atol=0)


def test_bounds_close_as_outputs_become_many_and_meet_without_noise() -> None:
    curve = curves()
    gaps = []
    for out in (10, 1000):
        found = finsler_length(manifold_of(out), curve)
        gaps.append(float(((found.upper - found.lower) / found.upper).max()))
        assert bool((found.lower < found.expected).all() & (found.expected < found.upper).all())
    assert gaps[1] < 0.05 * gaps[0]
    mean, _ = heads(5)
    plain = finsler_length(PullbackManifold(MeanAndDeviation(mean, lambda z: torch.ones(len(z), 5).double())), curve)
    for length in (plain.expected, plain.lower, plain.upper):
        torch.testing.assert_close(length, curve.length(PullbackManifold(mean)), rtol=1e-6, atol=0)


def test_every_form_of_a_gaussian_decoder() -> None:
    mean, deviation = heads(5)
    curve = curves()
    expected = finsler_length(manifold_of(5), curve).expected
    forms = {
        "mean+std": lambda z: td.Normal(mean(z), deviation(z)),
        "mean+logvar": lambda z: (mean(z), 2 * deviation(z).log()),
        mean_and_deviation: lambda z: td.Independent(td.Normal(mean(z), deviation(z)), 1),
    }
    for output, decoder in forms.items():
        manifold = PullbackManifold(decoder, output=output)
        torch.testing.assert_close(finsler_length(manifold, curve).expected, expected)
        nodes = curve.nodes
        torch.testing.assert_close(FinslerSpace(manifold).energy(nodes), FinslerSpace(manifold_of(5)).energy(nodes))
        torch.testing.assert_close(
            FinslerSpace(manifold).in_double().energy(nodes), FinslerSpace(manifold).energy(nodes)
        )
    single = PullbackManifold(MeanAndDeviation(*heads(5)).float())
    length = finsler_length(single, curve.to(torch.float32)).expected
    assert length.dtype == torch.float32
    torch.testing.assert_close(length.double(), expected, rtol=1e-5, atol=0)


def test_energies_expand_exactly() -> None:
    space = FinslerSpace(manifold_of(4))
    nodes = 0.5 * torch.randn(B, T + 1, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        at = space.expand_energy(nodes)
    torch.testing.assert_close(at.energy, space.energy(nodes))

    def energy(inner: Tensor) -> Tensor:
        return space.energy(torch.cat([nodes[0, :1], inner.view(T - 1, D), nodes[0, -1:]]).unsqueeze(0)).squeeze(0)

    inner = nodes[0, 1:-1].reshape(-1)
    gradient = torch.autograd.functional.jacobian(energy, inner)
    torch.testing.assert_close(at.gradient[0].reshape(-1), gradient, rtol=1e-9, atol=1e-9)
    hessian = torch.autograd.functional.hessian(energy, inner)
    torch.testing.assert_close(at.hessian.dense()[0], hessian, rtol=1e-8, atol=1e-8)


def test_geodesics_have_the_least_average_length() -> None:
    manifold, (z0, z1) = manifold_of(3), ends()
    space = FinslerSpace(manifold)
    found = space.geodesic(z0, z1)
    assert bool(found.converged.all())
    own = finsler_length(manifold, found.curve)
    torch.testing.assert_close(found.length, own.expected, rtol=1e-5, atol=0)
    riemannian = manifold.geodesic(z0, z1)
    other = finsler_length(manifold, riemannian.curve)
    assert bool((own.expected <= other.expected * (1 + 1e-7)).all())
    assert bool((other.upper <= own.upper * (1 + 1e-7)).all())
    assert bool((own.lower < own.expected).all() & (own.expected < riemannian.length).all())
    # symmetric, as ‖J v‖ = ‖-J v‖
    torch.testing.assert_close(space.geodesic(z1, z0).length, found.length, rtol=1e-6, atol=0)
    bump = torch.linspace(0, 1, found.curve.segments + 1, dtype=torch.float64).mul(torch.pi).sin()[:, None]
    for step in (0.02, -0.02):
        moved = DiscreteCurve(found.curve.nodes + step * bump * torch.tensor([1.0, -0.6]))
        assert bool((finsler_length(manifold, moved).expected > own.expected).all())
    assert solve(BoundaryValue(space, z0, z0)).length.abs().max() == 0


def test_lengths_differentiate_to_end_points() -> None:
    space, (z0, z1) = FinslerSpace(manifold_of(3)), ends()
    solver = Newton(segments=8)
    step = torch.tensor([[0.3, -0.8], [0.1, 0.5], [-0.7, 0.2]], dtype=torch.float64)
    end = z1.clone().requires_grad_()
    (slope,) = torch.autograd.grad(space.geodesic(z0, end, solver).length.sum(), end)
    ahead, behind = (space.geodesic(z0, z1 + h * step, solver).length for h in (1e-4, -1e-4))
    torch.testing.assert_close((slope * step).sum(1), (ahead - behind) / 2e-4, rtol=1e-5, atol=1e-7)


def members(count: int = 4, out: int = 5) -> list[nn.Module]:
    return [network(out, seed) for seed in range(count)]


def test_average_lengths_of_an_ensemble_are_those_of_its_members() -> None:
    decoders, curve = members(), curves()
    manifold = PullbackManifold(Ensemble(decoders))
    lengths = torch.stack([curve.length(PullbackManifold(f)) for f in decoders])
    found = finsler_length(manifold, curve)
    torch.testing.assert_close(found.expected, lengths.mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.expected, curve.length(FinslerSpace(manifold)), rtol=1e-6, atol=0)
    average = curve.length(PullbackManifold(lambda z: torch.stack([f(z) for f in decoders]).mean(0)))
    torch.testing.assert_close(found.lower, average, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.upper, curve.length(manifold), rtol=1e-6, atol=0)
    assert bool((found.lower < found.expected).all() & (found.expected < found.upper).all())
    # members that agree leave nothing between the bounds
    alike = finsler_length(PullbackManifold(Ensemble(decoders[:1] * 3)), curve)
    for length in (alike.expected, alike.lower):
        torch.testing.assert_close(length, alike.upper)
    single = PullbackManifold(Ensemble([f.float() for f in members()]))
    torch.testing.assert_close(
        finsler_length(single, curve.to(torch.float32)).expected.double(), found.expected, rtol=1e-5, atol=0
    )


def test_energies_of_ensembles_expand_exactly() -> None:
    space = FinslerSpace(PullbackManifold(Ensemble(members(3, 4))))
    nodes = 0.5 * torch.randn(B, T + 1, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        at = space.expand_energy(nodes)

    def energy(inner: Tensor) -> Tensor:
        z = torch.cat([nodes[0, :1], inner.view(T - 1, D), nodes[0, -1:]])
        chords = torch.stack([f(z).diff(dim=0).norm(dim=1) for f in members(3, 4)])
        return T * chords.mean(0).square().sum()

    inner = nodes[0, 1:-1].reshape(-1)
    torch.testing.assert_close(at.energy[0], energy(inner))
    gradient = torch.autograd.functional.jacobian(energy, inner)
    torch.testing.assert_close(at.gradient[0].reshape(-1), gradient, rtol=1e-9, atol=1e-9)
    hessian = torch.autograd.functional.hessian(energy, inner)
    torch.testing.assert_close(at.hessian.dense()[0], hessian, rtol=1e-8, atol=1e-8)


def test_geodesics_of_least_average_length_over_an_ensemble() -> None:
    decoders, (z0, z1) = members(), ends()
    manifold = PullbackManifold(Ensemble(decoders))
    found = FinslerSpace(manifold).geodesic(z0, z1)
    assert bool(found.converged.all())
    own, riemannian = finsler_length(manifold, found.curve), manifold.geodesic(z0, z1)
    torch.testing.assert_close(found.length, own.expected, rtol=1e-5, atol=0)
    other = finsler_length(manifold, riemannian.curve)
    assert bool((own.expected <= other.expected * (1 + 1e-7)).all())
    assert bool((own.lower < own.expected).all() & (own.expected < riemannian.length).all())
    # one curve for all members is no shorter than each member's own
    separate = torch.stack([PullbackManifold(f).dist(z0, z1) for f in decoders]).mean(0)
    assert bool((separate <= own.expected * (1 + 1e-6)).all())


def test_a_member_that_squashes_a_step_has_no_length_and_breaks_nothing() -> None:
    flat = nn.Linear(D, 3).double().requires_grad_(False)
    nn.init.zeros_(flat.weight)
    manifold = PullbackManifold(Ensemble([flat, network(3, 0)]))
    z0, z1 = ends()
    found = FinslerSpace(manifold).geodesic(z0, z1)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.length, 0.5 * PullbackManifold(network(3, 0)).dist(z0, z1), rtol=1e-6, atol=0)
    assert FinslerSpace(manifold).geodesic(z0, z0).length.abs().max() == 0


@pytest.mark.usefixtures("without_type_checks")
def test_named_errors_say_what_to_do() -> None:
    mean, deviation = heads(3)
    both = MeanAndDeviation(mean, deviation)
    for given in (PullbackManifold(mean), PullbackManifold(both, Gaussian(2.0)), mean):
        for ask in (lambda given=given: finsler_length(given, curves()), lambda given=given: FinslerSpace(given)):
            with pytest.raises(OptionError, match=r"(?s)expected the PullbackManifold of.*mean\+std"):
                ask()
    with pytest.raises(OptionError, match="points must be at least 1"):
        finsler_length(PullbackManifold(both), curves(), 0)
    assert repr(finsler_length(PullbackManifold(both), curves())) == "FinslerLength(3 curves)"
    assert repr(FinslerSpace(PullbackManifold(both))).startswith("FinslerSpace(PullbackManifold(MeanAndDeviation")
