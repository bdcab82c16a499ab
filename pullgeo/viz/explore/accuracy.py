"""How far the curves and lengths of a page are off, measured when it is written."""

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.errors import CoarseMapWarning, NonFiniteError, OptionError, SingularMetricError
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.manifold.base import Manifold
from pullgeo.viz.batches import at_home
from pullgeo.viz.explore.solver import page_geodesics
from pullgeo.viz.explore.surface import SURFACE, Interval, Surface, flat_map, sample_surface

LIMIT = 0.005
"""The page says that it is coarse, and the lattice is refined, where more than this is wrong at the 95 % quantile."""
FINER = 1.5
_FINE_SEGMENTS = 192


@dataclass(frozen=True)
class Spread:
    """Quantiles of relative errors; NaN where there is nothing to compare."""

    median: float
    p95: float
    max: float

    @classmethod
    def of(cls, errors: np.ndarray) -> "Spread":
        """Those of a sample."""
        if not len(errors):
            return cls(float("nan"), float("nan"), float("nan"))
        return cls(*(float(np.quantile(errors, q)) for q in (0.5, 0.95, 1.0)))


@dataclass(frozen=True)
class Accuracy:
    """The page's solver against the library's, on random pairs of latents.

    Attributes:
        pairs: how many pairs.
        compared: pairs that both solved; the quantiles are of these.
        converged: pairs that the page solved.
        exact: pairs that the library solved.
        length: ``|l_page / l - 1|`` of the length that the page states, with l the length of the shorter of both
            curves as the manifold measures it.
        curve: ``l(curve of the page) / l(geodesic) - 1``, both as the manifold measures them: how much longer the
            page's curve truly is. Where it is shorter, 0.
    """

    pairs: int
    compared: int
    converged: int
    exact: int
    length: Spread
    curve: Spread

    @property
    def fine(self) -> bool:
        """Whether 95 % of curves and lengths are right to half a per cent, and nine in ten pairs were solved."""
        return self.worst <= LIMIT

    @property
    def worst(self) -> float:
        """The larger of both 95 % quantiles; infinite where pairs were not solved that the library solved."""
        enough = self.compared >= 0.9 * max(1, self.exact) and self.compared > 0
        return max(self.length.p95, self.curve.p95) if enough else math.inf

    @property
    def sentence(self) -> str:
        """What the page says about itself."""
        if not self.compared:
            return (
                f"This map could not be checked: of {self.pairs} random pairs the page solved {self.converged} and the "
                f"exact solver {self.exact}, none of them the same."
            )
        length, median, curve = map(_percent, (self.length.p95, self.length.median, self.curve.p95))
        said = (
            f"For 95 % of {self.compared} random pairs, lengths read off this map are within {length} of the exact "
            f"ones (median {median}), and its curves are at most {curve} longer than the geodesics."
        )
        if self.compared < self.pairs:
            said += f" {self.pairs - self.compared} more pairs were not solved by both."
        return said if self.fine else f"Coarse map. {said}"

    def payload(self) -> dict[str, Any]:
        """``payload.accuracy`` of the page."""
        entries = asdict(self)
        for name in ("length", "curve"):
            # JSON has no NaN
            entries[name] = {k: v if np.isfinite(v) else None for k, v in entries[name].items()}
        return entries | {"sentence": self.sentence, "fine": self.fine}


def measure_accuracy(
    manifold: Manifold, surface: Surface, places: Float[Tensor, "n 2"], pairs: int = 64, seed: int = 0
) -> Accuracy:
    """Compares the page's curves with the library's on random pairs.

    Args:
        manifold: with two latents, the one that was sampled.
        surface: its surface.
        places: latents on the map, among which pairs are drawn; those outside usable cells are left out.
        pairs: how many.
        seed: of the draw.

    Raises:
        OptionError: there are fewer than two places on the surface.

    Cost: one geodesic of the library a pair, and 386 forward passes to measure two curves.
    """
    double = manifold.in_double()
    inside = places.double()[surface.inside(places.double())]
    if len(inside) < 2:
        raise OptionError(
            f"measure_accuracy: expected at least two latents on the map, got {len(inside)} of {len(places)} there. "
            "Give latents at which the decoder is finite."
        )
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(inside), (pairs,), generator=generator)
    # another one than the first
    second = (first + torch.randint(1, len(inside), (pairs,), generator=generator)) % len(inside)
    a, b = inside[first], inside[second]
    page = page_geodesics(surface, a, b)
    nodes, solved = _exact(double, a, b)
    with torch.no_grad():
        lengths = [_true_lengths(double, curve) for curve in (page.nodes, nodes)]
    both = page.converged & solved & torch.isfinite(lengths[0]) & torch.isfinite(lengths[1]) & (lengths[1] > 0)
    of_page, of_library = (values[both] for values in lengths)
    reference = torch.minimum(of_page, of_library)
    return Accuracy(
        pairs,
        int(both.sum()),
        int(page.converged.sum()),
        int(solved.sum()),
        Spread.of((page.length[both] / reference - 1).abs().numpy()),
        Spread.of((of_page / of_library - 1).clamp_min(0).numpy()),
    )


def sample_accurately(
    manifold: Manifold,
    x: Interval,
    y: Interval,
    places: Float[Tensor, "n 2"],
    *,
    side: int | None = None,
    pairs: int = 64,
    seed: int = 0,
    budget: int = 2_000_000,
    largest: int = 6_000_000,
) -> tuple[Surface, Accuracy]:
    """`sample_surface`, on finer lattices until the page is right to half a per cent for 95 % of random pairs.

    Args:
        manifold: with two latents; see `Slice.restrict`.
        x: the interval of the first latent.
        y: the interval of the second one.
        places: latents on the map.
        side: lattice nodes along the longer side to begin with.
        pairs: for the check.
        seed: of the check.
        budget: bytes of the first surface.
        largest: bytes that no refinement may exceed.

    Warns:
        CoarseMapWarning: that is not reached within ``largest`` bytes.
    """
    surface = sample_surface(manifold, x, y, side=side, budget=budget)
    found = measure_accuracy(manifold, surface, places, pairs, seed)
    trial, last = surface, found
    while not last.fine:
        finer = round(FINER * max(trial.nodes))
        if trial.bytes * FINER**2 > largest or finer > 3 * SURFACE.most:
            break
        trial = sample_surface(manifold, x, y, side=finer)
        again = measure_accuracy(manifold, trial, places, pairs, seed)
        gains = again.worst < 0.9 * last.worst
        if again.fine or again.worst < found.worst:
            surface, found = trial, again
        # a lattice far too coarse may look better than one less so; from some size on, kinks stay what they are
        if not gains and finer > SURFACE.most:
            break
        last = again
    if not found.fine:
        nodes = "x".join(map(str, surface.nodes))
        warnings.warn(
            f"viz.explore: {found.sentence} The lattice has {nodes} nodes and {surface.bytes / 1e6:.1f} MB. Show a "
            "smaller part of the latent space, or smooth the decoder's kinks; beside a server (pullgeo explore) "
            "geodesics are exact.",
            CoarseMapWarning,
            stacklevel=3,
        )
    return surface, found


def _exact(manifold: Manifold, a: Tensor, b: Tensor) -> tuple[Float[Tensor, "p n 2"], Bool[Tensor, " p"]]:
    """The library's curves, and which pairs it solved; a pair that it refuses does not take the others with it."""
    solver = Newton()
    try:
        solution = manifold.geodesic(at_home(manifold, a), at_home(manifold, b), solver)
    except (NonFiniteError, SingularMetricError):
        if len(a) == 1:
            return torch.stack([a, b], 1).repeat_interleave(2, 1)[:, :1].expand(
                1, solver.segments + 1, 2
            ), torch.tensor([False])
        half = len(a) // 2
        parts = [_exact(manifold, a[part], b[part]) for part in (slice(0, half), slice(half, None))]
        most = max(nodes.shape[1] for nodes, _ in parts) - 1
        return (
            torch.cat([DiscreteCurve(nodes).resample(most).nodes for nodes, _ in parts]),
            torch.cat([solved for _, solved in parts]),
        )
    return solution.curve.nodes.detach().double().cpu(), solution.converged.cpu()


def _true_lengths(manifold: Manifold, nodes: Float[Tensor, "p n 2"]) -> Float[Tensor, " p"]:
    """Lengths of cubic curves through the nodes, NaN where a curve meets places that the manifold does not know."""
    curve = DiscreteCurve(nodes)
    flat = flat_map(manifold)
    if flat is None:
        curves = (DiscreteCurve(at_home(manifold, part)) for part in nodes.split(8))
        return torch.cat([curve.length(manifold, _FINE_SEGMENTS).cpu() for curve in curves])
    points = curve(torch.linspace(0, 1, _FINE_SEGMENTS + 1, dtype=nodes.dtype))
    lengths = []
    for one in points:
        # outputs may be large: curve by curve, and once for both resolutions
        values = torch.cat([flat(part)[0] for part in one.split(64)])
        fine, coarse = (values[::every].diff(dim=0).norm(dim=1).sum() for every in (1, 2))
        lengths.append(fine + (fine - coarse) / 3)
    return torch.stack(lengths)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share >= 1e-5 else "0.001 %"
