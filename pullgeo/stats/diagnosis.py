"""Is geometry worth it here, and can its distances be trusted?"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._repr import html_table
from pullgeo.errors import OptionError
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.numerics.chunking import DISTANCES, FEW
from pullgeo.numerics.progress import advance, with_progress
from pullgeo.stats.arguments import check_count, check_generator, check_manifold
from pullgeo.stats.kinks import jumps
from pullgeo.stats.lengths import cumulative_lengths, curve_points, straight_lengths, straight_lines
from pullgeo.stats.points import Points, as_points

Quantiles = tuple[float, float, float]
"""At 5, 50 and 95 per cent."""


@dataclass(frozen=True)
class Thresholds:
    """From where on something is said about a manifold. All are set by hand.

    Attributes:
        near: ratio of lengths up to which two curves are as good as one.
        same: ratio of the largest to the smallest factor between two distances, up to which one serves as well as the
            other.
        solved: share of pairs that must converge.
        far: distance to the nearest latent, in units of that between latents, from which on there are no data.
        flat: output per latent step, in units of that at the data, below which the decoder is flat.
        uneven: ratio of the decoder's scale between latents that is worth a word.
        ill: condition number of the metric that is worth a word.
        surer: deviation away from data over that at the data below which it does not tell them apart.
        few: share of pairs, or of latents, from which on something is said.
    """

    near: float = 1.01
    same: float = 1.1
    solved: float = 0.95
    far: float = 4.0
    flat: float = 0.02
    uneven: float = 30.0
    ill: float = 1e6
    surer: float = 1.5
    few: float = 0.05


LIMITS = Thresholds()


_STEPS = 65
_KINK_LINES = 32


class Finding(Enum):
    """What a diagnosis may find; its value says what that is, and what to do."""

    UNSOLVED = (
        "geodesics of many pairs were not found: their distances are missing, not wrong. Solution.status says why; try "
        "Newton(search='thorough'), more segments, or a smoother decoder"
    )
    EUCLIDEAN = (
        "straight lines are within 1 % of geodesics here, and latent distances are proportional to geodesic ones: "
        "Euclidean distances serve as well"
    )
    STRAIGHT = (
        "straight lines are within 1 % of geodesics here, but the decoder stretches some places or directions more "
        "than others: lengths of straight lines, measured in the output, serve as well as geodesics, and Euclidean "
        "distances do not"
    )
    FLAT = (
        "the decoder is flat between clusters: distances there say nothing, as crossing the gap costs next to nothing. "
        "Add uncertainty: MeanAndDeviation(decoder, RBFDeviation.fit(...)), or an Ensemble"
    )
    OFF_DATA = (
        "geodesics leave the data: they run farther from the latents than straight lines do, through places that the "
        "decoder was not trained on. Add uncertainty, which makes such places expensive: RBFDeviation, or an Ensemble"
    )
    SINGULAR = (
        "the decoder ignores directions of its latent space at many latents: moving along them costs nothing. Drop "
        "unused latents, or decode them as well: torch.cat([decoder(z).flatten(1), 0.01 * z], 1)"
    )
    ILL_CONDITIONED = (
        "the decoder stretches some directions a thousand times as much as others: distances are those along the few "
        "strong ones. Whiten the latents, or drop those that hardly matter"
    )
    KINKED = (
        "the metric jumps, as with ReLU: geodesics that are found are right, and there is no exponential or logarithm "
        "across the jumps. A smooth activation such as Softplus or SiLU has both"
    )
    UNEVEN = (
        "one latent unit changes the output at some latents 30 times as much as at others: a few of them dominate "
        "means and neighbours. Look at the map, and at what is decoded there"
    )
    CONFIDENT = (
        "the decoder is as sure of itself away from the data as among them: its deviation does not keep geodesics on "
        "the data. Fit one that does: RBFDeviation.fit(latents, squared_errors, ...)"
    )
    SOUND = (
        "geodesics are found, differ from straight lines and keep to the data: latent distances mean what the decoder "
        "says, and geometry is worth its cost here"
    )


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What `diagnose` found on some pairs of latents.

    Args:
        pairs: the number of pairs.
        statuses: how the search for each geodesic ended.
        line_ratio: length of the straight line over that of the geodesic, both in the output; at least 1.
        stretch: geodesic distance over Euclidean distance of the latents, in output units per latent unit.
        curve_gap: the largest distance of a geodesic to its nearest latent, over the usual one between latents.
        line_gap: the same of straight lines.
        rank_deficient: share of latents at which the metric is singular to rounding.
        condition: condition number of the metric at latents.
        kinked: share of straight lines on which the metric jumps.
        scale: ``√(tr G/d)`` at latents: how much the output changes for one latent unit.
        flat: share of straight lines with a stretch away from the data where the output changes hardly.
        deviation_ratio: the decoder's deviation away from the data over that at the data; ``None`` if it has none.
        findings: what stands out, and `Finding.SOUND` if nothing does.
    """

    pairs: int
    statuses: tuple[Status, ...]
    line_ratio: Quantiles
    stretch: Quantiles
    curve_gap: Quantiles
    line_gap: Quantiles
    rank_deficient: float
    condition: Quantiles
    kinked: float
    scale: Quantiles
    flat: float
    deviation_ratio: float | None
    findings: tuple[Finding, ...]

    @property
    def converged(self) -> float:
        """The share of pairs whose geodesic was found."""
        return sum(status.converged for status in self.statuses) / len(self.statuses)

    @property
    def advice(self) -> tuple[str, ...]:
        """The findings as sentences."""
        return tuple(finding.value for finding in self.findings)

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """What was measured, with its numbers: at 5, 50 and 95 per cent where there are three."""
        told = "none" if self.deviation_ratio is None else f"{self.deviation_ratio:.3g}"
        missed = Counter(status.name for status in self.statuses if not status.converged)
        rest = "".join(f", {count} {name}" for name, count in missed.items())
        return (
            ("geodesics found", f"{self.converged:.0%} of {self.pairs} pairs{rest}"),
            ("straight line / geodesic", _three(self.line_ratio)),
            ("geodesic / Euclidean latent distance", _three(self.stretch)),
            ("geodesics to the nearest latent", _three(self.curve_gap)),
            ("straight lines to the nearest latent", _three(self.line_gap)),
            ("latents with a singular metric", f"{self.rank_deficient:.0%}"),
            ("condition of the metric", _three(self.condition)),
            ("lines on which the metric jumps", f"{self.kinked:.0%}"),
            ("output per latent unit", _three(self.scale)),
            ("lines over flat places", f"{self.flat:.0%}"),
            ("deviation away from data / at data", told),
        )

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        lines = [f"  {name:<{width}}  {value}" for name, value in self.rows]
        found = [f"  {finding.name}: {finding.value}." for finding in self.findings]
        return "\n".join([f"Diagnosis of {self.pairs} pairs (5 %, median, 95 %)", *lines, *found])

    def _repr_html_(self) -> str:
        table = html_table("Diagnosis", ("measured", "5 %, median, 95 %"), self.rows, len(self.rows))
        items = "".join(f"<li><b>{finding.name}</b>: {finding.value}.</li>" for finding in self.findings)
        return f"<div>{table}<ul>{items}</ul></div>"


@with_progress("stage", total=5)
def diagnose(
    manifold: Manifold,
    latents: Points,
    *,
    pairs: int = 64,
    solver: Solver | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Diagnosis:
    """Measure on random pairs of latents what geodesics gain, where they run, and what could make them meaningless.

    Nothing is assumed of the decoder: a negative answer, such as that Euclidean distances serve as well, is one.

    Args:
        manifold: the latent space.
        latents: where the data are, ``(n, d)``, at least 3 different ones.
        pairs: how many pairs of them are joined.
        solver: how geodesics are found; ``Newton()`` if ``None``.
        generator: which pairs; ``torch.Generator().manual_seed(0)`` if ``None``.
        progress: show a progress bar, counting stages.

    Returns:
        A `Diagnosis`: numbers, and `Finding` for each thing that stands out, with what to do about it.

    Raises:
        OptionError: ``manifold`` is none, ``pairs`` is not a positive number, there are fewer than 3 different latents.
        ShapeError, DtypeError, NonFiniteError: the latents are no finite ``(n, d)``.

    Cost: the geodesics, 512 chords for each straight line, up to 512 metrics at latents and 85 on each of 32 lines; and
    the distances of 130 points of each pair to all latents.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold, diagnose
        >>> plane = torch.nn.Linear(2, 5)
        >>> with torch.no_grad():
        ...     _ = plane.weight.copy_(torch.eye(5, 2))
        >>> z = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> diagnose(PullbackManifold(plane), z).findings
        (<Finding.EUCLIDEAN: 'straight lines are within 1 % of geodesics here, and latent distances are ...'>,)
    """
    where = "diagnose"
    check_manifold(where, manifold)
    check_count(where, "pairs", pairs)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    check_generator(where, generator)
    z = torch.unique(as_points(where, latents).double(), dim=0)
    if len(z) < 3:
        raise OptionError(f"{where}: latents must hold at least 3 different points, got {len(z)}.")
    chosen = _pairs(len(z), pairs, generator)
    with torch.no_grad():
        solution = manifold.geodesic(z[chosen[:, 0]], z[chosen[:, 1]], solver)
        advance()
        double = manifold.in_double()
        few = z[torch.randperm(len(z), generator=generator, device=generator.device)[:512].to(z.device)]
        eigenvalues = torch.cat([torch.linalg.eigvalsh(double.metric(part).dense()) for (part,) in FEW.split(few)])
        advance()
        scale = eigenvalues.clamp(min=0).mean(1).sqrt()
        singular = eigenvalues[:, 0] <= z.shape[1] * torch.finfo(torch.float64).eps ** 0.75 * eigenvalues[:, -1]
        spacing = _nearest(few, z, 2).median()
        lines, curves = straight_lines(solution, _STEPS), curve_points(solution, _STEPS)
        line_gaps, curve_gaps = (_gaps(points, z) / spacing for points in (lines, curves))
        advance()
        away = _gaps(lines, z) > LIMITS.far * spacing
        found = solution.converged
        ratio = (straight_lengths(manifold, solution) / solution.length)[found & (solution.length > 0)]
        euclidean = (solution.curve.end - solution.curve.begin).norm(dim=1)
        stretch = (solution.length / euclidean)[found]
        flat = _flat(manifold, lines, away, scale.median())
        kinked = jumps(double, z[chosen[:_KINK_LINES, 0]], z[chosen[:_KINK_LINES, 1]]).double().mean()
        advance()
        sure = _deviation_ratio(double, few, lines[away])
        advance()
    measured: dict[str, Any] = {
        "line_ratio": _quantiles(ratio),
        "stretch": _quantiles(stretch),
        "curve_gap": _quantiles(curve_gaps[found].amax(1)),
        "line_gap": _quantiles(line_gaps.amax(1)),
        "rank_deficient": float(singular.double().mean()),
        "condition": _quantiles(eigenvalues[:, -1] / eigenvalues[:, 0].clamp(min=torch.finfo(torch.float64).tiny)),
        "kinked": float(kinked),
        "scale": _quantiles(scale),
        "flat": float(flat),
        "deviation_ratio": sure,
    }
    bare = Diagnosis(pairs, solution.status, findings=(), **measured)
    findings = tuple(finding for finding, holds in _RULES.items() if holds(bare))
    return Diagnosis(pairs, solution.status, findings=findings or (Finding.SOUND,), **measured)


_RULES: dict[Finding, Callable[[Diagnosis], bool]] = {
    Finding.UNSOLVED: lambda d: d.converged < LIMITS.solved,
    Finding.EUCLIDEAN: lambda d: d.line_ratio[2] <= LIMITS.near and d.stretch[2] <= LIMITS.same * d.stretch[0],
    Finding.STRAIGHT: lambda d: d.line_ratio[2] <= LIMITS.near and d.stretch[2] > LIMITS.same * d.stretch[0],
    Finding.FLAT: lambda d: d.flat > LIMITS.few,
    Finding.OFF_DATA: lambda d: d.curve_gap[1] > max(LIMITS.far, 1.5 * d.line_gap[1]),
    Finding.SINGULAR: lambda d: d.rank_deficient > LIMITS.few,
    Finding.ILL_CONDITIONED: lambda d: d.rank_deficient <= LIMITS.few and d.condition[1] > LIMITS.ill,
    Finding.KINKED: lambda d: d.kinked > LIMITS.few,
    Finding.UNEVEN: lambda d: d.scale[2] > LIMITS.uneven * d.scale[0],
    Finding.CONFIDENT: lambda d: d.deviation_ratio is not None and d.deviation_ratio < LIMITS.surer,
}


def _pairs(n: int, count: int, generator: torch.Generator) -> Tensor:
    """Pairs of different rows."""
    first = torch.randint(n, (count,), generator=generator, device=generator.device)
    step = torch.randint(1, n, (count,), generator=generator, device=generator.device)
    return torch.stack([first, (first + step) % n], 1)


def _nearest(points: Float[Tensor, "m d"], z: Float[Tensor, "n d"], k: int = 1) -> Float[Tensor, " m"]:
    """Distance to the k-th nearest latent."""
    parts = DISTANCES.split(points, each=len(z))
    return torch.cat([torch.cdist(part, z).kthvalue(k, dim=1).values for (part,) in parts])


def _gaps(curves: Float[Tensor, "b t d"], z: Float[Tensor, "n d"]) -> Float[Tensor, "b t"]:
    return _nearest(curves.flatten(0, 1), z).reshape(curves.shape[:2])


def _flat(manifold: Manifold, lines: Float[Tensor, "b t d"], away: Tensor, typical: Tensor) -> Tensor:
    """The share of lines that pass, away from the data, over a tenth of their length where the output stays."""
    steps = cumulative_lengths(manifold, lines).diff(dim=1)
    rate = steps / (lines[:, 1:] - lines[:, :-1]).norm(dim=2)
    still = (rate < LIMITS.flat * typical) & away[:, 1:] & away[:, :-1]
    return (still.double().mean(1) > 0.1).double().mean()


def _deviation_ratio(manifold: Manifold, data: Float[Tensor, "n d"], far: Float[Tensor, "m d"]) -> float | None:
    """Median deviation at points without data over that at the data."""
    if not isinstance(manifold, PullbackManifold) or not len(far):
        return None
    here, there = (manifold.deviation(points) for points in (data, far[:512]))
    if here is None or there is None:
        return None
    return float(there.flatten(1).mean(1).median() / here.flatten(1).mean(1).median())


def _quantiles(values: Tensor) -> Quantiles:
    if not len(values):
        return (float("nan"),) * 3
    low, middle, high = torch.quantile(values.double(), values.new_tensor([0.05, 0.5, 0.95]).double()).tolist()
    return (low, middle, high)


def _three(values: Quantiles) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
