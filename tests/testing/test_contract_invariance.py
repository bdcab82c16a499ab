"""`check_invariant`: passes where coordinates do not matter, and fails where they do."""

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td

from pullgeo import MetricManifold, PullbackManifold, linearize
from pullgeo.likelihood import Bernoulli
from pullgeo.manifold import weighted_sum
from pullgeo.metric import Dense
from pullgeo.testing import check_invariant
from pullgeo.testing.charts import HalfPlane
from pullgeo.typing import Decoder


def network(out: int) -> nn.Module:
    torch.manual_seed(out)
    return nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, out)).double().requires_grad_(False)


def points() -> tuple[Tensor, Tensor]:
    z = 0.5 * torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return z[0], z[1]


class Twist(nn.Module):
    """A turn by an angle that grows away from the origin, which keeps areas."""

    def forward(self, w: Tensor) -> Tensor:
        angle = 0.7 * w.square().sum(1)
        c, s = angle.cos(), angle.sin()
        return torch.stack([c * w[:, 0] - s * w[:, 1], s * w[:, 0] + c * w[:, 1]], 1)


def bend(w: Tensor) -> Tensor:
    return torch.stack([w[:, 0] + 0.4 * w[:, 1].sin(), 2 * w[:, 1] + w[:, 1] ** 3 / 3], 1)


NET = network(6)
MANIFOLDS = {
    "Euclidean": PullbackManifold(NET),
    "Bernoulli": PullbackManifold(NET, Bernoulli()),
    "Normal": PullbackManifold(lambda z: td.Normal(NET(z)[:, :3], NET(z)[:, 3:].exp())),
    "one of two": PullbackManifold(lambda z: (NET(z), z), output=0),
    "latents beside": PullbackManifold(lambda z: torch.cat([NET(z), 0.1 * z], 1)),
    "sum": weighted_sum(
        [PullbackManifold(NET), PullbackManifold(network(4), Bernoulli())],
        torch.zeros(1, 2, dtype=torch.float64),
        [1.0, 3.0],
    ),
    "metric alone": MetricManifold(HalfPlane().metric),
}


@pytest.mark.parametrize("diffeomorphism", [Twist(), bend], ids=["module", "function"])
@pytest.mark.parametrize("name", MANIFOLDS)
def test_distances_do_not_depend_on_coordinates(name: str, diffeomorphism: Decoder) -> None:
    x, y = points()
    if name == "metric alone":
        x, y = (torch.stack([p[:, 0], 1.0 + 0.5 * p[:, 1].sigmoid()], 1) for p in (x, y))
        diffeomorphism = bend
    check_invariant(MANIFOLDS[name], diffeomorphism, x, y)


def test_what_looks_at_latents_depends_on_coordinates() -> None:
    x, y = points()

    def regularised(decoder: Decoder) -> MetricManifold:
        def metric(z: Tensor) -> Dense:
            J = linearize(decoder, z)[1].dense()
            return Dense(J.mT @ J + 0.01 * torch.eye(2, dtype=z.dtype))

        return MetricManifold(metric)

    manifold = PullbackManifold(lambda z: torch.cat([NET(z), 0.1 * z], 1))
    torch.testing.assert_close(regularised(NET).metric(x).dense(), manifold.metric(x).dense())
    remake = lambda decoder: PullbackManifold(lambda w: torch.cat([NET(bend(w)), 0.1 * w], 1))  # noqa: E731
    with pytest.raises(AssertionError, match=r"check_invariant\(PullbackManifold\): metric: ψ'ᵀ G ψ': max error"):
        check_invariant(manifold, bend, x, y, remake=remake)

    def euclidean(chart: Decoder) -> MetricManifold:
        return MetricManifold(lambda z: torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2))

    with pytest.raises(AssertionError, match=r"check_invariant\(MetricManifold\): metric"):
        check_invariant(euclidean(nn.Identity()), bend, x, y, remake=euclidean)
    # area is kept by the twist, and lengths are not
    with pytest.raises(AssertionError, match="metric"):
        check_invariant(PullbackManifold(NET), Twist(), x, y, remake=lambda decoder: PullbackManifold(NET))


@pytest.mark.heavy
def test_maps_that_are_no_diffeomorphisms_are_told() -> None:
    x, y = points()
    plane = PullbackManifold(nn.Linear(2, 3).double())
    with pytest.raises(AssertionError, match="diffeomorphism: its derivative has a condition number"):
        check_invariant(plane, lambda w: w.sum(1, keepdim=True).expand(-1, 2), x, y)
    with pytest.raises(AssertionError, match=r"diffeomorphism: expected shape \(3, 2\), got \(3, 3\)"):
        check_invariant(plane, lambda w: torch.cat([w, w[:, :1]], 1), x, y)
    with pytest.raises(AssertionError, match="diffeomorphism: raised RuntimeError"):
        check_invariant(plane, nn.Linear(3, 2).double(), x, y)

    def fold(w: Tensor) -> Tensor:
        return torch.stack([w[:, 0].square(), w[:, 1]], 1)

    # geodesics would have to cross the fold, where nothing can be measured
    left, right = torch.tensor([[-1.0, 0.0], [-0.5, 0.0]]).double(), torch.tensor([[1.0, 0.3], [0.7, 0.0]]).double()
    with pytest.raises(AssertionError, match="dist in new coordinates"):
        check_invariant(plane, fold, left, right)

    def polar(w: Tensor) -> Tensor:
        return w[:, :1].exp() * torch.stack([w[:, 1].cos(), w[:, 1].sin()], 1)

    # a cylinder unrolled: there is a shorter way around than the one that the strip knows
    cylinder = MetricManifold(lambda z: torch.eye(2, dtype=z.dtype) / z.square().sum(1)[:, None, None])
    x = torch.tensor([[0.0, 0.0], [0.1, 0.0]], dtype=torch.float64)
    check_invariant(cylinder, polar, x, x + torch.tensor([0.2, 1.0]))
    with pytest.raises(AssertionError, match=r"dist: .*not one to one"):
        check_invariant(cylinder, polar, x, x + torch.tensor([0.2, 4.5]))
