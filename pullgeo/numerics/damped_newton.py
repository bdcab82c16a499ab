"""Newton's method with damping, for many independent problems at once: the one loop of all that do it."""

from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.numerics.batch import Batch
from pullgeo.numerics.progress import stepped


@dataclass(frozen=True, eq=False, kw_only=True)
class Iterate(Batch):
    """Where problems stand; what they are is added by subclasses.

    Attributes:
        damping: λ of each problem, in whatever unit its steps take it.
        steps: steps taken or tried.
    """

    damping: Float[Tensor, " p"]
    steps: Int[Tensor, " p"]


I = TypeVar("I", bound=Iterate)  # noqa: E741


@runtime_checkable
class Problem(Protocol[I]):
    """What is solved by damped steps."""

    def done(self, now: I) -> Bool[Tensor, " p"]:
        """Which problems need no further step, or allow none."""

    def step(self, now: I) -> tuple[I, Bool[Tensor, " p"], Float[Tensor, " p"]]:
        """One step of each problem, with its damping or more.

        Returns:
            Where the problems stand then; whose damping may fall, as the step was good; and by which factor.
        """


@dataclass(frozen=True)
class Damping:
    """How damping follows success and failure.

    Attributes:
        first: with which a problem begins.
        growth: factor after a step that failed.
        acceleration: by which that factor grows when the next one fails too.
        restart: what damping is at least after a failure.
        least: what it is at least after a success.
        vanishing: below this, a success takes it away.
        limit: beyond this no step will help, and the problem is left as it is.
    """

    first: float
    growth: float
    acceleration: float = 1.0
    restart: float = 0.0
    least: float = 0.0
    vanishing: float = 0.0
    limit: float = 1e6

    def begin(self, like: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """The fields of `Iterate` before the first step."""
        zero = torch.zeros(len(like), dtype=torch.long, device=like.device)
        return {"damping": torch.full_like(like, self.first), "steps": zero}


MARQUARDT = Damping(first=1e-2, growth=2.0, acceleration=2.0, least=1e-12)
"""For ``(H + λD) s = -g``; see `judged` for the factor after a success."""

STEP_LENGTH = Damping(first=1.0, growth=4.0, least=1.0, limit=1e3)
"""For steps that are divided by the damping; `TWICE` is the factor after a success."""

TWICE = 0.5
"""A step that was good lets the next one be twice as long, up to a whole one."""


def damped_newton(problem: Problem[I], start: I, settings: Damping, max_steps: int) -> I:
    """Take steps until each problem is done, or its damping beyond the limit, or its steps are used up.

    Problems that are done leave the batch, so that they do not pay for the others.

    Args:
        problem: what a step is.
        start: where the problems stand.
        settings: how damping changes.
        max_steps: number of steps, those before the start included, at which a problem is given up.
    """
    index = torch.arange(len(start), device=start.damping.device)
    now, growth = start, torch.full_like(start.damping, settings.growth)
    left: list[I] = []
    places: list[Tensor] = []
    while True:
        done = problem.done(now) | (now.damping > settings.limit) | (now.steps >= max_steps)
        gone = int(done.sum())
        if gone == len(done) and not left:
            return now
        if gone:
            left.append(now[done])
            places.append(index[done])
        if gone == len(done):
            break
        if gone:
            stay = ~done
            index, now, growth = index[stay], now[stay], growth[stay]
        stepped(len(now))
        now, good, factor = problem.step(now)
        lower = (now.damping * factor).clamp(min=settings.least)
        if settings.vanishing > 0:
            lower = torch.where(now.damping < settings.vanishing, 0.0, lower)
        higher = (now.damping * growth).clamp(min=settings.restart)
        growth = torch.where(good, settings.growth, settings.acceleration * growth)
        now = now.changed(damping=torch.where(good, lower, higher), steps=now.steps + 1)
    return type(start).cat(left)[torch.cat(places).argsort()]


def judged(
    value: Float[Tensor, " p"],
    new: Float[Tensor, " p"],
    predicted: Float[Tensor, " p"],
    noise: Float[Tensor, " p"],
    falls: Bool[Tensor, " p"],
) -> tuple[Bool[Tensor, " p"], Float[Tensor, " p"]]:
    """Whether steps of a minimisation are good, and the factor of their damping.

    Args:
        value: what is minimised, before the step.
        new: the same after it.
        predicted: by how much the quadratic model says that it falls.
        noise: rounding errors of the value. Where the prediction drowns in them, the residual decides instead.
        falls: whether the residual falls, and the value does not rise by more than noise.

    Source: Nielsen, *Damping Parameter in Marquardt's Method*, 1999.
    """
    gain = (value - new) / predicted
    drowned = predicted < noise
    falls = falls & (new <= value + noise)
    factor = (1 - (2 * gain - 1) ** 3).clamp(0.1, 2.0)
    return torch.where(drowned, falls, gain > 1e-4), torch.where(drowned | (gain > 0.9), 1 / 30, factor)
