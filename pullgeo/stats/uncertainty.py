"""How far members of an ensemble agree on distances, and what lengths with members drawn node by node add to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from pullgeo._repr import SHOWN, ShortRepr, counted, html_table
from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.errors import OptionError
from pullgeo.geodesic.descent.newton import Descent, descend, reached
from pullgeo.geodesic.energy.base import ManifoldEnergy, QuadraticModel
from pullgeo.geodesic.energy.independent import expand_independent_energy, independent_energy
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold.ambient.convert import ambient_of
from pullgeo.manifold.ambient.flat import Flat
from pullgeo.manifold.decoders.ensemble import Ensemble
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.numerics.progress import advance, progress_bar
from pullgeo.stats.arguments import check_count
from pullgeo.typing import Decoder

Members = Ensemble | PullbackManifold | Sequence[PullbackManifold | Decoder]

AGREE, ROUGH = 0.1, 0.3
"""Coefficients of variation up to which members agree, and up to which they agree roughly."""

_TOLERANCE, _STEPS = 1e-6, 200


class Verdict(Enum):
    """What the members say about one pair; its value is a sentence."""

    AGREE = "the members' distances differ by less than 10 %: this distance can be relied on as far as they differ"
    ROUGH = "the members' distances differ by 10 to 30 %: the order of magnitude is known, not the rank among others"
    DISAGREE = "the members' distances differ by more than 30 %: this distance depends on which decoder was trained"
    NOT_SOLVED = "fewer than two members have a geodesic that converged: nothing is known about this distance"


class _OfMembers(ShortRepr):
    """What distances ``(S, b)`` of members say about each of b pairs."""

    members: Float64[Tensor, "s b"]

    @property
    def converged(self) -> Bool[Tensor, "s b"]:
        """Which members' geodesics converged."""
        return ~self.members.isnan()

    @property
    def mean(self) -> Float64[Tensor, " b"]:
        """Average over the members that converged."""
        return self.members.nanmean(0)

    @property
    def std(self) -> Float64[Tensor, " b"]:
        """Standard deviation over the members that converged, with S - 1; NaN for fewer than two."""
        count = self.converged.sum(0)
        squares = (self.members - self.mean).square().nansum(0)
        return torch.where(count > 1, squares / (count - 1).clamp(min=1), torch.nan).sqrt()

    @property
    def cv(self) -> Float64[Tensor, " b"]:
        """Coefficient of variation, ``std / mean``; zero where all distances are zero."""
        return torch.where(self.mean == 0, self.std, self.std / self.mean)

    @property
    def rank_correlation(self) -> Float64[Tensor, "s s"]:
        """Spearman's correlation between members over the pairs that all of them solved; NaN for fewer than three.

        It does not change if a member's distances are rescaled, nor falls if a constant is added to all of them.
        """
        return rank_correlation(self.members)

    @property
    def verdict(self) -> tuple[Verdict, ...]:
        """One `Verdict` for each pair, by the coefficient of variation."""
        return tuple(
            Verdict.NOT_SOLVED
            if cv != cv
            else Verdict.AGREE
            if cv <= AGREE
            else Verdict.ROUGH
            if cv <= ROUGH
            else Verdict.DISAGREE
            for cv in self.cv.tolist()
        )

    def __len__(self) -> int:
        return self.members.shape[1]


@dataclass(frozen=True, eq=False)
class MemberDistances(_OfMembers):
    """Distances of b pairs as S members of an ensemble see them; see `member_distances`.

    Attributes:
        members: geodesic distance of each member, ``(S, b)``, NaN where it did not converge.
    """

    members: Float64[Tensor, "s b"]

    def __repr__(self) -> str:
        return f"MemberDistances({len(self)} pairs, {len(self.members)} members: {counted(self.verdict)})"


@dataclass(frozen=True, eq=False)
class DistanceUncertainty(_OfMembers):
    """Distances of b pairs as S members of an ensemble see them; see `distance_uncertainty`.

    Attributes:
        members: geodesic distance of each member, ``(S, b)``, NaN where it did not converge. The member is the same all
            along the curve.
        expected: distance in the expected metric, NaN where it did not converge.
        independent: ``√E`` of the discrete energy with members drawn independently at each node, at its minimiser with
            ``segments`` segments; NaN where the search did not converge.
        floor: the part ``(T Σ V_i + V_{i+1})^½`` of it that the members' variance adds: ``independent² - floor²`` is
            the energy of the members' average. It is proportional to the number of segments, and is no length.
        segments: the number T of segments of ``independent``.
    """

    members: Float64[Tensor, "s b"]
    expected: Float64[Tensor, " b"]
    independent: Float64[Tensor, " b"]
    floor: Float64[Tensor, " b"]
    segments: int

    def __repr__(self) -> str:
        return f"DistanceUncertainty({len(self)} pairs, {len(self.members)} members: {counted(self.verdict)})"

    def _repr_html_(self) -> str:
        numbers = zip(
            *(a.tolist() for a in (self.mean, self.std, self.cv, self.expected, self.independent, self.floor)),
            self.verdict,
            strict=True,
        )
        rows = [
            (str(i), *(f"{x:.4g}" for x in row[:2]), f"{row[2]:.1%}", *(f"{x:.4g}" for x in row[3:6]), row[6].name)
            for i, row in enumerate(islice(numbers, SHOWN))
        ]
        header = ("pair", "mean", "std", "cv", "expected", f"independent, T={self.segments}", "its floor", "verdict")
        return html_table(repr(self), header, rows, len(self))


def member_distances(
    members: Members,
    z0: Float64[Tensor, "b d"] | Tensor,
    z1: Float64[Tensor, "b d"] | Tensor,
    solver: Solver | None = None,
    *,
    progress: bool = False,
) -> MemberDistances:
    """Geodesic distances as each member of an ensemble sees them, by any ambient metric.

    Args:
        members: an `Ensemble`, a `PullbackManifold` of one, or at least one decoder or `PullbackManifold`.
        z0: where curves begin, ``(b, d)``.
        z1: where they end.
        solver: how geodesics are found; ``Newton()`` if ``None``.
        progress: whether to show a bar of the members.

    Raises:
        OptionError: there is no member.
        ShapeError, DtypeError, NonFiniteError: the end points are no pairs of points.

    Cost: S geodesics a pair.

    Example:
        >>> import torch
        >>> from pullgeo.stats import member_distances
        >>> decoders = [torch.nn.Linear(2, 5).double() for _ in range(3)]
        >>> z0, z1 = torch.zeros(4, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
        >>> member_distances(decoders, z0, z1).mean.shape
        torch.Size([4])
    """
    manifolds = member_manifolds("member_distances", members)
    with torch.no_grad(), progress_bar("member_distances", progress, unit="member", total=len(manifolds)):
        return MemberDistances(_each(manifolds, z0, z1, solver))


def distance_uncertainty(
    members: Members,
    z0: Float64[Tensor, "b d"] | Tensor,
    z1: Float64[Tensor, "b d"] | Tensor,
    *,
    segments: int = 16,
    solver: Solver | None = None,
    progress: bool = False,
) -> DistanceUncertainty:
    """Geodesic distances as each member of an ensemble sees them, beside two ways to average over the members.

    * *Common members*: for each member its own geodesic distance. Their spread is the uncertainty of the distance.
    * *Expected metric*: the distance in ``1/S Σ J_sᵀ J_s``. It does not depend on the number of segments.
    * *Independent members*: ``√E`` with ``E = T Σ_i E_{s,t} |f_s(z_{i+1}) - f_t(z_i)|²``, as the literature on
      ensembles measures. It contains ``T Σ (V(z_i) + V(z_{i+1}))``, with V the members' variance: a floor near
      ``T √(2 V)`` that all curves share, and that lowers coefficients of variation whether or not distances agree.

    Args:
        members: an `Ensemble`, a `PullbackManifold` of one, or at least one decoder or `PullbackManifold`, with
            outputs of the same size.
        z0: where curves begin, ``(b, d)``.
        z1: where they end.
        segments: T of the independent members.
        solver: how the geodesics of members and of the expected metric are found; ``Newton()`` if ``None``.
        progress: show a progress bar, counting metrics: those of the members, the expected one and the independent one.

    Raises:
        OptionError: there is no member, or one is not measured by the Euclidean metric, of outputs or of an isometric
            embedding of them: then outputs of two members have no difference.
        ShapeError, DtypeError, NonFiniteError: the end points are no pairs of points.

    Cost: S + 1 geodesics a pair, that of the expected metric S times as expensive; and Newton's method on the
    independent energy.

    Source: Syrota, Moreno-Muñoz, Hauberg, *Decoder ensembling for learned latent geometries*, 2024, for the independent
    members.

    Example:
        >>> import torch
        >>> from pullgeo.stats import distance_uncertainty
        >>> decoders = [torch.nn.Linear(2, 5).double() for _ in range(3)]
        >>> z0, z1 = torch.zeros(4, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
        >>> found = distance_uncertainty(decoders, z0, z1)
        >>> found.members.shape, bool((found.independent > found.expected).all())
        (torch.Size([3, 4]), True)
    """
    check_count("distance_uncertainty", "segments", segments, least=2)
    manifolds = member_manifolds("distance_uncertainty", members)
    images = [_image(manifold) for manifold in manifolds]
    stacked = PullbackManifold(Ensemble(images))
    bar = progress_bar("distance_uncertainty", progress, unit="metric", total=len(manifolds) + 2)
    with torch.no_grad(), bar:
        lengths = _each(manifolds, z0, z1, solver)
        solution = stacked.geodesic(z0, z1, solver)
        advance()
        expected = torch.where(solution.converged, solution.length.double(), torch.nan)
        # the curves are only where the search begins
        nodes = solution.curve.resample(segments).nodes.double()
        ends = (solution.curve.begin.double(), solution.curve.end.double())
        line = DiscreteCurve(torch.stack(ends, 1)).resample(segments).nodes
        nodes = torch.where(torch.isfinite(nodes).flatten(1).all(1)[:, None, None], nodes, line)
        energy, floor = independent_members(stacked, len(images), nodes)
        advance()
    return DistanceUncertainty(lengths, expected, energy.sqrt(), floor.sqrt(), segments)


def independent_members(
    stacked: PullbackManifold, members: int, nodes: Float64[Tensor, "b n d"]
) -> tuple[Float64[Tensor, " b"], Float64[Tensor, " b"]]:
    """Minima of the energy with independent members, from given curves, and the members' variance in them."""
    space = _Independent(stacked.in_double(), members)
    found = descend(space, Descent.begin(space, nodes), _TOLERANCE, _STEPS)
    good = reached(found.at.residual, found.at.rounding, _TOLERANCE) | found.stalled
    mean, spread = space.parts(found.nodes)
    return torch.where(good, mean + spread, torch.nan), torch.where(good, spread, torch.nan)


def rank_correlation(values: Float64[Tensor, "s b"]) -> Float64[Tensor, "s s"]:
    """Spearman's correlation between rows, over the columns without NaN; NaN for fewer than three columns."""
    from scipy.stats import rankdata  # a large module, which only this function needs

    known = values[:, ~values.isnan().any(0)]
    if known.shape[1] < 3:
        return values.new_full((len(values), len(values)), torch.nan)
    ranks = torch.as_tensor(rankdata(known.numpy(force=True), axis=1), dtype=values.dtype, device=values.device)
    away = ranks - ranks.mean(1, keepdim=True)
    size = away.norm(dim=1)
    return (away @ away.mT) / (size[:, None] * size)


@dataclass(frozen=True, eq=False)
class _Independent:
    """What a descent sees of an ensemble whose members are drawn anew at each node."""

    stacked: PullbackManifold
    members: int

    def in_double(self) -> ManifoldEnergy:
        return _Independent(self.stacked.in_double(), self.members)

    def parts(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        return independent_energy(self.stacked.decoder, self.members, nodes)

    def energy(self, nodes: Tensor) -> Tensor:
        return sum(self.parts(nodes), nodes.new_zeros(()))

    def expand_energy(self, nodes: Tensor) -> QuadraticModel:
        return expand_independent_energy(self.stacked.expand, self.stacked.decoder, self.members, nodes)

    def chord_lengths(self, layers: Tensor) -> Tensor:
        return self.stacked.chord_lengths(layers)


def _each(manifolds: list[PullbackManifold], z0: Tensor, z1: Tensor, solver: Solver | None) -> Float64[Tensor, "s b"]:
    """Distances in each of the manifolds, counted on the bar that is shown."""
    lengths = []
    for manifold in manifolds:
        lengths.append(_converged(manifold, z0, z1, solver))
        advance()
    return torch.stack(lengths)


def _converged(manifold: PullbackManifold, z0: Tensor, z1: Tensor, solver: Solver | None) -> Float64[Tensor, " b"]:
    solution = manifold.geodesic(z0, z1, solver)
    return torch.where(solution.converged, solution.length.double(), torch.nan)


def member_manifolds(where: str, members: Members) -> list[PullbackManifold]:
    """The members, each with its own metric.

    Raises:
        OptionError: there is none.
    """
    if isinstance(members, PullbackManifold) and isinstance(members.decoder, Ensemble):
        ensemble = members.decoder
        return [PullbackManifold(f, members.ambient, members.output) for f in ensemble.members]
    if isinstance(members, Ensemble):
        return [PullbackManifold(f) for f in members.members]
    if not isinstance(members, Sequence) or not len(members):
        raise OptionError(
            f"{where}: members must be an Ensemble, a PullbackManifold of one, or a sequence of decoders "
            f"or PullbackManifolds, got {members!r}. For one decoder write [decoder]."
        )
    return [f if isinstance(f, PullbackManifold) else PullbackManifold(f) for f in members]


def _image(manifold: PullbackManifold) -> Decoder:
    """The map into the Euclidean space in which a member measures."""
    space = ambient_of(manifold)
    if not isinstance(space, Flat) or space.matrix is not None or space.embedding is None:
        raise OptionError(
            "distance_uncertainty: members must be measured by the Euclidean metric of their outputs, or of an "
            f"isometric embedding as Bernoulli() and Poisson() have one; got {manifold!r}. With another metric outputs "
            "of two members have no difference. Compare the members' own: member_distances(members, z0, z1)."
        )
    return space.embedding
