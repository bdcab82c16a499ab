"""check_manifold passes a manifold in closed form and fails every broken one."""

from types import SimpleNamespace

import geoopt
import pytest
import torch

from pullgeo.metric import Dense
from pullgeo.testing import charts, check_manifold, oracles

X = torch.tensor([[0.3, 0.7], [0.5, 0.2], [0.1, 0.4]], dtype=torch.float64)
Y = torch.tensor([[0.8, 0.2], [0.4, 0.9], [0.6, 0.5]], dtype=torch.float64)


class ClosedForm(geoopt.Manifold):
    """A space form, every operation by its formula."""

    name = "closed form"
    ndim = 1
    reversible = False

    def __init__(self, chart: charts.SpaceForm) -> None:
        super().__init__()
        self.chart = chart

    def metric(self, x):
        return Dense(self.chart.metric(x))

    def inner(self, x, u, v=None, *, keepdim=False):
        value = self.metric(x).inner(u, u if v is None else v)
        return value[..., None] if keepdim else value

    def dist(self, x, y, *, keepdim=False):
        value = self.chart.distance(x, y)
        return value[..., None] if keepdim else value

    def expmap(self, x, u):
        return self.chart.expmap(x, u)

    def logmap(self, x, y):
        return self.chart.logmap(x, y)

    def transp(self, x, y, v):
        return self.chart.transp(x, y, v)

    def expmap_transp(self, x, u, v):
        y = self.expmap(x, u)
        return y, self.transp(x, y, v)

    def retr(self, x, u):
        return x + u

    def proju(self, x, u):
        return u

    def projx(self, x):
        return x

    def egrad2rgrad(self, x, u):
        return self.metric(x).solve(u)

    def log_volume(self, x):
        return self.metric(x).logdet() / 2

    def christoffel(self, x):
        return oracles.christoffel(self.chart, x, step=1e-3)

    def geodesic(self, x, y):
        velocity = self.logmap(x, y)
        return SimpleNamespace(curve=lambda t: torch.stack([self.expmap(x, s * velocity) for s in t], dim=1))

    def _check_point_on_manifold(self, x, *, atol=1e-5, rtol=1e-5):
        return True, None

    def _check_vector_on_tangent(self, x, u, *, atol=1e-5, rtol=1e-5):
        return True, None


def test_closed_forms_pass():
    check_manifold(ClosedForm(charts.HalfPlane()), X, Y)
    check_manifold(ClosedForm(charts.PoincareBall(2, 2.0)), 0.5 * X, 0.5 * Y)


class Asymmetric(ClosedForm):
    def metric(self, x):
        return Dense(self.chart.metric(x) + torch.tensor([[0.0, 0.1], [0.0, 0.0]]))


class Indefinite(ClosedForm):
    def metric(self, x):
        return Dense(-self.chart.metric(x))


class EuclideanInner(ClosedForm):
    def inner(self, x, u, v=None, *, keepdim=False):
        return (u * (u if v is None else v)).sum(-1, keepdim=keepdim)


class ForgetsKeepdim(ClosedForm):
    def inner(self, x, u, v=None, *, keepdim=False):
        return super().inner(x, u, v)


class WholeLogdet(ClosedForm):
    def log_volume(self, x):
        return 2 * super().log_volume(x)


class EuclideanGradient(ClosedForm):
    def egrad2rgrad(self, x, u):
        return u


class ChristoffelWithIndicesSwapped(ClosedForm):
    def christoffel(self, x):
        return super().christoffel(x).transpose(1, 2)


class DirectedDistance(ClosedForm):
    def dist(self, x, y, *, keepdim=False):
        return super().dist(x, y, keepdim=keepdim) * (1 + 0.01 * x[:, :1] if keepdim else 1 + 0.01 * x[:, 0])


class DistanceToItself(ClosedForm):
    def dist(self, x, y, *, keepdim=False):
        return super().dist(x, y, keepdim=keepdim) + 1e-3


class LongDistance(ClosedForm):
    def dist(self, x, y, *, keepdim=False):
        return super().dist(x, y, keepdim=keepdim) * (1 + 1e-4)


class UnknownDistance(ClosedForm):
    def dist(self, x, y, *, keepdim=False):
        return super().dist(x, y, keepdim=keepdim) * torch.tensor([1.0, torch.nan, 1.0])


class SingleDistance(ClosedForm):
    def dist(self, x, y, *, keepdim=False):
        return super().dist(x, y, keepdim=keepdim).float()


class StraightLogarithm(ClosedForm):
    def logmap(self, x, y):
        v = y - x
        return v * (self.dist(x, y) / self.norm(x, v))[:, None]


class StraightExponential(ClosedForm):
    def expmap(self, x, u):
        return x + u


class NoTransport(ClosedForm):
    def transp(self, x, y, v):
        return v


class TransportTurned(ClosedForm):
    """Keeps inner products, but turns in the plane."""

    def transp(self, x, y, v):
        turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=v.dtype)
        return super().transp(x, y, v) @ turn.T


class SecondOrderTransport(ClosedForm):
    def transp(self, x, y, v):
        moved = super().transp(x, y, v)
        return moved * (1 + moved.norm(dim=-1, keepdim=True))


class GeodesicOff(ClosedForm):
    def geodesic(self, x, y):
        return super().geodesic(x, y + 1e-6)


class WildRetraction(ClosedForm):
    def retr(self, x, u):
        return x + 2 * u


class InPlace(ClosedForm):
    def retr(self, x, u):
        x += u
        x -= u
        return x + u


class Nameless(ClosedForm):
    log_volume = None


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Asymmetric, "metric: symmetry: max error"),
        (Indefinite, "metric: positive definite: the smallest eigenvalue"),
        (EuclideanInner, "inner: max error"),
        (ForgetsKeepdim, "inner with keepdim: expected shape"),
        (WholeLogdet, "log_volume: max error"),
        (EuclideanGradient, "egrad2rgrad"),
        (ChristoffelWithIndicesSwapped, "christoffel: max error"),
        (DirectedDistance, "dist: symmetry: max error"),
        (DistanceToItself, "dist from a point to itself: max error"),
        (LongDistance, "norm of logmap = dist: max error"),
        (UnknownDistance, "dist: 1 of 3 pairs have no finite distance"),
        (SingleDistance, r"dist: expected dtype torch\.float64"),
        (StraightLogarithm, r"expmap\(x, logmap\(x, y\)\) = y: max error"),
        (StraightExponential, r"expmap\(x, logmap\(x, y\)\) = y: max error"),
        (NoTransport, "transp keeps inner products: max error"),
        (TransportTurned, "transp against an integrator: max error"),
        (SecondOrderTransport, "transp keeps inner products: max error"),
        (GeodesicOff, "geodesic: ends: max error"),
        (WildRetraction, "retr to first order: max error"),
        (InPlace, "operations: argument 0 was changed in place"),
        (Nameless, "names: there is no method 'log_volume'"),
    ],
)
def test_a_broken_manifold_fails(kind, message):
    with pytest.raises(AssertionError, match=rf"check_manifold\({kind.__name__}\): .*{message}"):
        check_manifold(kind(charts.HalfPlane()), X, Y)
