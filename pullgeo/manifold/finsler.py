"""Average lengths of curves under random decoders: a Finsler metric, between two bounds."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._repr import ShortRepr
from pullgeo.curve.base import Curve
from pullgeo.errors import OptionError
from pullgeo.geodesic.energy.ambient_segment import AmbientSegmentEnergy
from pullgeo.geodesic.energy.base import QuadraticModel
from pullgeo.geodesic.problem import BoundaryValue
from pullgeo.geodesic.solution import Solution
from pullgeo.geodesic.solve import solve
from pullgeo.geodesic.solver import Solver
from pullgeo.jacobian.contractions import flat
from pullgeo.jacobian.linearize import linearize
from pullgeo.manifold.ambient.convert import ambient_of
from pullgeo.manifold.ambient.flat import Flat
from pullgeo.manifold.decoders.ensemble import Ensemble, MeanAndDeviation, mean_and_deviation
from pullgeo.manifold.output import MeanAndScale
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.numerics.expected_norm import expected_norm
from pullgeo.numerics.ode.gauss_legendre import gauss
from pullgeo.numerics.progress import with_progress
from pullgeo.typing import Decoder

POINTS = 2**12
"""Points that are decoded together."""


@dataclass(frozen=True, eq=False)
class FinslerLength(ShortRepr):
    """Average lengths of curves under a random decoder, and what they lie between.

    Args:
        expected: ``E L``, the average over decoders.
        lower: of a Gaussian decoder the length by ``√(vᵀ E[JᵀJ] v - s²)``, with s the largest deviation of an entry of
            ``J v``; of an ensemble that of the members' average, ``‖E[J] v‖``.
        upper: the length in the expected metric, by ``√(vᵀ E[JᵀJ] v)``.
    """

    expected: Float[Tensor, " b"]
    lower: Float[Tensor, " b"]
    upper: Float[Tensor, " b"]

    def __repr__(self) -> str:
        return f"FinslerLength({len(self.expected)} curves)"


def finsler_length(manifold: PullbackManifold, curve: Curve, points: int = 4) -> FinslerLength:
    """``∫ E ‖J ż‖ dt``: the average length of curves under a random decoder, the same one all along a curve.

    Of an `Ensemble` it is the average of the members' lengths, ``1/S Σ ∫ ‖J_s ż‖ dt``. A Gaussian decoder is
    ``f = μ + σ ∘ ε`` with one normal ε for all z: there ``J v = J_μ v + (J_σ v) ∘ ε``, a Gaussian vector with
    independent entries. Either average is a Finsler metric: a norm of v at each point that comes of no inner product.
    The expected metric is above it, by Jensen's inequality. For a Gaussian it is near: the variance of ``‖J v‖`` is at
    most ``s² = max_i (J_σ v)_i²``, by Poincaré's inequality for Gaussians, so that
    ``√(vᵀ E[JᵀJ] v - s²) ≤ E ‖J v‖ ≤ √(vᵀ E[JᵀJ] v)``, and where many outputs vary alike the two differ by O(1/D),
    relatively. Members of an ensemble differ by more; from below Jensen's inequality alone bounds their average, by the
    length under the average decoder.

    Args:
        manifold: of an ensemble, ``PullbackManifold(Ensemble(members))``; or of a Gaussian decoder:
            ``PullbackManifold(MeanAndDeviation(mean, deviation))``, or with ``output="mean+std"`` or one of its kin.
        curve: the curves.
        points: Gauss points in each segment of the curve.

    Returns:
        The average and the two bounds, which hold at each point and so for the sums.

    Raises:
        OptionError: the decoder has no members and tells no mean and deviation, or ``points`` is below 1.

    Cost: one forward and one tangent pass at each point, and for Gaussian decoders `expected_norm` of a vector for
    each.

    Source: Pouplin, Eklund, Ek, Hauberg, *Identifying latent distances with Finslerian geometry*, TMLR 2023.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> from pullgeo.manifold import MeanAndDeviation, finsler_length
        >>> mean = torch.nn.Linear(2, 50).double()
        >>> deviation = torch.nn.Sequential(torch.nn.Linear(2, 50), torch.nn.Softplus()).double()
        >>> manifold = PullbackManifold(MeanAndDeviation(mean, deviation))
        >>> z = torch.randn(2, 3, 2, dtype=torch.float64)
        >>> found = finsler_length(manifold, manifold.geodesic(z[0], z[1]).curve)
        >>> bool(((found.lower < found.expected) & (found.expected < found.upper)).all())
        True
    """
    if points < 1:
        raise OptionError(f"finsler_length: points must be at least 1, got {points}.")
    known, average = _random("finsler_length", manifold)
    decoder = _map("finsler_length", known.in_double())
    rule, T = gauss(points), curve.segments
    fine = curve.to(torch.float64)
    inner = torch.as_tensor(rule.points, device=fine.nodes.device)
    weights = torch.as_tensor(rule.outer, device=fine.nodes.device).repeat(T) / T
    times = ((torch.arange(T, device=inner.device)[:, None] + inner) / T).flatten()
    z, v = fine(times), fine.velocity(times)
    pairs = zip(z.flatten(0, 1).split(POINTS), v.flatten(0, 1).split(POINTS), strict=True)
    speeds = torch.cat([_speeds(decoder, average, *pair) for pair in pairs], 1).unflatten(1, z.shape[:2])
    expected, lower, upper = ((speed * weights).sum(1).to(curve.nodes.dtype) for speed in speeds)
    return FinslerLength(expected, lower, upper)


class FinslerSpace:
    """The latent space of a random decoder, measured by the average lengths of `finsler_length`.

    A geodesic minimises ``T Σ_i (E ‖f(z_{i+1}) - f(z_i)‖)²``, which solvers do as for any manifold: this is what
    `solve` asks for, and what `Curve.length` measures by. There is no inner product, and so no exponential map: for
    these take the expected metric, the manifold itself, whose geodesics are all but the same where the outputs of a
    Gaussian decoder are many.

    Args:
        manifold: of an ensemble or a Gaussian decoder, as for `finsler_length`.

    Raises:
        OptionError: the decoder has no members and tells no mean and deviation.

    Source: Pouplin, Eklund, Ek, Hauberg, *Identifying latent distances with Finslerian geometry*, TMLR 2023.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> from pullgeo.manifold import FinslerSpace, MeanAndDeviation
        >>> mean = torch.nn.Linear(2, 50).double()
        >>> deviation = torch.nn.Sequential(torch.nn.Linear(2, 50), torch.nn.Softplus()).double()
        >>> manifold = PullbackManifold(MeanAndDeviation(mean, deviation))
        >>> z = torch.randn(2, 3, 2, dtype=torch.float64)
        >>> FinslerSpace(manifold).geodesic(z[0], z[1])
        Solution(3 pairs: 3 CONVERGED)
    """

    def __init__(self, manifold: PullbackManifold) -> None:
        self.manifold, self._average = _random("FinslerSpace", manifold)

    def __repr__(self) -> str:
        return f"FinslerSpace({self.manifold!r})"

    @with_progress()
    def geodesic(self, z0: Tensor, z1: Tensor, solver: Solver | None = None, *, progress: bool = False) -> Solution:
        """Curves of least average length between pairs of points; arguments and errors as `Manifold.geodesic`."""
        return solve(BoundaryValue(self, z0, z1), solver)

    def in_double(self) -> "FinslerSpace":
        """This space in float64, connected to the same weights."""
        return FinslerSpace(self.manifold.in_double())

    def check_ends(self, z: Float[Tensor, "n d"]) -> None:
        """Raise unless the decoder has a Jacobian at these points."""
        self.manifold.check_ends(z)

    def energy(self, nodes: Float[Tensor, "p n d"]) -> Float[Tensor, " p"]:
        """``T Σ_i (E ‖f(z_{i+1}) - f(z_i)‖)²``."""
        return self._discretised.energy(nodes)

    def expand_energy(self, nodes: Float[Tensor, "p n d"]) -> QuadraticModel:
        """The energy with its exact gradient and Hessian."""
        return self._discretised.expand_energy(nodes)

    def chord_lengths(self, layers: Float[Tensor, "p n k d"]) -> Float[Tensor, "p s k k"]:
        """``E ‖f(b) - f(a)‖`` between all points of successive layers."""
        return self._discretised.chord_lengths(layers)

    @property
    def _discretised(self) -> AmbientSegmentEnergy:
        average = self._average

        def squared_chord(a: Tensor, b: Tensor) -> Tensor:
            return average.norm(b - a).square()

        return AmbientSegmentEnergy(squared_chord, _squares, self.manifold.expand, self.manifold.decode)


class _Average(ABC):
    """Of the lengths of a random vector, told by what a stacked decoder's output changes by."""

    @abstractmethod
    def norm(self, change: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        """The average length."""

    @abstractmethod
    def least(self, change: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        """What it is never below."""


class _OfGaussian(_Average):
    """Changes are ``(μ, σ)``."""

    def norm(self, change: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        return expected_norm(*change.chunk(2, 1))

    def least(self, change: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        deviation = change.chunk(2, 1)[1]
        return (change.square().sum(1) - deviation.square().amax(1)).clamp(min=0).sqrt()


@dataclass(frozen=True)
class _OfMembers(_Average):
    """Changes are those of ``count`` members, one after the other, over ``√count``."""

    count: int

    def norm(self, change: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        squares = change.unflatten(1, (self.count, -1)).square().sum(2)
        # a member that stays where it is has a length of zero, whose root has no derivative
        moves = squares > 0
        return torch.where(moves, torch.where(moves, squares, 1.0).sqrt(), 0.0).sum(1) / self.count**0.5

    def least(self, change: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        return change.unflatten(1, (self.count, -1)).sum(1).norm(dim=1) / self.count**0.5


def _squares(y: Float[Tensor, "n D"], T: Float[Tensor, "k n D"]) -> Float[Tensor, "k n"]:
    return T.square().sum(-1)


def _speeds(
    decoder: Decoder, average: _Average, z: Float[Tensor, "n d"], v: Float[Tensor, "n d"]
) -> Float[Tensor, "3 n"]:
    J = linearize(decoder, z)[1]
    change = flat(J.push(v.unsqueeze(0))).squeeze(0)
    return torch.stack([average.norm(change), average.least(change), change.square().sum(1).sqrt()])


def _random(where: str, manifold: PullbackManifold) -> tuple[PullbackManifold, _Average]:
    """The manifold, in a form whose map is the stacked one, and how that is averaged."""
    ensemble = isinstance(manifold, PullbackManifold) and manifold.output is None and manifold.decoder
    if isinstance(ensemble, Ensemble):
        _map(where, manifold)
        return manifold, _OfMembers(ensemble.count)
    return _gaussian(where, manifold), _OfGaussian()


def _gaussian(where: str, manifold: PullbackManifold) -> PullbackManifold:
    """The manifold, whose decoder, with what is picked of it, then returns ``(μ, σ)``."""
    if isinstance(manifold, PullbackManifold):
        if isinstance(manifold.output, MeanAndScale) or (
            isinstance(manifold.decoder, MeanAndDeviation) and manifold.output is None
        ):
            _map(where, manifold)
            return manifold
        if manifold.output is mean_and_deviation:
            return _gaussian(where, PullbackManifold(manifold.decoder, manifold.ambient, "mean+std"))
    raise _error(where, manifold)


def _map(where: str, manifold: PullbackManifold) -> Decoder:
    """``z -> (μ, σ)``, measured by the Euclidean metric of both."""
    measured, decoder = manifold.ambient, ambient_of(manifold).embedding
    euclidean = isinstance(measured, Flat) and measured.matrix is None and measured.embedding is None
    if not euclidean or decoder is None:
        raise _error(where, manifold)
    return decoder


def _error(where: str, manifold: object) -> OptionError:
    return OptionError(
        f"{where}: expected the PullbackManifold of an ensemble or a Gaussian decoder with its expected metric, got "
        f"{manifold!r}. Write PullbackManifold(Ensemble(members)), PullbackManifold(MeanAndDeviation(mean, "
        "deviation)), or output='mean+std' for a decoder that returns a distribution or a pair."
    )
