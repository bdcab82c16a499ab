"""check_metric passes the package's metrics and fails every broken one."""

import pytest
import torch
from torch import nn

from pullgeo.errors import SingularMetricError
from pullgeo.jacobian import linearize
from pullgeo.metric import BlockDiagonal, Dense, Diagonal, Identity, Metric
from pullgeo.testing.contracts import check_metric


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def positive(*shape: int) -> torch.Tensor:
    root = random(*shape)
    return root @ root.mT + 0.1 * torch.eye(shape[-1], dtype=torch.float64)


def implicit() -> Metric:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 5)).double()
    return Dense(positive(5, 5)).pullback(linearize(decoder, random(2, 3))[1])


METRICS = {
    "identity": lambda: Identity(3),
    "identity in single precision": lambda: Identity(3, torch.float32),
    "diagonal": lambda: Diagonal(random(3).exp()),
    "diagonals": lambda: Diagonal(random(5, 3).exp()),
    "indefinite diagonals": lambda: Diagonal(random(5, 3)),
    "dense": lambda: Dense(positive(3, 3)),
    "dense batch": lambda: Dense(positive(5, 3, 3)),
    "dense, asymmetric": lambda: Dense(random(5, 3, 3)),
    "dense, asymmetric, in single precision": lambda: Dense(random(5, 3, 3).float()),
    "dense, singular": lambda: Dense(torch.ones(2, 3, 3, dtype=torch.float64)),
    "implicit": implicit,
    "blocks": lambda: BlockDiagonal((random(2, 2, 2), random(2, 1, 1)), (torch.tensor([0, 2]), torch.tensor([1])), 3),
    "blocks with a gap": lambda: BlockDiagonal((random(2, 2, 2),), (torch.tensor([0, 2]),), 3),
}


@pytest.mark.parametrize("name", METRICS)
def test_the_package_s_metrics_pass(name):
    check_metric(METRICS[name]())


def test_known_matrices_are_compared():
    M = positive(5, 3, 3)
    check_metric(Dense(M), expected=M)
    with pytest.raises(AssertionError, match="dense: max error"):
        check_metric(Dense(M), expected=M + 1e-6)


class Plain(Dense):
    """A metric with nothing but the base class's methods over its matrices."""


class ApplyTransposed(Plain):
    def apply(self, v):
        return Dense(self.matrix.mT).apply(v)


class ApplyInPlace(Plain):
    def apply(self, v):
        v += 0
        return super().apply(v)


class ApplyInDouble(Plain):
    def apply(self, v):
        return super().apply(v).double()


class ApplyToOneOnly(Plain):
    def apply(self, v):
        return super().apply(v) if v.ndim == 2 else super().apply(v[:1]).expand_as(v)


class InnerWithoutMetric(Plain):
    def inner(self, u, v):
        return (u * v).sum(-1)


class NormSquared(Plain):
    def norm(self, v):
        return self.inner(v, v)


class GramTransposed(Plain):
    def gram(self, T):
        return super().gram(T).mT


class QuadraticByStack(Plain):
    def quadratic(self, T):
        return super().quadratic(T).flip(0)


class DiagOfInverse(Plain):
    def diag(self):
        return torch.linalg.inv(self.matrix).diagonal(dim1=-2, dim2=-1)


class SolveTransposed(Plain):
    def solve(self, w):
        return Dense(self.matrix.mT).solve(w)


class LogdetHalved(Plain):
    def logdet(self):
        return super().logdet() / 2


class RootTransposed(Plain):
    def root(self):
        return super().root().mT


class RootRefused(Plain):
    def root(self):
        raise SingularMetricError("no")


class DenseChanges(Plain):
    calls = 0

    def dense(self):
        type(self).calls += 1
        return self.matrix * (1 + self.calls)


class TakesAnyVector(Plain):
    def apply(self, v):
        return super().apply(v[..., :3])


class PullbackTransposed(Plain):
    def pullback(self, J):
        return Dense(self.matrix.mT).pullback(J)


class PushforwardOfTheIdentity(Plain):
    def pushforward(self, J):
        return Identity(self.dim).pushforward(J)


class WrongDtypeSaid(Plain):
    @property
    def dtype(self):
        return torch.float32


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ApplyTransposed, "apply: max error"),
        (ApplyInPlace, "argument 1 was changed in place"),
        (ApplyToOneOnly, "apply to a stack: max error"),
        (InnerWithoutMetric, "inner: max error"),
        (NormSquared, "norm²: max error"),
        (GramTransposed, "gram: max error"),
        (QuadraticByStack, "quadratic: max error"),
        (DiagOfInverse, "diag: max error"),
        (SolveTransposed, "solve: max error"),
        (LogdetHalved, "logdet: max error"),
        (DenseChanges, "max error"),
        (TakesAnyVector, "another space: expected a ShapeError"),
        (PullbackTransposed, "pullback through Linear into the space: max error"),
        (PushforwardOfTheIdentity, "pushforward through Linear out of the space: max error"),
        (WrongDtypeSaid, "dense: expected dtype torch.float32, got torch.float64"),
    ],
)
def test_a_broken_metric_fails(kind, message):
    check_metric(Plain(random(5, 3, 3)))
    with pytest.raises(AssertionError, match=rf"check_metric\({kind.__name__}\): .*{message}"):
        check_metric(kind(random(5, 3, 3)))


@pytest.mark.parametrize(("kind", "message"), [(RootTransposed, "R Rᵀ: max error"), (RootRefused, "root: refused")])
def test_a_broken_root_fails(kind, message):
    with pytest.raises(AssertionError, match=message):
        check_metric(kind(positive(5, 3, 3)))


def test_a_metric_that_changes_precision_fails():
    with pytest.raises(AssertionError, match=r"apply: expected dtype torch\.float32, got torch\.float64"):
        check_metric(ApplyInDouble(random(5, 3, 3).float()))
