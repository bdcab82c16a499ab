"""Ordinary differential equations of many independent states, each with a step size of its own."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.integrate import DOP853
from torch import Tensor

from pullgeo.errors import NonFiniteError, SingularMetricError
from pullgeo.numerics.ode.discontinuities import Field, locate

Size = Callable[[Tensor], Tensor]
"""``(b, k, d) -> (b, k)``: the lengths that errors of the k vectors of a state are compared with."""

RTOL = 1e-10
"""Relative error of one step. Errors of a whole geodesic stay near it where neighbours do not run apart."""

MAX_STEPS = 1000
"""A state that takes more steps is given up."""


@dataclass(frozen=True)
class StepSettings:
    """How steps are chosen, and when a state is given up.

    Attributes:
        smallest: the least step, as a part of the duration. Set by hand.
        shortest: the least step up to a jump of the field, likewise. Near the rounding of the time.
        patience: after so many steps each state must have made progress since they were last counted. Set by hand.
        progress: the least progress, relative to what was left. A jump of the field takes tens of steps, and is left
            behind then.
        margin: what of the step that would just have been good enough is taken next. As in the source.
        shorter: the least factor from one step to the next. Set by hand.
        longer: the largest factor. Set by hand.
        smooth: a shorter step of a smooth solution has an error that falls at least with this power of it. Far below
            the order.
        stages: of the method.
        exponent: of the error in the factor of the step, by the order of the estimate.
    """

    smallest: float = 1e-9
    shortest: float = 1e-14
    patience: int = 100
    progress: float = 1e-3
    margin: float = 0.9
    shorter: float = 0.2
    longer: float = 8.0
    smooth: int = 4
    stages: int = 12
    exponent: float = -1 / 8


STEPS = StepSettings()


def integrate(
    field: Field,
    start: Float[Tensor, "b k d"],
    size: Size,
    *,
    duration: float = 1.0,
    rtol: float = RTOL,
    max_steps: int = MAX_STEPS,
) -> Float[Tensor, "b k d"]:
    """Follow a field from each state for some time, by the Dormand-Prince method of order 8.

    The field knows no time, so every state steps on its own clock: its accuracy and its steps do not depend on its
    company, and it leaves the batch when it has arrived. A step into a place where the field is not finite, or not
    defined, is taken back and made shorter. Where the field jumps, a step ends shortly before, and the next one begins
    behind. Differentiable by backpropagation through the accepted steps.

    Args:
        field: the slopes; it may raise `NonFiniteError` or `SingularMetricError` where there are none.
        start: states of k vectors each.
        size: what the error of each vector is measured by; a step is accepted if none exceeds ``rtol`` times it.
        duration: for how long.
        rtol: see ``size``.
        max_steps: a state that takes more is given up.

    Returns:
        The states at the end; NaN for one that came to a place from which it cannot be continued, or that stands
        still, as a geodesic does that runs to infinity in a finite time.

    Raises:
        NonFiniteError, SingularMetricError: the field is not defined at a start.

    Cost: one evaluation of the field for each of 12 stages a step, some fifty for a jump; the slowest state decides how
    many.

    Source: Hairer, Norsett, Wanner, *Solving Ordinary Differential Equations I*, section II.10.
    """
    if start.numel() == 0 or duration == 0:
        return start
    state, slope = start, field(start)
    step = _first_step(field, state, slope, size, rtol).clamp(max=duration)
    left = torch.full_like(step, duration)
    lost, failed, tried = (torch.zeros_like(step, dtype=torch.bool) for _ in range(3))
    # a jump is sought within this time; stepped over by so much after the next step; and what step had met it
    suspected, across, usual = (torch.zeros_like(step) for _ in range(3))
    # of the last step tried: its error, and its length
    worst, longest = torch.zeros_like(step), step
    counted = last = left
    for number in range(max_steps):
        if number and number % STEPS.patience == 0:
            lost = lost | ((left > 0) & (left > (1 - STEPS.progress) * counted))
            counted = left
        going = ((left > 0) & ~lost).nonzero().squeeze(1)
        if not len(going):
            return torch.where(lost.view(-1, 1, 1), torch.nan, state)
        seeking = going[suspected[going] > 0]
        if len(seeking):
            jumps = locate(
                field, state[seeking], slope[seeking], suspected[seeking], rtol * size(state[seeking].detach())
            )
            stop = torch.where(jumps.found, jumps.before.clamp(min=STEPS.shortest * duration), step[seeking])
            step = step.index_put((seeking,), stop)
            beyond = torch.where(jumps.found, jumps.after - stop, 0.0)
            across = across.index_put((seeking,), torch.where(jumps.sure, beyond, 0.0))
            # with the path known to its second order alone, a step leads near the jump, and it is sought again
            suspected = suspected.index_put((seeking,), torch.where(jumps.sure, 0.0, 2 * beyond))
            tried = tried.index_put((seeking,), ~jumps.found)
        h = torch.minimum(step[going], left[going])
        after, after_slope, error = _attempt(field, state[going], slope[going], h, size, rtol)
        good = error < 1
        arrived = going[good]
        state = state.index_put((arrived,), after[good])
        slope = slope.index_put((arrived,), after_slope[good])
        left = left.index_put((arrived,), torch.where(h == left[going], 0.0, left[going] - h)[good])
        # the step that would just have been good enough, with a margin; no longer one right after a failure
        most = torch.where(failed[going], 1.0, STEPS.longer)
        factor = STEPS.margin * error.clamp(min=1e-12) ** STEPS.exponent
        step = step.index_put((going,), h * torch.minimum(factor.clamp(min=STEPS.shorter), most))
        # a shorter step should have been much better, but for a jump
        smooth = error < worst[going] * (h / longest[going]) ** STEPS.smooth
        abrupt = ~good & torch.isfinite(error) & failed[going] & ~smooth & ~tried[going]
        worst, longest = worst.index_put((going,), error), longest.index_put((going,), h)
        usual = usual.index_put((going,), torch.where(abrupt, h, usual[going]))
        suspected = suspected.index_put((going,), torch.where(good, suspected[going], torch.where(abrupt, h, 0.0)))
        tried = tried.index_put((going,), tried[going] & ~good)
        failed = failed.index_put((going,), ~good)
        lost = lost | ~((step >= STEPS.smallest * duration) | (suspected > 0) | (across > 0))  # NaN is lost at once
        over = arrived[(across[arrived] > 0) & (across[arrived] < left[arrived])]
        if len(over):
            hop = across[over]
            state = state.index_put((over,), state[over] + hop.view(-1, 1, 1) * slope[over])
            slope = slope.index_put((over,), field(state[over]))
            left = left.index_put((over,), left[over] - hop)
            failed = failed.index_put((over,), torch.zeros_like(hop, dtype=torch.bool))
            # where one is, others may be near
            onward = torch.maximum(usual[over] / 2, 2 * (last[over] - left[over]))
            step, suspected, usual = (a.index_put((over,), onward) for a in (step, suspected, usual))
            last = last.index_put((over,), left[over])
        across = across.index_put((going,), torch.zeros_like(h))
    return torch.where((lost | (left > 0)).view(-1, 1, 1), torch.nan, state)


def _attempt(
    field: Field, state: Tensor, slope: Tensor, h: Tensor, size: Size, rtol: float
) -> tuple[Tensor, Tensor, Float[Tensor, " b"]]:
    """One step of each state: where it leads, the slope there, and the error in units of the tolerance."""
    try:
        slopes = [slope]
        wide = h.view(-1, 1, 1)
        for row in DOP853.A[1 : STEPS.stages]:
            slopes.append(field(state + wide * _combine(row, slopes)))
        after = state + wide * _combine(DOP853.B, slopes)
        slopes.append(field(after))
    except (NonFiniteError, SingularMetricError):
        if len(state) == 1:
            return state, slope, torch.full_like(h, torch.inf)
        # some state left the region where the field is defined: find out which, the others go on
        halves = (
            _attempt(field, *part, size, rtol)
            for part in zip(state.tensor_split(2), slope.tensor_split(2), h.tensor_split(2), strict=True)
        )
        first, second = halves
        return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]), torch.cat([first[2], second[2]])
    with torch.no_grad():
        tolerance = rtol * torch.maximum(size(state), size(after))
        fifth, third = (_excess(_combine(weights, slopes), tolerance) for weights in (DOP853.E5, DOP853.E3))
        error = h * fifth.square() / (fifth.square() + 0.01 * third.square()).sqrt().clamp(min=_tiny(h))
    return after, slopes[-1], torch.where(_finite(after, slopes[-1]), error, torch.inf)


def _first_step(field: Field, state: Tensor, slope: Tensor, size: Size, rtol: float) -> Float[Tensor, " b"]:
    """A step whose error should be near the tolerance, from the slope and how it changes."""
    with torch.no_grad():
        tolerance = rtol * size(state)
        speed = _excess(slope, tolerance)
        short = 0.01 / (rtol * speed).clamp(min=1.0)
        try:
            turned = field(state + short.view(-1, 1, 1) * slope)
        except (NonFiniteError, SingularMetricError):
            return short
        turning = _excess(turned - slope, tolerance) / short
        step = (0.01 / torch.maximum(speed, turning).clamp(min=_tiny(short))) ** -STEPS.exponent
        return torch.where(torch.isfinite(step), torch.minimum(100 * short, step), short)


def _combine(weights: object, slopes: list[Tensor]) -> Tensor:
    terms = [float(w) * s for w, s in zip(weights, slopes, strict=False) if w]  # type: ignore[call-overload]
    return torch.stack(terms).sum(0)


def _excess(error: Float[Tensor, "b k d"], tolerance: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    # a vector without a size has no error either
    return (error.abs().amax(2) / tolerance.clamp(min=_tiny(error))).amax(1)


def _finite(*states: Float[Tensor, "b k d"]) -> Bool[Tensor, " b"]:
    return torch.stack([torch.isfinite(s).flatten(1).all(1) for s in states]).all(0)


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
