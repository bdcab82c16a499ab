"""The two-dimensional planes of a latent space that a map can show."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from pullgeo.errors import NonFiniteError, OptionError, ShapeError
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.metric_manifold import MetricManifold
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.metric.base import Metric
from pullgeo.metric.structured import Dense
from pullgeo.typing import Decoder
from pullgeo.viz.batches import at_home

_WORDS = (
    "Curves are shortest within this plane: they are geodesics of the slice, and never shorter than the true "
    "ones in all "
    "{d} dimensions."
)


@dataclass(frozen=True, eq=False)
class Slice:
    """The plane ``z = origin + x axes[0] + y axes[1]``, in float64.

    Attributes:
        origin: a point of it.
        axes: two independent directions.
        names: what the map writes along x and y.
        kind: ``"everything"`` (d = 2), ``"dims"``, ``"components"`` or ``"points"``.
        words: what a reader has to know of the plane; ``None`` if it is everything.
        name: what `named` takes to give the plane again; ``None`` if only its numbers tell it.

    Example:
        >>> import torch
        >>> plane = Slice.of_dims(torch.zeros(3, 4), dims=(2, 0))
        >>> plane.lift(torch.tensor([[1.0, 5.0]])).tolist()
        [[5.0, 0.0, 1.0, 0.0]]
        >>> plane.project(torch.tensor([[5.0, 9.0, 1.0, 9.0]])).tolist()
        [[1.0, 5.0]]
    """

    origin: Float[Tensor, " d"]
    axes: Float[Tensor, "2 d"]
    names: tuple[str, str]
    kind: str
    words: str | None
    name: str | None = None

    @classmethod
    def named(cls, z: Float[Tensor, "n d"], name: str) -> "Slice":
        """The plane that a text names.

        Args:
            z: latents.
            name: ``"components"`` for the first two principal components, ``"components:0,2"`` for others,
                ``"dims:3,1"`` for two dimensions, or ``"latents:4,0,7"`` for the plane through three latents, by their
                rows. All count from 0.

        Raises:
            OptionError: the text is none of these, names what is not there, or latents that lie on a line.
            ShapeError: the latent space has one dimension, or there are fewer latents than components.

        Example:
            >>> z = torch.eye(4)
            >>> Slice.named(z, "dims:3,1").names
            ('z3', 'z1')
        """
        kind, colon, numbers = name.partition(":")
        entries = [part.strip() for part in numbers.split(",")]
        count = {"components": 2, "dims": 2, "latents": 3}.get(kind, 0)
        if name == "components":
            entries = ["0", "1"]
        elif not colon or len(entries) != count or not all(part.isascii() and part.isdecimal() for part in entries):
            raise OptionError(
                "plane must be 'components', or components:0,2, dims:3,1 or latents:4,0,7 with numbers of your own "
                f"that count from 0, got {name[:80]!r}."
            )
        chosen = [int(part[:9]) for part in entries]
        where = f"plane {name}"
        if kind == "components":
            return cls._of_components(where, z, (chosen[0], chosen[1]))
        if kind == "dims":
            return cls._of_dims(where, z, tuple(chosen))
        beyond = [row for row in chosen if row >= len(z)]
        if beyond:
            raise OptionError(f"{where}: there are {len(z)} latents, and none has the number {beyond[0]}.")
        return replace(cls._through(where, z[chosen]), name=f"latents:{','.join(map(str, chosen))}")

    @classmethod
    def of_dims(cls, z: Float[Tensor, "n d"], dims: Any = (0, 1), anchor: Any = None) -> "Slice":
        """The plane in which two coordinates vary; the others stay as they are in ``anchor``.

        Args:
            z: latents.
            dims: which two.
            anchor: a point ``(d,)`` of the plane; the mean of the latents if ``None``.

        Raises:
            ShapeError: the latent space has one dimension, or ``anchor`` is no point of it.
            OptionError: ``dims`` are not two different dimensions.
            NonFiniteError: ``anchor`` holds NaN or infinity.
        """
        return cls._of_dims("Slice.of_dims", z, dims, anchor)

    @classmethod
    def _of_dims(cls, where: str, z: Float[Tensor, "n d"], dims: Any, anchor: Any = None) -> "Slice":
        d = _dimension(z)
        entries = tuple(dims) if isinstance(dims, list | tuple) else ()
        whole = len(entries) == 2 and all(isinstance(k, int) and 0 <= k < d for k in entries)
        if not whole or entries[0] == entries[1]:
            raise OptionError(f"{where}: dims must be two different whole numbers from 0 to {d - 1}, got {dims!r}.")
        point = z.detach().double().mean(0) if anchor is None else _point(f"{where}: anchor", anchor, d)
        names = (f"z{entries[0]}", f"z{entries[1]}")
        axes = torch.eye(d, dtype=torch.float64)[list(entries)]
        origin = point.clone().cpu()
        origin[list(entries)] = 0.0
        if d == 2 and entries == (0, 1):
            return cls(origin, axes, names, "everything", None)
        held = "the other stays" if d == 3 else "the others stay"
        at = "as given" if anchor is not None else "at their mean"
        first = f"Dimensions {entries[0]} and {entries[1]} vary; {held} {at}. " if d > 2 else ""
        words = (first + _WORDS.format(d=d)) if d > 2 else None
        name = f"dims:{entries[0]},{entries[1]}" if anchor is None else None
        return cls(origin, axes, names, "dims", words, name)

    @classmethod
    def of_components(cls, z: Float[Tensor, "n d"], components: tuple[int, int] = (0, 1)) -> "Slice":
        """The plane through the mean of the latents along two of their principal components.

        Raises:
            ShapeError: the latent space has one dimension, or there are fewer latents than components.
            OptionError: ``components`` are not two different components.
            NonFiniteError: a latent is not finite.
        """
        return cls._of_components("Slice.of_components", z, components)

    @classmethod
    def _of_components(cls, where: str, z: Float[Tensor, "n d"], components: tuple[int, int]) -> "Slice":
        d = _dimension(z)
        first, second = components
        if first == second or not all(isinstance(k, int) and 0 <= k < d for k in components):
            raise OptionError(
                f"{where}: components must be two different whole numbers from 0 to {d - 1}, got {components!r}."
            )
        if len(z) <= max(components) + 1:
            raise ShapeError(f"{where}: expected more than {max(components) + 1} latents, got {tuple(z.shape)}.")
        points = z.detach().double().cpu()
        if not bool(torch.isfinite(points).all()):
            raise NonFiniteError(f"{where}: the latents hold NaN or infinity.")
        mean = points.mean(0)
        _, size, directions = torch.linalg.svd(points - mean, full_matrices=False)
        axes = directions[list(components)]
        # the sign of a component is arbitrary: its largest entry points up
        largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
        axes = axes * largest.sign()
        share = float(size[list(components)].square().sum() / size.square().sum())
        words = (
            f"Principal components {first + 1} and {second + 1} of the latents, with {share:.0%} of their variance. "
        )
        return cls(
            mean,
            axes,
            (f"PC {first + 1}", f"PC {second + 1}"),
            "components",
            words + _WORDS.format(d=d) if d > 2 else None,
            f"components:{first},{second}",
        )

    @classmethod
    def through(cls, points: Float[Tensor, "3 d"]) -> "Slice":
        """The plane through three latents; x goes from the first to the second, at the scale of the latent space.

        Raises:
            ShapeError: these are not three points.
            OptionError: they lie on a line.
            NonFiniteError: one is not finite.
        """
        return cls._through("Slice.through", points)

    @classmethod
    def _through(cls, where: str, points: Float[Tensor, "3 d"]) -> "Slice":
        d = _dimension(points)
        if points.shape != (3, d):
            raise ShapeError(f"{where}: expected three points, of shape (3, d), got {tuple(points.shape)}.")
        p, q, s = (_point(f"{where}: a point", row, d) for row in points)
        first = q - p
        second = s - p
        length = first.norm()
        rest = second - (second @ first) / first.square().sum().clamp_min(1e-300) * first
        if not float(length) > 0 or not float(rest.norm()) > 1e-5 * float(second.norm()):
            raise OptionError(f"{where}: the three latents lie on a line, and so on many planes. Choose another one.")
        axes = torch.stack([first / length, rest / rest.norm()])
        words = "The plane through three latents. " + _WORDS.format(d=d) if d > 2 else None
        return cls(p, axes, ("from the first to the second", "towards the third"), "points", words)

    def lift(self, xy: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b d"]:
        """The points of the latent space at places of the map."""
        return self.origin.to(xy.device) + xy.double() @ self.axes.to(xy.device)

    def project(self, z: Float[Tensor, "*b d"]) -> Float64[np.ndarray, "*b 2"]:
        """The places on the map that are nearest to points, in the latent space's own units."""
        inverse = torch.linalg.pinv(self.axes)
        return ((z.detach().double().cpu() - self.origin) @ inverse).numpy()

    def distance(self, z: Float[Tensor, "*b d"]) -> Float64[np.ndarray, "*b"]:
        """How far points are from the plane."""
        points = z.detach().double().cpu()
        return (points - self.lift(torch.as_tensor(self.project(z)))).norm(dim=-1).numpy()

    def restrict(self, manifold: Manifold) -> Manifold:
        """The plane as a manifold of its own with two latents x and y, in float64.

        Raises:
            OptionError: the manifold is neither a pullback nor given by its metric.
        """
        double = manifold.in_double()
        if self.kind == "everything":
            return double
        lift = nn.Linear(2, len(self.origin)).double().requires_grad_(False)
        lift.weight.copy_(self.axes.T)
        lift.bias.copy_(self.origin)
        lift.to(at_home(double, self.origin).device)
        if isinstance(double, PullbackManifold):
            return double.with_decoder(_composed(lift, double.decoder))
        if isinstance(double, MetricManifold):
            return MetricManifold(_SliceMetric(double.metric_fn, self.origin, self.axes))
        raise OptionError(
            f"Slice.restrict: manifold must be a PullbackManifold or a MetricManifold, got {type(manifold).__name__}."
        )

    def payload(self) -> dict[str, Any]:
        """What the page needs of it."""
        return {
            "origin": self.origin.tolist(),
            "axes": self.axes.tolist(),
            "names": list(self.names),
            "words": self.words,
            "kind": self.kind,
            "name": self.name,
            "dimensions": len(self.origin),
        }


class _Lifted(nn.Sequential):
    """A decoder module after the map from the plane; as a chain of modules, so that derivatives of layers are found."""


def _composed(lift: nn.Linear, decoder: Decoder) -> Decoder:
    return _Lifted(lift, decoder) if isinstance(decoder, nn.Module) else lambda xy: decoder(lift(xy))


def lifted_decoder(decoder: Decoder) -> tuple[nn.Module | None, Decoder]:
    """The map from the plane and the decoder that `Slice.restrict` composed; ``None`` and the decoder itself else."""
    return (decoder[0], decoder[1]) if isinstance(decoder, _Lifted) else (None, decoder)


class _SliceMetric:
    """``axes G(z) axesᵀ``."""

    def __init__(self, metric_fn: Any, origin: Tensor, axes: Tensor) -> None:
        self.metric_fn, self.origin, self.axes = metric_fn, origin, axes

    def __call__(self, xy: Tensor) -> Metric:
        G = self.metric_fn(self.origin.to(xy) + xy @ self.axes.to(xy))
        matrix = G.dense() if isinstance(G, Metric) else G
        return Dense(self.axes.to(xy) @ matrix @ self.axes.to(xy).T)


def _dimension(z: Tensor) -> int:
    if z.ndim != 2 or z.shape[1] < 2:
        raise ShapeError(f"Slice: a map needs latents (n, d) of at least 2 dimensions, got {tuple(z.shape)}.")
    return z.shape[1]


def _point(what: str, given: Any, d: int) -> Tensor:
    point = torch.as_tensor(given).detach().double().cpu()
    if point.shape != (d,):
        raise ShapeError(f"{what} must be one point of shape ({d},), got {tuple(point.shape)}.")
    if not bool(torch.isfinite(point).all()):
        raise NonFiniteError(f"{what} holds NaN or infinity: {point.tolist()}.")
    return point
