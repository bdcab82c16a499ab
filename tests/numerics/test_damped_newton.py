"""The one loop of damped Newton steps, on problems whose answers are known."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from pullgeo.numerics.damped_newton import MARQUARDT, STEP_LENGTH, TWICE, Iterate, damped_newton, judged


@dataclass(frozen=True, eq=False, kw_only=True)
class Points(Iterate):
    x: Tensor


def rosenbrock(x: Tensor) -> Tensor:
    return (1 - x[:, 0]).square() + 100 * (x[:, 1] - x[:, 0].square()).square()


class Valley:
    """Rosenbrock's function, whose minimum is at (1, 1), with Marquardt's damping."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def derivatives(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.unbind(1)
        gradient = torch.stack([-2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)], 1)
        rows = [torch.stack([2 - 400 * b + 1200 * a**2, -400 * a], 1), torch.stack([-400 * a, 200 + 0 * a], 1)]
        return gradient, torch.stack(rows, 1)

    def done(self, now: Points) -> Tensor:
        return self.derivatives(now.x)[0].norm(dim=1) <= 1e-9

    def step(self, now: Points) -> tuple[Points, Tensor, Tensor]:
        self.sizes.append(len(now))
        g, H = self.derivatives(now.x)
        damping = now.damping
        for _ in range(40):
            shifted = H + damping[:, None, None] * torch.eye(2, dtype=H.dtype)
            positive = torch.linalg.cholesky_ex(shifted)[1] == 0
            damping = torch.where(positive, damping, (8 * damping).clamp(min=1e-3))
        s = -torch.linalg.solve(shifted, g)
        predicted = -(g * s).sum(1) / 2 + damping * s.square().sum(1) / 2
        old, new = rosenbrock(now.x), rosenbrock(now.x + s)
        after = self.derivatives(now.x + s)[0].norm(dim=1)
        good, factor = judged(old, new, predicted, 1e-15 + 4e-16 * old, after < g.norm(dim=1))
        return replace(now, x=torch.where(good.unsqueeze(1), now.x + s, now.x), damping=damping), good, factor


@pytest.mark.parametrize("dtype", [torch.float64])
def test_minima_of_many_problems(dtype: torch.dtype) -> None:
    x = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [1.0, 1.0], [3.0, -2.0], [-5.0, 7.0]], dtype=dtype)
    problem = Valley()
    found = damped_newton(problem, Points(x=x, **MARQUARDT.begin(x[:, 0])), MARQUARDT, 100)
    torch.testing.assert_close(found.x, torch.ones_like(x), rtol=1e-9, atol=1e-9)
    # the one that begins at its minimum takes no step, and those that are done leave the others alone
    assert int(found.steps[2]) == 0
    assert problem.sizes[0] == 4
    assert problem.sizes == sorted(problem.sizes, reverse=True)
    assert len(problem.sizes) == int(found.steps.max())
    for i in range(len(x)):
        alone = damped_newton(Valley(), Points(x=x[i : i + 1], **MARQUARDT.begin(x[i : i + 1, 0])), MARQUARDT, 100)
        assert int(alone.steps[0]) == int(found.steps[i])


def test_limits() -> None:
    x = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    found = damped_newton(Valley(), Points(x=x, **MARQUARDT.begin(x[:, 0])), MARQUARDT, 3)
    assert found.steps.tolist() == [3, 3, 0]

    class Never(Valley):
        def step(self, now: Points) -> tuple[Points, Tensor, Tensor]:
            no = torch.zeros(len(now), dtype=torch.bool)
            return now, no, torch.ones(len(now), dtype=torch.float64)

    found = damped_newton(Never(), Points(x=x, **MARQUARDT.begin(x[:, 0])), MARQUARDT, 1000)
    # 0.01 times 2, 4, 8, ...: the seventh product is the first that is more than a million
    assert found.steps.tolist() == [7, 7, 0]
    assert float(found.damping[0]) == pytest.approx(0.01 * 2**28)
    torch.testing.assert_close(found.x, x)


def test_step_lengths() -> None:
    """Newton's method on arctan, which overshoots from afar: steps are quartered until the residual falls."""

    class Arctan:
        def done(self, now: Points) -> Tensor:
            return now.x[:, 0].atan().abs() <= 1e-12

        def step(self, now: Points) -> tuple[Points, Tensor, Tensor]:
            x = now.x[:, 0]
            trial = x - (1 + x.square()) * x.atan() / now.damping
            good = trial.atan().abs() < x.atan().abs()
            moved = torch.where(good, trial, x).unsqueeze(1)
            return replace(now, x=moved), good, torch.full_like(x, TWICE)

    x = torch.tensor([[0.5], [3.0], [20.0]], dtype=torch.float64)
    found = damped_newton(Arctan(), Points(x=x, **STEP_LENGTH.begin(x[:, 0])), STEP_LENGTH, 100)
    assert float(found.x.abs().max()) < 1e-11
    assert bool((found.damping >= 1).all())
