"""How the search for a geodesic ended, in words that say what to do."""

from enum import Enum


class Status(Enum):
    """The end of the search for one pair; its value is the advice."""

    CONVERGED = "converged: the residual is below the tolerance"
    ROUNDING = (
        "converged as far as the arithmetic allows: the end points are so close, compared with the size of the "
        "outputs, that rounding errors alone keep the residual above the tolerance; nothing needs to be done"
    )
    COINCIDENT = "the end points coincide: the curve is the point and its length is 0"
    DEGENERATE = (
        "the end points differ but no distance between them can be told from 0: the metric is singular there (the "
        "decoder is constant along the curve); add a floor to the metric if they must be told apart"
    )
    COARSE = (
        "the discrete curve converged, but its error estimate is above rtol even at max_segments: the decoder bends "
        "too sharply (ReLU); raise rtol or max_segments"
    )
    UPPER_BOUND = (
        "a shortest path of a graph: its length bounds the distance from above, and it is no geodesic; let Newton "
        "shorten it: Newton(starts=(GraphPath(points),))"
    )
    MISSED = (
        "no initial velocity was found whose geodesic meets the second point; begin nearer (starts=...), or solve for "
        "the whole curve with Newton()"
    )
    SINGULAR = (
        "the metric is singular on the way, so that geodesics there have no equation; solve by energies with Newton(), "
        "or add a floor to the metric"
    )
    KINKED = (
        "the discrete curve converged, but the metric jumps on the way (ReLU), so that no initial velocity leads along "
        "it; take an activation with a continuous first derivative such as Softplus or SiLU, or do with geodesic() and "
        "dist()"
    )
    NOT_REFINED = (
        "the discrete curve converged, but did not lead to a solution of the geodesic equation: it winds too much, or "
        "second derivatives are not finite; take a curve between nearer points"
    )
    MAX_STEPS = "stopped at the step limit; raise max_steps, or start from a better curve (starts=...)"
    STALLED = (
        "no step decreases the energy any more although the residual is above the tolerance: the decoder is not twice "
        "differentiable on the way (ReLU), or not evaluated in float64; raise tol, or smooth the decoder"
    )
    NON_FINITE = (
        "on the way the decoder returned NaN or infinity, or the metric is not positive; keep latents where it was "
        "trained, and metrics positive"
    )

    @property
    def converged(self) -> bool:
        """Whether the pair's curve is a discrete geodesic, to the tolerance asked for or to rounding errors."""
        return self in (Status.CONVERGED, Status.ROUNDING, Status.COINCIDENT, Status.DEGENERATE)

    def __str__(self) -> str:
        return f"{self.name}: {self.value}"
