"""Distances as the members of an ensemble see them, and the floor of lengths with members drawn node by node."""

from itertools import pairwise

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from pullgeo import Newton, PullbackManifold
from pullgeo.curve import DiscreteCurve
from pullgeo.errors import OptionError
from pullgeo.geodesic.energy.independent import expand_independent_energy, independent_energy
from pullgeo.likelihood import Bernoulli
from pullgeo.manifold import Ensemble
from pullgeo.stats import DistanceUncertainty, Verdict, distance_uncertainty

B, D, OUT, S = 5, 2, 7, 3


def decoders(count: int = S, spread: float = 1.0) -> list[nn.Module]:
    """Networks that differ by a share of their weights."""
    torch.manual_seed(0)
    made = [nn.Sequential(nn.Linear(D, 11), nn.Tanh(), nn.Linear(11, OUT)).double() for _ in range(count)]
    with torch.no_grad():
        for member in made[1:]:
            for p, first in zip(member.parameters(), made[0].parameters(), strict=True):
                p.copy_(first + spread * (p - first))
    return made


def pairs(count: int = B) -> tuple[Tensor, Tensor]:
    z = torch.randn(2, count, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return z[0], z[1]


def pairwise_expectation(members: list[nn.Module], nodes: Tensor) -> Tensor:
    """``T Σ_i 1/S² Σ_st |f_s(z_{i+1}) - f_t(z_i)|²`` for one curve, by all pairs of members."""
    images = [f(nodes) for f in members]
    squares = [(a[1:] - b[:-1]).square().sum() for a in images for b in images]
    return (len(nodes) - 1) * torch.stack(squares).mean()


def test_independent_energy_is_the_average_over_all_pairs_of_members_with_its_derivatives() -> None:
    members = decoders()
    z0, z1 = pairs()
    nodes = DiscreteCurve(torch.stack([z0, z1], 1)).resample(4).nodes
    nodes = nodes + 0.1 * torch.randn(nodes.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    manifold = PullbackManifold(Ensemble(members))
    mean, spread = independent_energy(manifold.decoder, S, nodes)
    model = expand_independent_energy(manifold.expand, manifold.decoder, S, nodes)
    torch.testing.assert_close(model.energy, mean + spread)
    for b in range(B):
        torch.testing.assert_close(model.energy[b], pairwise_expectation(members, nodes[b]))

        def energy(inner: Tensor, b: int = b) -> Tensor:
            whole = torch.cat([nodes[b, :1], inner.reshape(-1, D), nodes[b, -1:]])
            return pairwise_expectation(members, whole)

        inner = nodes[b, 1:-1].reshape(-1)
        gradient = torch.autograd.functional.jacobian(energy, inner)
        torch.testing.assert_close(model.gradient[b].reshape(-1), gradient)
        H = torch.autograd.functional.hessian(energy, inner)
        torch.testing.assert_close(model.hessian[b : b + 1].dense().squeeze(0), H)


def test_common_members_have_lengths_and_independent_members_a_floor() -> None:
    members, (z0, z1) = decoders(spread=0.3), pairs()
    solver = Newton(segments=64)
    curve = PullbackManifold(Ensemble(members)).geodesic(z0, z1, solver).curve
    common, independent, predicted = [], [], []
    with torch.no_grad():
        for T in (32, 64, 128):
            nodes = curve.resample(T).nodes
            values = torch.stack([f(nodes) for f in members])  # (S, B, T + 1, OUT)
            common.append((T * values.diff(dim=2).square().sum((2, 3))).mean(0))
            independent.append(torch.stack([pairwise_expectation(members, n) for n in nodes]))
            V = (values - values.mean(0)).square().sum(3).mean(0)
            # 2 T² times the variance along the curve, by the trapezoidal rule
            predicted.append(T * (2 * V.sum(1) - V[:, 0] - V[:, -1]) + common[0])
    for coarse, fine in pairwise(common):
        torch.testing.assert_close(coarse, fine, rtol=2e-3, atol=0)
    for found, expected in zip(independent, predicted, strict=True):
        # members that move apart along the curve have a little more energy than their average
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=0)
    # four times the energy for twice the segments, to leading order
    gain = (independent[2] - common[0]) / (independent[1] - common[0])
    torch.testing.assert_close(gain, torch.full_like(gain, 4.0), rtol=0.02, atol=0)


@pytest.mark.heavy
def test_the_result_side_by_side() -> None:
    members, (z0, z1) = decoders(spread=0.5), pairs()
    found = distance_uncertainty(members, z0, z1)
    each = torch.stack([PullbackManifold(f).dist(z0, z1).detach() for f in members])
    torch.testing.assert_close(found.members, each)
    torch.testing.assert_close(found.expected, PullbackManifold(Ensemble(members)).dist(z0, z1).detach())
    torch.testing.assert_close(found.mean, each.mean(0))
    torch.testing.assert_close(found.std, each.std(0))
    torch.testing.assert_close(found.cv, each.std(0) / each.mean(0))
    truth = torch.as_tensor(spearmanr(each.numpy(), axis=1).statistic)
    torch.testing.assert_close(found.rank_correlation, truth)
    assert len(found) == len(found.verdict) == B
    finer = distance_uncertainty(PullbackManifold(Ensemble(members)), z0, z1, segments=64)
    torch.testing.assert_close(finer.expected, found.expected)
    torch.testing.assert_close(finer.members, found.members)
    # a curve may run where members agree, so that the floor grows by less than the segments
    assert bool((finer.independent > 1.5 * found.independent).all())
    assert bool((found.floor < found.independent).all())
    assert bool((found.floor > 0).all())


def test_minimiser_of_independent_members_has_no_more_energy_than_curves_beside_it() -> None:
    members, (z0, z1) = decoders(), pairs()
    found = distance_uncertainty(members, z0, z1, segments=4)

    def energy(inner: Tensor) -> Tensor:
        whole = torch.cat([z0[:, None], inner, z1[:, None]], 1)
        return torch.stack([pairwise_expectation(members, n) for n in whole])

    inner = DiscreteCurve(torch.stack([z0, z1], 1)).resample(4).nodes[:, 1:-1].clone().requires_grad_()
    optimiser = torch.optim.LBFGS([inner], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure() -> Tensor:
        optimiser.zero_grad()
        total = energy(inner).sum()
        total.backward()
        return total

    optimiser.step(closure)
    torch.testing.assert_close(found.independent, energy(inner).detach().sqrt(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_member_is_the_plain_pullback(dtype: torch.dtype) -> None:
    member = decoders(1)[0].to(dtype)
    z0, z1 = (z.to(dtype) for z in pairs())
    with torch.no_grad():
        found = distance_uncertainty([member], z0, z1, segments=32)
    plain = PullbackManifold(member).dist(z0, z1).detach().double()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(found.members[0], plain, rtol=tolerance, atol=0)
    torch.testing.assert_close(found.expected, plain, rtol=tolerance, atol=0)
    torch.testing.assert_close(found.independent, plain, rtol=1e-2, atol=0)
    assert float(found.floor.abs().max()) == 0
    assert set(found.verdict) == {Verdict.NOT_SOLVED}
    torch.testing.assert_close(
        PullbackManifold(Ensemble([member])).metric(z0).dense(), PullbackManifold(member).metric(z0).dense()
    )


@pytest.mark.heavy
def test_members_with_an_isometric_embedding() -> None:
    members, (z0, z1) = decoders(), pairs()
    found = distance_uncertainty([PullbackManifold(f, Bernoulli()) for f in members], z0, z1)
    for length, f in zip(found.members, members, strict=True):
        torch.testing.assert_close(length, PullbackManifold(f, Bernoulli()).dist(z0, z1).detach())


def test_verdicts_and_what_is_shown() -> None:
    lengths = torch.tensor([[1.0, 1.0, 1.0, torch.nan], [1.05, 1.3, 3.0, torch.nan], [1.0, 1.0, 1.0, 2.0]])
    plain = torch.ones(4, dtype=torch.float64)
    found = DistanceUncertainty(lengths.double(), plain, plain, 0 * plain, 16)
    assert found.verdict == (Verdict.AGREE, Verdict.ROUGH, Verdict.DISAGREE, Verdict.NOT_SOLVED)
    assert repr(found) == "DistanceUncertainty(4 pairs, 3 members: 1 AGREE, 1 ROUGH, 1 DISAGREE, 1 NOT_SOLVED)"
    page = found._repr_html_()
    assert "independent, T=16" in page
    assert page.count("<tr>") == 5


def test_pairs_without_uncertainty() -> None:
    z0, _ = pairs()
    found = distance_uncertainty(decoders(), z0, z0)
    torch.testing.assert_close(found.cv, torch.zeros(B, dtype=torch.float64))
    assert bool(found.rank_correlation.isnan().all())


@pytest.mark.usefixtures("without_type_checks")
def test_named_errors_say_what_to_do() -> None:
    members, (z0, z1) = decoders(), pairs()
    with pytest.raises(OptionError, match=r"For one decoder write \[decoder\]"):
        distance_uncertainty(members[0], z0, z1)
    with pytest.raises(OptionError, match="For one decoder"):
        distance_uncertainty([], z0, z1)
    measured = [PullbackManifold(f, lambda y: torch.eye(OUT).to(y).expand(len(y), OUT, OUT)) for f in members]
    with pytest.raises(OptionError, match="outputs of two members have no difference"):
        distance_uncertainty(measured, z0, z1)
    with pytest.raises(OptionError, match="segments must be a whole number, at least 2"):
        distance_uncertainty(members, z0, z1, segments=1)
