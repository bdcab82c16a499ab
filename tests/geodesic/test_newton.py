"""The default solver: what it finds, and what it says when it does not."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from pullgeo import BoundaryValue, MetricManifold, Newton, PullbackManifold, Status, datasets, linearize, solve, zoo
from pullgeo.curve import DiscreteCurve, straight_line
from pullgeo.errors import DtypeError, NonFiniteError, OptionError, ShapeError
from pullgeo.geodesic import InitialCurve, LatticeSearch, StraightLine
from pullgeo.testing import check_solver
from pullgeo.testing.charts import LinearChart, StereographicSphere

B = 3


def smooth(d: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d, 11), nn.Tanh(), nn.Linear(11, 7), nn.Softplus()).double()


def pairs(d: int = 2, b: int = B) -> tuple[Tensor, Tensor]:
    z = torch.randn(2, b, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d))
    return z[0], z[1]


def test_it_keeps_the_contract_of_solvers() -> None:
    check_solver(Newton())


@pytest.fixture(scope="module")
def digits() -> tuple[PullbackManifold, Tensor, Tensor]:
    vae, images = zoo.digits_vae(), datasets.digits().images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:128]
    z = vae.encode(images[chosen])
    return PullbackManifold(vae.decoder), z[:64], z[64:]


@pytest.mark.heavy
def test_digits_all_converge_and_none_is_longer_than_its_line(
    digits: tuple[PullbackManifold, Tensor, Tensor],
) -> None:
    manifold, z0, z1 = digits
    with torch.no_grad():
        solution = manifold.geodesic(z0, z1)
        decode = manifold.in_double().decode
        line = straight_line(z0.double(), z1.double()).length(decode, 2048)
        found = DiscreteCurve(solution.curve.nodes.double()).length(decode, 2048)
    assert bool(solution.converged.all())
    assert float(solution.residual.max()) < 1e-8
    assert bool((found <= line * (1 + 1e-6)).all())
    assert bool((found < 0.9 * line).any())
    torch.testing.assert_close(solution.length.double(), found, rtol=2e-2, atol=0)
    assert bool(((solution.length.double() - found).abs() <= 5 * solution.error_estimate.double() + 1e-5).all())
    assert float(solution.speed_ratio.max()) < 2


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scales_of_the_output_do_not_matter(scale: float) -> None:
    f = smooth()
    z0, z1 = pairs()
    plain = PullbackManifold(f).geodesic(z0, z1)
    scaled = PullbackManifold(lambda z: scale * f(z)).geodesic(z0, z1)
    assert bool(scaled.converged.all())
    torch.testing.assert_close(scaled.length / scale, plain.length)


def test_lengths_converge_with_fourth_order_and_extrapolated_ones_faster() -> None:
    chart = StereographicSphere(2)
    manifold = PullbackManifold(chart)
    x, y = torch.tensor([[-0.8, 0.1]]).double(), torch.tensor([[0.9, 0.6]]).double()
    exact = float(chart.distance(x, y))
    found = [manifold.geodesic(x, y, Newton(segments=n)) for n in (8, 16, 32)]
    plain = [abs(float(s.energy.sqrt()) - exact) for s in found]
    extrapolated = [abs(float(s.length) - exact) for s in found]
    for coarse, fine in itertools.pairwise(plain):
        assert 12 < coarse / fine < 24
    for coarse, fine in itertools.pairwise(extrapolated):
        assert coarse / fine > 28
    assert all(e <= 10 * float(s.error_estimate) for e, s in zip(extrapolated, found, strict=True))


def test_one_bad_pair_does_not_lose_the_others() -> None:
    f = smooth()

    def holed(z: Tensor) -> Tensor:
        return torch.where((z[:, :1] > 5) & (z[:, :1] < 6), torch.nan, f(z))

    z0, z1 = pairs()
    z0, z1 = torch.cat([z0, torch.zeros(1, 2).double()]), torch.cat([z1, torch.tensor([[11.0, 0.0]]).double()])
    narrow = Newton(starts=(StraightLine(),))
    solution = PullbackManifold(holed).geodesic(z0, z1, narrow)
    assert solution.status[:B] == (Status.CONVERGED,) * B
    assert solution.status[B] is Status.NON_FINITE
    torch.testing.assert_close(solution.length[:B], PullbackManifold(f).geodesic(z0[:B], z1[:B], narrow).length)
    assert bool(PullbackManifold(holed).dist(z0, z1)[B].isnan())
    assert "NaN or infinity" in str(solution.status[B])


def test_coincident_end_points_have_length_zero() -> None:
    z0, z1 = pairs()
    solution = PullbackManifold(smooth()).geodesic(z0, torch.where(torch.arange(B)[:, None] == 1, z0, z1))
    assert solution.status == (Status.CONVERGED, Status.COINCIDENT, Status.CONVERGED)
    assert float(solution.length[1].detach()) == 0
    assert bool(solution.converged.all())


def test_the_step_limit_is_told() -> None:
    solution = PullbackManifold(smooth()).geodesic(*pairs(), Newton(max_steps=1, starts=(StraightLine(),)))
    assert Status.MAX_STEPS in solution.status
    assert "raise max_steps" in Status.MAX_STEPS.value
    assert not bool(solution.converged.all())


def test_kinks_end_in_an_honest_status() -> None:
    torch.manual_seed(1)
    f = nn.Sequential(nn.Linear(2, 17), nn.ReLU(), nn.Linear(17, 5)).double()
    solution = PullbackManifold(f).geodesic(*pairs(b=7), Newton(rtol=None))
    for status, residual in zip(solution.status, solution.residual.tolist(), strict=True):
        assert status.converged == (residual < 1e-8)
        assert status in (Status.CONVERGED, Status.STALLED, Status.MAX_STEPS)
    assert bool(torch.isfinite(solution.length).all())
    refined = PullbackManifold(f).geodesic(*pairs(b=7), Newton(rtol=0.1))
    wide = refined.error_estimate > 0.1 * refined.length
    for status, residual, coarse in zip(refined.status, refined.residual.tolist(), wide.tolist(), strict=True):
        assert status.converged == (residual < 1e-8 and not coarse)
        assert (status is Status.COARSE) == (residual < 1e-8 and coarse)


def test_a_decoder_that_squashes_a_direction() -> None:
    both = torch.tensor([[1.0, 1.0]]).double()
    f = smooth(1)
    z0, z1 = pairs()
    solution = PullbackManifold(lambda z: f(z @ both.T)).geodesic(z0, z1)
    reduced = PullbackManifold(f).geodesic(z0 @ both.T, z1 @ both.T)
    assert bool(solution.converged.all())
    torch.testing.assert_close(solution.length, reduced.length, rtol=1e-6, atol=1e-9)


def test_starts() -> None:
    manifold, (z0, z1) = PullbackManifold(smooth()), pairs()
    expected = manifold.geodesic(z0, z1).length
    given = InitialCurve(straight_line(z0, z1, 9))
    for starts in ((StraightLine(),), (LatticeSearch(),), (given,), (StraightLine(), LatticeSearch(), given)):
        torch.testing.assert_close(manifold.geodesic(z0, z1, Newton(starts=starts)).length, expected)


def test_a_corridor_finds_the_way_round_a_hill() -> None:
    def hill(z: Tensor) -> Tensor:
        return torch.cat([z, 6 * torch.exp(-2 * z.square().sum(1, keepdim=True))], 1)

    z0, z1 = torch.tensor([[-2.0, 0.0]]).double(), torch.tensor([[2.0, 0.0]]).double()
    over = PullbackManifold(hill).geodesic(z0, z1, Newton(starts=(StraightLine(),)))
    around = PullbackManifold(hill).geodesic(z0, z1)
    assert bool(around.converged.all())
    assert float(around.length) < 0.6 * float(over.length)


def test_flat_space_in_many_dimensions_and_large_systems() -> None:
    W = torch.randn(31, 23, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z0, z1 = pairs(23)
    solution = PullbackManifold(LinearChart(W)).geodesic(z0, z1)
    torch.testing.assert_close(solution.length, ((z1 - z0) @ W.T).norm(dim=1))


def test_shapes_dtypes_and_empty_batches() -> None:
    manifold, (z0, z1) = PullbackManifold(smooth()), pairs()
    one = manifold.geodesic(z0[0], z1)
    torch.testing.assert_close(one.length, manifold.geodesic(z0[:1].expand(B, -1), z1).length)
    assert one[1].curve.nodes.shape == (1, 33, 2)
    assert len(one[:2]) == 2
    empty = manifold.geodesic(z0[:0], z1[:0])
    assert empty.length.shape == (0,)
    assert empty.status == ()
    single = PullbackManifold(smooth().float()).geodesic(z0.float(), z1.float())
    assert single.length.dtype == single.curve.nodes.dtype == single.residual.dtype == torch.float32
    assert bool(single.converged.all())


@pytest.mark.usefixtures("without_type_checks")
def test_errors_say_what_to_do() -> None:
    manifold, (z0, z1) = PullbackManifold(smooth()), pairs()
    with pytest.raises(ShapeError, match="do not broadcast"):
        BoundaryValue(manifold, z0, z1[:2])
    with pytest.raises(ShapeError, match=r"\(b, d\) or \(d,\)"):
        BoundaryValue(manifold, z0.unsqueeze(0), z1)
    with pytest.raises(DtypeError, match="make them the same"):
        BoundaryValue(manifold, z0.float(), z1)
    with pytest.raises(DtypeError, match="floating point"):
        BoundaryValue(manifold, z0.long(), z1)
    with pytest.raises(NonFiniteError, match="1 of 3 pairs hold NaN or infinity, the first at index 2"):
        BoundaryValue(manifold, torch.where(torch.arange(B)[:, None] == 2, torch.nan, z0), z1)
    for wrong in ({"tol": 0.0}, {"segments": 0}, {"segments": 5}, {"max_steps": 0}, {"starts": ()}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            Newton(**wrong)
    with pytest.raises(OptionError, match="odd number"):
        LatticeSearch(offsets=4)
    with pytest.raises(ShapeError, match="one curve for each pair"):
        manifold.geodesic(z0, z1, Newton(starts=(InitialCurve(straight_line(z0[:2], z1[:2])),)))


def test_a_given_metric_agrees_with_its_pullback() -> None:
    f = smooth()

    def metric(z: Tensor) -> Tensor:
        J = linearize(f, z)[1].dense()
        return J.mT @ J

    z0, z1 = pairs()
    by_metric = solve(BoundaryValue(MetricManifold(metric), z0, z1), Newton(segments=64))
    torch.testing.assert_close(by_metric.length, PullbackManifold(f).geodesic(z0, z1).length, rtol=1e-5, atol=0)
