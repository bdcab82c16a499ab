"""What every metric must do, checked against its own matrices by plain algebra."""

import torch
from torch import Tensor, nn

from pullgeo.errors import ShapeError, SingularMetricError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.linearize import linearize
from pullgeo.metric.base import Metric
from pullgeo.testing import oracles
from pullgeo.testing.contracts.judge import Judge, random_like, uncontiguous

SINGULAR = 1e12
"""Condition number from which an inverse is no longer compared: it has no correct digits to speak of in float64."""


def check_metric(metric: Metric, *, expected: Tensor | None = None, generator: torch.Generator | None = None) -> None:
    """Check that all that a metric offers is what its matrices say.

    ``apply``, ``inner``, ``norm``, ``gram``, ``quadratic``, ``diag``, ``solve``, ``logdet``, ``root``, and the metrics
    that come of ``pullback`` and ``pushforward``, are compared with ``dense()`` in float64; dtype is kept, arguments
    are left alone, stacks of tangents and non-contiguous ones work, a vector of another space is a `ShapeError`.

    Args:
        metric: the metric; of one point or of a batch.
        expected: its matrices, ``(n, n)`` or ``(b, n, n)``, if they are known from elsewhere.
        generator: source of the random vectors; a fixed one by default.

    Raises:
        AssertionError: a check fails; the text names it, the largest error and its place.

    Example:
        >>> from pullgeo.metric import Diagonal
        >>> check_metric(Diagonal(torch.tensor([1.0, 2.0])), expected=torch.diag(torch.tensor([1.0, 2.0])))
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    judge = Judge(f"check_metric({type(metric).__name__})")
    own = metric.dense()
    judge.require(own.dtype == metric.dtype, "dense", f"expected dtype {metric.dtype}, got {own.dtype}")
    if expected is not None:
        judge.close("dense", own, expected)
    batch = len(own) if own.ndim == 3 else 3
    matrices = own.detach().double().expand(batch, metric.dim, metric.dim)
    case = _Case(judge, metric, own, matrices, generator)
    case.vectors()
    case.stacks()
    case.inverse()
    case.root()
    case.through_maps()
    judge.close("dense after all this", metric.dense(), own.detach().clone())


class _Case:
    """One metric, its matrices in float64 and vectors to try."""

    def __init__(self, judge: Judge, metric: Metric, own: Tensor, M: Tensor, generator: torch.Generator) -> None:
        self.judge, self.metric, self.own, self.M, self.generator = judge, metric, own, M, generator
        self.batch, self.n = M.shape[0], metric.dim

    def draw(self, *shape: int) -> Tensor:
        return random_like(self.own, *shape, generator=self.generator)

    def vectors(self) -> None:
        judge, metric, M = self.judge, self.metric, self.M
        u, v = self.draw(self.batch, self.n), self.draw(self.batch, self.n)
        Mv = oracles.jvp(M, v.double())
        with judge.unchanged("apply, inner and norm", u, v):
            judge.close("apply", metric.apply(v), Mv, like=v)
            judge.close("apply to a non-contiguous vector", metric.apply(uncontiguous(v)), Mv, like=v)
            size = float((u.double().norm(dim=-1) * Mv.norm(dim=-1)).max()) if self.batch else 0.0
            judge.close("inner", metric.inner(u, v), (u.double() * Mv).sum(-1), like=v, scale=size)
            square = (v.double() * Mv).sum(-1)
            judge.close("norm²", metric.norm(v).square(), square.clamp(min=0), like=v, scale=size)
        judge.close("diag", metric.diag().expand(self.batch, -1), M.diagonal(dim1=1, dim2=2), like=v)
        try:
            metric.apply(self.draw(self.batch, self.n + 1))
        except ShapeError:
            return
        judge.fail("apply to a vector of another space", "expected a ShapeError, got an answer")

    def stacks(self) -> None:
        judge, metric, M = self.judge, self.metric, self.M
        count = 2 if self.batch != 2 else 5
        T = self.draw(count, self.batch, self.n)
        MT = torch.stack([oracles.jvp(M, t.double()) for t in T])
        rows = [[(t.double() * mt).sum(-1) for mt in MT] for t in T]
        gram = torch.stack([torch.stack(row) for row in rows]).permute(2, 0, 1)
        judge.close("apply to a stack", metric.apply(T), MT, like=T)
        judge.close("gram", metric.gram(T), gram, like=T)
        judge.close("quadratic", metric.quadratic(T), gram.diagonal(dim1=1, dim2=2).T, like=T)

    def inverse(self) -> None:
        condition = torch.linalg.cond(self.M) if self.n else torch.ones(self.batch)
        worst = float(condition.nan_to_num(torch.inf, torch.inf).max()) if self.batch else 1.0
        if worst > SINGULAR * (1.0 if self.own.dtype == torch.float64 else 1e-8):
            return
        w = self.draw(self.batch, self.n)
        rtol = worst * torch.finfo(self.own.dtype).eps * 100
        expected = torch.linalg.solve(self.M, w.double()[..., None])[..., 0]
        with self.judge.unchanged("solve", w):
            self.judge.close("solve", self.metric.solve(w), expected, like=w, rtol=rtol)
        logdet = torch.linalg.slogdet(self.M).logabsdet
        self.judge.close("logdet", self.metric.logdet().expand(self.batch), logdet, like=w, rtol=rtol, scale=1.0)

    def root(self) -> None:
        asymmetry = float((self.M - self.M.mT).abs().max()) if self.M.numel() else 0.0
        if asymmetry > 1e-6 * float(self.M.abs().max() if self.M.numel() else 1.0):
            return  # no real root exists, and none is promised
        try:
            root = self.metric.root().detach().double().expand(self.batch, self.n, -1)
        except SingularMetricError:
            smallest = float(torch.linalg.eigvalsh(self.M).min())
            floor = 1e-10 * float(self.M.abs().max())
            self.judge.require(smallest <= floor, "root", f"refused, but the smallest eigenvalue is {smallest:.3g}")
            return
        product = torch.stack([r @ r.T for r in root]) if self.batch else self.M
        self.judge.close("root: R Rᵀ", product.to(self.own.dtype), self.M)

    def through_maps(self) -> None:
        for name, module, shape in self._maps():
            x = self.draw(self.batch, *shape)
            J = linearize(module.to(dtype=self.own.dtype, device=self.own.device), x)[1]
            self._through(name, J, oracles.dense_jacobian(module, x))

    def _maps(self) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
        into, out_of = nn.Linear(2, self.n), nn.Linear(self.n, 2)
        with torch.no_grad():
            for layer in (into, out_of):
                for parameter in layer.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=self.generator))
        curved = nn.Sequential(into, nn.Tanh())
        return [
            ("Linear into the space", into, (2,)),
            ("Linear out of the space", out_of, (self.n,)),
            ("Linear and Tanh", curved, (2,)),
            ("Tanh", nn.Tanh(), (self.n,)),
            ("Flatten", nn.Flatten(), (1, self.n)),
        ]

    def _through(self, name: str, J: Jacobian, truth: Tensor) -> None:
        if J.signature.n_out == self.n:
            pulled = oracles.jTmjp(truth, self.M)
            got = self.metric.pullback(J)
            self.judge.close(f"pullback through {name}", got.dense().expand_as(pulled), pulled, like=self.own)
            v = self.draw(self.batch, J.signature.n_in)
            self.judge.close(f"pullback through {name}: apply", got.apply(v), oracles.jvp(pulled, v.double()), like=v)
            diagonal = pulled.diagonal(dim1=1, dim2=2)
            self.judge.close(f"pullback through {name}: diag", got.diag().expand_as(diagonal), diagonal, like=v)
        if J.signature.n_in == self.n:
            pushed = oracles.jmjTp(truth, self.M)
            got = self.metric.pushforward(J)
            self.judge.close(f"pushforward through {name}", got.dense().expand_as(pushed), pushed, like=self.own)
            diagonal = pushed.diagonal(dim1=1, dim2=2)
            self.judge.close(f"pushforward through {name}: diag", got.diag().expand_as(diagonal), diagonal)
