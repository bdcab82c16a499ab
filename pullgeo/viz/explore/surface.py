"""The decoder as a spline surface: what a page carries, so that it can measure and solve by itself.

For two latents (or a plane of more) the decoder, up to the flat space that measures, is a surface in R^D. Its values on
a lattice, in r principal components and as coefficients of cubic splines, are all that a page needs: the metric is the
pullback of these splines, plus what the components left out contribute to it, ``R = Jᵀ(I - VVᵀ)J``, splined as well. A
manifold without a flat embedding (a given metric, a curved ambient space) has r = 0, and R is its whole metric.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.errors import NonFiniteError, OptionError
from pullgeo.manifold.ambient.base import Ambient
from pullgeo.manifold.ambient.composite import DirectSum, Scaled
from pullgeo.manifold.ambient.flat import Flat
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.metric.structured import Dense, Identity
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.chunking import OUTPUTS, POINTS
from pullgeo.numerics.progress import counted
from pullgeo.viz.batches import at_home
from pullgeo.viz.explore.packing import packed
from pullgeo.viz.explore.splines import Spline, filled, spline_coefficients

Interval = tuple[float, float]


@dataclass(frozen=True)
class SurfaceSettings:
    """How much of a decoder a page carries.

    Attributes:
        components: the most components that a surface has; the metric of all others is carried beside them.
        value_share: share of the outputs' variance that may be left out: one per cent of their standard deviation.
        derivative_share: share of the derivatives' energy that may be left to R. Set by hand.
        rest_share: below this share of the metric R is left out: lengths then are right to half of it.
        rest_side: nodes a side at which R is computed. Set by hand.
        few: up to so many components are carried in single precision; more of them in 16 bits each.
        fewest: lattice nodes along the longer side at least. Set by hand.
        most: lattice nodes along the longer side, unless the budget is raised. Set by hand.
        coarse: nodes a side of the lattice at which components are sought. Set by hand.
    """

    components: int = 160
    value_share: float = 1e-4
    derivative_share: float = 2e-3
    rest_share: float = 1e-7
    rest_side: int = 48
    few: int = 12
    fewest: int = 48
    most: int = 128
    coarse: int = 25


SURFACE = SurfaceSettings()


@dataclass(frozen=True, eq=False)
class Surface:
    """A surface as the page has it: coefficients are those that the payload holds, to the last bit.

    Attributes:
        x: the interval of the map's first coordinate.
        y: the interval of the second one.
        levels: ``(nx + 2, ny + 2, r)`` coefficients in units of their component's scale: 16-bit integers, or floats.
        scale: ``(r,)``, in the unit of the output.
        rest: ``(nx + 2, ny + 2, 3)``: E, F, G of R in units of ``rest_scale``, or p, m, s (``rest_kind``); ``None``
            where it is negligible.
        rest_scale: three numbers.
        rest_kind: ``"linear"``: R itself, in half precision; ``"log"``: E = eᵖ, F = eᵖ m, G = eᵖ m² + eˢ.
        usable: the cells all of whose corners are finite.
        mean: ``(D,)``, what outputs are told apart from; empty without outputs.
        basis: ``(r, D)`` orthonormal components.
        shares: shares of the outputs' variance and of the derivatives' energy that the components leave out.
    """

    x: Interval
    y: Interval
    levels: np.ndarray
    scale: np.ndarray
    rest: np.ndarray | None
    rest_scale: np.ndarray
    rest_kind: str
    usable: Bool[np.ndarray, "cx cy"]
    mean: np.ndarray
    basis: np.ndarray
    shares: tuple[float, float]

    @property
    def components(self) -> int:
        """The number r of coordinates."""
        return len(self.scale)

    @property
    def nodes(self) -> tuple[int, int]:
        """Lattice nodes along x and y."""
        source = self.levels if self.rest is None else self.rest
        return source.shape[0] - 2, source.shape[1] - 2

    @property
    def coordinates(self) -> Spline:
        """c as a torch module, as the page evaluates it: single precision coefficients, double precision sums."""
        values = self.levels.astype(np.float64) * self.scale
        return Spline(values.astype(np.float32), self.x, self.y)

    @property
    def rest_map(self) -> "RestMap | None":
        """R as a torch module, as the page evaluates it."""
        if self.rest is None:
            return None
        values = self.rest.astype(np.float64) * self.rest_scale
        return RestMap(Spline(values.astype(np.float32), self.x, self.y), self.rest_kind == "log")

    @property
    def manifold(self) -> PullbackManifold:
        """The surface as a manifold with the latents (x, y): what the page's geometry is the geometry of."""
        rest = self.rest_map
        if rest is None:
            return PullbackManifold(self.coordinates)
        coordinates = self.coordinates
        return PullbackManifold(lambda xy: torch.cat([coordinates(xy), xy], 1), _Beside(self.components, rest))

    def inside(self, xy: Float[Tensor, "b 2"]) -> Bool[Tensor, " b"]:
        """Whether places lie in a usable cell."""
        nx, ny = self.nodes
        low, high = (torch.tensor(ends, dtype=torch.float64) for ends in zip(self.x, self.y, strict=True))
        per = torch.tensor([nx - 1, ny - 1]) / (high - low)
        within = ((xy >= low) & (xy <= high)).all(-1)
        cell = torch.nan_to_num((xy - low) * per).floor().long().clamp_min(0)
        cell = torch.minimum(cell, torch.tensor([nx - 2, ny - 2]))
        return within & torch.from_numpy(self.usable)[cell[..., 0], cell[..., 1]]

    def payload(self) -> dict[str, Any]:
        """``payload.surface`` of the page."""
        rest = None
        if self.rest is not None:
            rest = {"kind": self.rest_kind, "scale": self.rest_scale.tolist(), "data": packed(self.rest)}
        blocks = []
        if self.components:
            blocks = [{"count": self.components, "scale": self.scale.tolist(), "data": packed(self.levels)}]
        return {
            "x": list(self.x),
            "y": list(self.y),
            "nodes": list(self.nodes),
            "r": self.components,
            "blocks": blocks,
            "rest": rest,
            "mask": None if self.usable.all() else packed(self.usable.astype(np.uint8)),
        }

    def decode_payload(
        self, own: bool = False, linear: Callable[[Float[Tensor, "*b D"]], Float[Tensor, "*b K"]] | None = None
    ) -> dict[str, Any]:
        """What ``payload.decode`` needs so that the page can decode: mean and components of the outputs.

        Args:
            own: whether this surface is not the one that the page measures with, and has to be shipped as well.
            linear: a linear map of the outputs, of which the result is shown; outputs themselves if ``None``.
        """
        if not self.components:
            return {"D": 0}
        mean, basis = torch.from_numpy(self.mean), torch.from_numpy(self.basis)
        if linear is not None:
            mean, basis = linear(mean), linear(basis)
        size = basis.abs().amax(1, keepdim=True).clamp_min(1e-300)
        # a component's entries in steps of its largest: 16 bits where that is cheap
        kind, steps = (np.int16, 32767) if basis.numel() <= 2**18 else (np.int8, 127)
        levels = torch.round(basis / size * steps).numpy().astype(kind)
        return {
            "D": len(mean),
            "mean": packed(mean.numpy().astype(np.float32)),
            "basis": {"scale": (size.flatten() / steps).tolist(), "data": packed(levels)},
            "own": self.payload() if own else None,
        }

    def decode(self, xy: Float[Tensor, "b 2"]) -> Float[Tensor, "b D"]:
        """The outputs at places as the page decodes them, up to the rounding of the components."""
        return self.coordinates(xy) @ torch.from_numpy(self.basis) + torch.from_numpy(self.mean)

    @property
    def bytes(self) -> int:
        """Size of the coefficients, before base64 makes them a third longer."""
        return self.levels.nbytes + (0 if self.rest is None else self.rest.nbytes)


class RestMap(torch.nn.Module):
    """R as matrices ``(b, 2, 2)``."""

    def __init__(self, spline: Spline, logarithmic: bool) -> None:
        super().__init__()
        self.spline = spline
        self.logarithmic = logarithmic

    def forward(self, xy: Float[Tensor, "b 2"]) -> Float[Tensor, "b 2 2"]:
        """The matrices."""
        first, second, third = self.spline(xy).unbind(-1)
        if self.logarithmic:
            E = torch.exp(first)
            first, second, third = E, E * second, E * second.square() + torch.exp(third)
        return torch.stack([torch.stack([first, second], -1), torch.stack([second, third], -1)], -2)


@dataclass(frozen=True, eq=False)
class _Beside(Ambient):
    """R^r with a metric R(x, y) on two further coordinates."""

    components: int
    rest: Callable[[Tensor], Tensor]

    def metric(self, y: Float[Tensor, "b D"]) -> DirectSum:
        """``diag(I, R)``."""
        return DirectSum((Identity(self.components, y.dtype, y.device), Dense(self.rest(y[:, -2:]))), len(y))


_LARGEST = 1e37
"""A map holds numbers in single precision, and those of its splines are somewhat larger than the outputs."""


def lattice_of(x: Interval, y: Interval, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes along x and y, ``side`` along the longer one; at least a third of it along the other."""
    wide, high = x[1] - x[0], y[1] - y[0]
    longest = max(wide, high)
    nx, ny = (max(math.ceil(side / 3), round(side * span / longest), 8) for span in (wide, high))
    return np.linspace(*x, nx), np.linspace(*y, ny)


def sample_surface(
    manifold: Manifold,
    x: Interval,
    y: Interval,
    *,
    side: int | None = None,
    components: int = SURFACE.components,
    budget: int = 2_000_000,
) -> Surface:
    """Samples a manifold of two latents over a rectangle.

    Outputs are evaluated on a coarse lattice first, with their derivatives; both choose the components, as many as
    leave out a ten-thousandth of the outputs' variance and two thousandths of the derivatives' energy. Then all nodes
    follow, in batches, in float64 and without a graph. Nodes at which the output is not finite empty the cells around
    them.

    Args:
        manifold: with two latents; see `Slice.restrict`.
        x: the interval of the first latent.
        y: the interval of the second one.
        side: lattice nodes along the longer side; if ``None``, from 48 to 128 as the budget allows.
        components: the most components.
        budget: bytes that the coefficients may take.

    Raises:
        NonFiniteError: there is no place where the decoder is finite.
        OptionError: ``side`` or ``components`` is too small.

    Cost: a forward pass for each node, and two tangent passes for at most 48² + 25² of them.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> torus = PullbackManifold(lambda z: torch.cat([z.cos(), z.sin()], 1))
        >>> surface = sample_surface(torus, (-2.0, 2.0), (-1.0, 1.0), side=32)
        >>> surface.nodes, surface.components
        ((32, 16), 4)
        >>> G = surface.manifold.metric(torch.tensor([[0.3, 0.4]], dtype=torch.float64)).dense()
        >>> bool((G - torch.eye(2)).abs().max() < 1e-3)
        True
    """
    if side is not None and side < 8:
        raise OptionError(f"sample_surface: side must be at least 8, got {side}.")
    if components < 1:
        raise OptionError(f"sample_surface: components must be at least 1, got {components}.")
    double = manifold.in_double()
    flat = flat_map(double)
    with torch.no_grad():
        if flat is None:
            return sample_metric(double, x, y, side or SURFACE.most)
        return _of_map(double, flat, x, y, side, components, budget)


FlatMap = Callable[[Tensor], tuple[Tensor, Callable[[], Tensor]]]
"""Places to flat outputs ``(b, D)`` in the flat space that measures, and to a function for tangents ``(2, b, D)``."""


def flat_map(manifold: Manifold) -> FlatMap | None:
    """The map whose Euclidean pullback a manifold is, with its tangents; ``None`` if it is none as far as is known."""
    if not isinstance(manifold, PullbackManifold):
        return None
    ambient = manifold.ambient
    factor = 1.0
    while isinstance(ambient, Scaled):
        factor *= float(ambient.manifold.scale)
        ambient = ambient.base
    if not isinstance(ambient, Flat):
        return None
    root = None if ambient.matrix is None else ambient.matrix.root().double()

    def measured(values: Tensor) -> Tensor:
        return (factor * (values if root is None else values @ root)).cpu()

    def at(xy: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
        there = manifold.expand(at_home(manifold, xy))
        nothing = torch.zeros_like(there.value)
        return measured(there.value), lambda: measured(there.derivatives(nothing)[0])

    return at


def outputs_map(decode: Callable[[Tensor], Tensor]) -> FlatMap:
    """Any function of places as a map without tangents, for what is shown and not measured."""

    def at(xy: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
        values = decode(xy).double().flatten(1).cpu()
        return values, lambda: values.new_zeros(2, *values.shape)

    return at


def sample_outputs(
    decode: Callable[[Tensor], Tensor], x: Interval, y: Interval, *, side: int = 64, components: int = 64
) -> Surface:
    """A surface of what is shown where that is not what measures: pictures of a `render`, means of a stacked map.

    Args:
        decode: places ``(b, 2)`` in float64 to outputs ``(b, *out)``.
        x: the interval of the first coordinate.
        y: the interval of the second one.
        side: lattice nodes along the longer side.
        components: the most components.

    Raises:
        NonFiniteError: there is no place where the outputs are finite.
    """
    with torch.no_grad():
        return _of_map(None, outputs_map(decode), x, y, side, components, 2**62)


def _of_map(
    manifold: Manifold | None, flat: FlatMap, x: Interval, y: Interval, side: int | None, most: int, budget: int
) -> Surface:
    coarse = _places(*lattice_of(x, y, SURFACE.coarse))
    F, J = _evaluated(flat, coarse, tangents=manifold is not None)
    mean, basis, shares = _components(F, J, (x[1] - x[0], y[1] - y[0]), most)
    r = len(basis)
    if side is None:
        aspect = len(coarse) / SURFACE.coarse**2
        side = int(min(SURFACE.most, max(SURFACE.fewest, math.sqrt(budget / (2 * r * aspect)))))
    gx, gy = lattice_of(x, y, side)
    shape = (len(gx), len(gy))
    projected = _projected(flat, _places(gx, gy), mean, basis)
    there = (np.abs(projected) < _LARGEST).all(1).reshape(shape)
    if not there.any():
        raise NonFiniteError(
            f"viz.explore: the decoder returned NaN, infinity or more than {_LARGEST:.0e}, which a map cannot hold, at "
            f"all {there.size} places of x in {x}, y in {y}. Check its weights, and that the map lies where it was "
            "trained."
        )
    coefficients = spline_coefficients(filled(np.nan_to_num(projected, posinf=0, neginf=0).reshape(*shape, r), there))
    if r <= SURFACE.few:
        scale, levels = np.ones(r), coefficients.astype(np.float32)
    else:
        scale = np.abs(coefficients).max((0, 1)) / 32767
        scale[scale == 0] = 1.0
        levels = np.round(coefficients / scale).astype(np.int16)
    packed_rest, rest_scale = None, np.ones(3)
    if shares[1] > SURFACE.rest_share:
        values = spline_coefficients(_left_out(flat, basis, gx, gy))
        size = np.abs(values).max()
        if size > 0:
            # half precision has few exponents: one is the largest
            rest_scale = np.full(3, size)
            packed_rest = (values / size).astype(np.float16)
    return Surface(
        x, y, levels, scale, packed_rest, rest_scale, "linear", _cells(there), mean.numpy(), basis.numpy(), shares
    )


def sample_metric(manifold: Manifold, x: Interval, y: Interval, side: int) -> Surface:
    """A surface without coordinates, whose R is the metric of a manifold of two latents: three numbers a node.

    Raises:
        NonFiniteError: there is no place where the metric is finite and positive.
    """
    gx, gy = lattice_of(x, y, side)
    places = _places(gx, gy)

    def metric(z: Tensor) -> Tensor:
        return manifold.metric(at_home(manifold, z)).dense().cpu()

    G = torch.cat([where_defined(metric, (2, 2), part) for part in places.split(1024)]).double().numpy()
    E, F, H = G[:, 0, 0], (G[:, 0, 1] + G[:, 1, 0]) / 2, G[:, 1, 1]
    with np.errstate(all="ignore"):
        positive = np.isfinite(G).all((1, 2)) & (E > 0) & (E * H - F**2 > 0)
        values = np.stack([np.log(E), F / E, np.log(H - F**2 / E)], -1)
    known = positive & np.isfinite(values).all(-1)
    shape = (len(gx), len(gy))
    there = known.reshape(shape)
    if not there.any():
        raise NonFiniteError(
            f"viz.explore: the metric is finite and positive nowhere with x in {x}, y in {y}. Check the manifold, and "
            "that the map lies where it is meant for."
        )
    values[~known] = 0.0
    rest = spline_coefficients(filled(values.reshape(*shape, 3), there)).astype(np.float32)
    empty = np.zeros((shape[0] + 2, shape[1] + 2, 0), dtype=np.int16)
    nothing = np.zeros(0)
    return Surface(x, y, empty, nothing, rest, np.ones(3), "log", _cells(there), nothing, np.zeros((0, 0)), (0.0, 1.0))


def _places(gx: np.ndarray, gy: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(np.meshgrid(gx, gy, indexing="ij"), -1).reshape(-1, 2))


def _cells(known: Bool[np.ndarray, "nx ny"]) -> Bool[np.ndarray, "cx cy"]:
    return known[1:, 1:] & known[:-1, 1:] & known[1:, :-1] & known[:-1, :-1]


def _evaluated(flat: FlatMap, places: Tensor, *, tangents: bool) -> tuple[Tensor, Tensor]:
    """Finite outputs ``(n, D)`` of a coarse lattice and their tangents ``(2, n, D)``."""
    values, along = [], []
    for part in counted(_parts(flat, places)):
        y, J = flat(part)
        good = (y.abs() < _LARGEST).all(1)
        T = J() if tangents else y.new_zeros(2, *y.shape)
        good &= torch.isfinite(T).all(2).all(0)
        values.append(y[good])
        along.append(T[:, good])
    F = torch.cat(values)
    if not len(F):
        raise NonFiniteError(
            f"viz.explore: the decoder returned NaN, infinity or more than {_LARGEST:.0e}, which a map cannot hold, at "
            f"all of {len(places)} places between {places[0].tolist()} and {places[-1].tolist()}. Check its "
            "weights, and that the map lies where it was trained."
        )
    return F, torch.cat(along, 1)


def _parts(flat: FlatMap, places: Tensor) -> tuple[Tensor, ...]:
    """Batches that suit the size of the outputs."""
    size = flat(places[:1].clone())[0].numel()
    rows = min(POINTS.limit, OUTPUTS.rows(6 * size))
    return tuple(part.clone() for part in places.split(rows))


def _components(
    F: Tensor, J: Tensor, spans: tuple[float, float], most: int
) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Mean, orthonormal rows, and the shares of variance and of derivatives that they leave out.

    The principal components of outputs and derivatives together, each with the same total energy: components of the
    outputs alone would drop small but steep ones.
    """
    mean = F.mean(0)
    F = F - mean
    # derivatives against the extent of the map: neither axis counts more for its unit
    T = torch.cat([J[0] * spans[0], J[1] * spans[1]])
    value_energy, slope_energy = float(F.square().sum()), float(T.square().sum())
    parts = [part / energy**0.5 for part, energy in ((F, value_energy), (T, slope_energy)) if energy > 0]
    if not parts:
        # a constant decoder: one component, which is zero
        return mean, torch.eye(1, len(mean), dtype=torch.float64), (0.0, 0.0)
    stacked = torch.cat(parts)
    if stacked.shape[1] <= len(stacked):
        vectors = torch.linalg.eigh(stacked.T @ stacked)[1].flip(1)[:, :most].T
    else:
        values, left = torch.linalg.eigh(stacked @ stacked.T)
        kept = values.flip(0)[:most].clamp_min(0)
        kept = kept[kept > 1e-12 * kept[0]]
        vectors = torch.linalg.qr((left.flip(1)[:, : len(kept)].T @ stacked).T)[0].T
    left_out = []
    for part, energy in ((F, value_energy), (T, slope_energy)):
        shares = (part @ vectors.T).square().sum(0).cumsum(0) / energy if energy > 0 else torch.ones(len(vectors))
        left_out.append((1 - shares).clamp_min(0))
    enough = (left_out[0] <= SURFACE.value_share) & (left_out[1] <= SURFACE.derivative_share)
    r = int(enough.nonzero()[0]) + 1 if bool(enough.any()) else len(vectors)
    if len(mean) <= 3:
        r = len(vectors)
    return mean, vectors[:r].contiguous(), (float(left_out[0][r - 1]), float(left_out[1][r - 1]))


def _projected(flat: FlatMap, places: Tensor, mean: Tensor, basis: Tensor) -> np.ndarray:
    """Components of the outputs at all nodes."""
    return torch.cat([(flat(part)[0] - mean) @ basis.T for part in _parts(flat, places)]).numpy()


def _left_out(flat: FlatMap, basis: Tensor, gx: np.ndarray, gy: np.ndarray) -> np.ndarray:
    """E, F, G of ``R = Jᵀ(I - VVᵀ)J`` at all nodes, from those at up to `SURFACE.rest_side` nodes a side.

    R is a small part of the metric, and tangents cost several times what outputs do.
    """
    nx, ny = (min(len(g), SURFACE.rest_side) for g in (gx, gy))
    own = np.linspace(gx[0], gx[-1], nx), np.linspace(gy[0], gy[-1], ny)
    parts = []
    for part in _parts(flat, _places(*own)):
        T = flat(part)[1]()
        inner = T @ basis.T
        R = [(T[a] * T[b]).sum(-1) - (inner[a] * inner[b]).sum(-1) for a, b in ((0, 0), (0, 1), (1, 1))]
        parts.append(torch.stack(R, -1))
    values = torch.cat(parts).numpy().reshape(nx, ny, 3)
    known = np.isfinite(values).all(-1)
    if not known.any():
        return np.zeros((len(gx), len(gy), 3))
    whole = filled(np.where(known[..., None], values, 0.0), known)
    if (nx, ny) == (len(gx), len(gy)):
        return whole
    spline = Spline(spline_coefficients(whole), (gx[0], gx[-1]), (gy[0], gy[-1]))
    return spline(_places(gx, gy)).numpy().reshape(len(gx), len(gy), 3)
