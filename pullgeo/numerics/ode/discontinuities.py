"""Where a field jumps on the way of a state, as the second derivatives of ELU and similar activations do."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.errors import NonFiniteError, SingularMetricError
from pullgeo.numerics.batch import Batch
from pullgeo.numerics.chunking import DERIVED

Field = Callable[[Tensor], Tensor]
"""``(b, k, d) -> (b, k, d)``: the slope of every state."""


@dataclass(frozen=True)
class JumpSettings:
    """How jumps of a field are told from what is smooth.

    Attributes:
        probes: into so many parts a stretch of time is cut at once. Set by hand.
        fine: error of stepping over a jump, in units of the tolerance, below which its time is known well enough. Set
            by hand.
        max_rounds: how often stretches are divided at most; each time to a sixteenth. No float64 can be divided more
            often.
        alike: how much smaller a jump may be than the largest, to be taken for one: the first of these is meant. Set by
            hand.
        kept: what a jump keeps of its size, at least, while the times around it move together; what is smooth shrinks.
            What is smooth shrinks to a sixteenth in each round.
        reach: part of the time over which the slope's own change is measured. Set by hand.
    """

    probes: int = 16
    fine: float = 0.1
    max_rounds: int = 16
    alike: float = 0.5
    kept: float = 0.05
    reach: float = 1e-3


SETTINGS = JumpSettings()


@dataclass(frozen=True, eq=False)
class Jumps(Batch):
    """Where states of a batch meet jumps, if they do.

    Attributes:
        found: whether there is one.
        before: a time before it, as far as the path is known.
        after: a time after it.
        sure: whether the path is known so well that a step from ``before`` to ``after`` costs no accuracy.
    """

    found: Bool[Tensor, " b"]
    before: Float[Tensor, " b"]
    after: Float[Tensor, " b"]
    sure: Bool[Tensor, " b"]


def locate(
    field: Field,
    state: Float[Tensor, "b k d"],
    slope: Float[Tensor, "b k d"],
    h: Float[Tensor, " b"],
    tolerance: Float[Tensor, "b k"],
) -> Jumps:
    """The first jump of the field within time h on the way of each state.

    Paths are followed by their Taylor polynomial of degree two, at many times at once, and the stretch between two of
    them where the field changes most abruptly is divided again. That tells where the jump is up to the polynomial's
    error; a step that ends shortly before it leads to where the polynomial is exact.

    Args:
        field: the slopes.
        state: where the paths begin.
        slope: the field there.
        h: how far they are followed.
        tolerance: error of each vector of a state that counts as small.

    Cost: the field at 17 points a round, in some six rounds.
    """
    with torch.no_grad():
        parts = DERIVED.split(state, slope, h, tolerance, each=SETTINGS.probes + 1)
        return Jumps.cat([_locate(field, *part) for part in parts])


def _locate(field: Field, state: Tensor, slope: Tensor, h: Tensor, tolerance: Tensor) -> Jumps:
    nowhere = Jumps(torch.zeros_like(h, dtype=torch.bool), h, h, torch.zeros_like(h, dtype=torch.bool))
    n = len(h)
    at = torch.linspace(0, 1, SETTINGS.probes + 1, dtype=h.dtype, device=h.device)
    scale = tolerance.clamp(min=torch.finfo(h.dtype).tiny).view(n, 1, -1, 1)

    def sizes(vectors: Tensor) -> Tensor:
        return (vectors.abs() / scale).flatten(2).amax(2)

    low, high = torch.zeros_like(h), h
    first = torch.full_like(h, torch.nan)
    try:
        reach = SETTINGS.reach * h.view(-1, 1, 1)
        turn = (field(state + reach * slope) - slope) / reach
        # by how much the slope turns until then, relative to itself: its square is what the polynomial leaves out
        turning = turn.abs().amax((1, 2)) / slope.abs().amax((1, 2)).clamp(min=torch.finfo(h.dtype).tiny)
        for _ in range(SETTINGS.max_rounds):
            t = (low.unsqueeze(1) + (high - low).unsqueeze(1) * at).view(n, -1, 1, 1)
            path = state.unsqueeze(1) + t * (slope.unsqueeze(1) + t / 2 * turn.unsqueeze(1))
            change = field(path.flatten(0, 1)).unflatten(0, (n, -1)).diff(dim=1)
            score = torch.minimum(sizes(change), sizes(_abrupt(change)))
            best = score.amax(1)
            first = torch.where(first.isnan(), best, first)
            place = (score >= SETTINGS.alike * best.unsqueeze(1)).to(h.dtype).argmax(1)
            jump = sizes(change).gather(1, place.unsqueeze(1)).squeeze(1)
            width = (high - low) / SETTINGS.probes
            low = low + width * place
            high = low + width
            margin = low * ((turning * low).square()).clamp(max=0.1)
            if bool(((jump * width < SETTINGS.fine) | (width < margin)).all()):
                break
    except (NonFiniteError, SingularMetricError):
        return nowhere
    found = torch.isfinite(jump) & (jump >= SETTINGS.kept * first) & (jump * h > 1)
    return Jumps(found, low - margin, high + margin, jump * (high - low + 2 * margin) < 3 * SETTINGS.fine)


def _abrupt(change: Float[Tensor, "b n k d"]) -> Float[Tensor, "b n k d"]:
    """By how much each difference is out of line with those beside it."""
    beside = torch.cat([change[:, 1:2], change, change[:, -2:-1]], 1)
    return change - (beside[:, :-2] + beside[:, 2:]) / 2
