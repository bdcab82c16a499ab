"""What the space that a decoder's outputs lie in has to state."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial, wraps
from typing import Any

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._repr import ShortRepr
from pullgeo._torch.own_functions import Remembering
from pullgeo._torch.transforms import vjp
from pullgeo.errors import OffManifoldError, OptionError, ShapeError
from pullgeo.geodesic.energy.ambient_segment import AmbientSegmentEnergy
from pullgeo.geodesic.energy.base import DiscreteEnergy, Expansion
from pullgeo.geodesic.energy.of_methods import NAMES, EnergyOfMethods
from pullgeo.jacobian.boundary import served
from pullgeo.jacobian.reverse import Reverse
from pullgeo.manifold.float64.convert import fits_single, in_double
from pullgeo.metric.base import Metric
from pullgeo.typing import Decoder

Decode = Callable[[Tensor], Tensor]
Expand = Callable[[Tensor], Expansion]


@dataclass(frozen=True, eq=False, kw_only=True)
class Ambient(ShortRepr, ABC):
    """A space with a metric tensor ``M(y)`` at every output y, as `PullbackManifold` uses it.

    Outputs keep the shape ``(b, *out)`` that the decoder gives them; their tangents are flat, ``(b, D)``. A subclass
    states the metric, on flat tangents; the rest follows from it by the midpoint rule and automatic differentiation,
    and is overridden where a closed form is known: `segment_energy`, `lowered_christoffel`. Where outputs may lie
    outside the space the metric is NaN there, or `check` is extended to refuse them by name. What a subclass depends
    on are the fields of a frozen dataclass, ``@dataclass(frozen=True, eq=False)``, without an ``__init__`` of its own.
    `pullgeo.testing.check_manifold`, of a pullback by any smooth decoder, compares all of it with the metric.

    Args:
        embedding: what a decoder's output goes through before it lies in this space, if anything.
        constraint: a geoopt manifold whose points the outputs must be.

    Example:
        >>> from dataclasses import dataclass
        >>> from pullgeo import PullbackManifold
        >>> from pullgeo.metric import Diagonal
        >>> @dataclass(frozen=True, eq=False)
        ... class UpperHalfSpace(Ambient):
        ...     curvature: float = -1.0
        ...
        ...     def metric(self, y):
        ...         height = torch.where(y[:, -1:] > 0, y[:, -1:], torch.nan)
        ...         return Diagonal((height.pow(-2) / -self.curvature).expand(y.shape))
        >>> upwards = PullbackManifold(torch.nn.Identity(), UpperHalfSpace())
        >>> a, b = torch.tensor([[0.0, 1.0]]).double(), torch.tensor([[0.0, 2.0]]).double()
        >>> torch.testing.assert_close(upwards.dist(a, b), torch.tensor([2.0]).double().log(), rtol=1e-6, atol=0)
    """

    embedding: Decoder | None = field(default=None)
    constraint: geoopt.Manifold | None = field(default=None)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let classes that state their energy by methods, without `discretise`, work for one release more."""
        super().__init_subclass__(**kwargs)
        stated = [name for name in (*NAMES, "slope") if name in vars(cls)]
        if stated and "discretise" not in vars(cls):
            warnings.warn(
                f"{cls.__name__}.{stated[0]}: a space now states its discrete energy by discretise(self, expand, "
                "decode), which returns an object with the methods energy, expand_energy and chord_lengths. Methods of "
                "the class itself are taken until the next release.",
                DeprecationWarning,
                stacklevel=3,
            )
            cls.discretise = _with_methods(cls.discretise)  # type: ignore[method-assign, assignment]
        if "bend" in vars(cls) and "lowered_christoffel" not in vars(cls):
            warnings.warn(f"{cls.__name__}.bend is now called lowered_christoffel.", DeprecationWarning, stacklevel=3)
            cls.lowered_christoffel = vars(cls)["bend"]  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return type(self).__name__

    @abstractmethod
    def metric(self, y: Float[Tensor, "b *out"]) -> Metric:
        """``M(y)`` on flat tangents; symmetric, and positive on those that outputs move along."""

    def checked_metric(self, y: Float[Tensor, "b *out"]) -> Metric:
        """``M(y)``, once it is known to be a metric.

        Raises:
            ShapeError: ``metric`` returned something else.
        """
        M = self.metric(y)
        if not isinstance(M, Metric):
            raise ShapeError(
                f"{type(self).__name__}.metric must return a pullgeo.metric.Metric for outputs {tuple(y.shape)}, got "
                f"{type(M).__name__}. Wrap matrices (b, D, D) as Dense(matrices), diagonals (b, D) as Diagonal(values)."
            )
        return M

    def segment_energy(self, a: Float[Tensor, "n *out"], b: Float[Tensor, "n *out"]) -> Float[Tensor, " n"]:
        """Squared lengths of short segments from a to b; here ``(b - a)ᵀ M((a + b)/2) (b - a)``, the midpoint rule.

        Must be the same from either end, twice differentiable where the ends coincide, and right up to the fourth power
        of the length.
        """
        step = (b - a).flatten(1)
        return (step * self.checked_metric((a + b) / 2).apply(step)).sum(-1)

    def lowered_christoffel(
        self, y: Float[Tensor, "b *out"], u: Float[Tensor, "b D"], w: Float[Tensor, "b D"]
    ) -> Float[Tensor, "b D"]:
        """``M Γ(u, w)``: the space's own connection, lowered: ``½ (∂_u M w + ∂_w M u - ∇(uᵀ M w))``."""
        return lowered_connection(lambda y, v: self.checked_metric(y).apply(v), y, u, w)

    def discretise(self, expand: Expand, decode: Decode) -> DiscreteEnergy:
        """The discrete energy of curves in the latent space.

        Args:
            expand: points ``(n, d)`` to the map to second order.
            decode: points ``(n, d)`` to outputs ``(n, *out)``.
        """
        return AmbientSegmentEnergy(self.segment_energy, self._squares, expand, decode)

    def in_double(self) -> "Ambient":
        """This space in float64, connected to the same parameters.

        Raises:
            OptionError: a subclass cannot be made from its fields.
        """
        entries = {f.name: getattr(self, f.name) for f in fields(self)}
        # what measures stays: a ball's curvature is the number that its float32 parameter gives in float32
        changed = {name: in_double(value) for name, value in entries.items() if name != "manifold"}
        try:
            return replace(self, **changed)
        except TypeError as error:
            raise OptionError(
                f"{type(self).__name__}.in_double: a space is made anew from its fields, which failed: {error}. Write "
                "the class as @dataclass(frozen=True, eq=False), with fields and without an __init__ of its own."
            ) from error

    @property
    def fits_single(self) -> bool:
        """Whether float32 outputs can be measured as well: no entry or parameter is in another precision."""
        return all(fits_single(getattr(self, f.name)) for f in fields(self))

    def check(self, y: Float[Tensor, "b *out"]) -> None:
        """Raise unless all finite outputs lie in this space.

        Raises:
            OffManifoldError: one does not.
        """
        if self.constraint is None:
            return
        finite = y.detach()[torch.isfinite(y.detach()).flatten(1).all(1)].double()
        if not len(finite):
            return
        good, reason = in_double(self.constraint).check_point_on_manifold(
            finite, atol=self._tolerance(finite), explain=True
        )
        if not good:
            raise OffManifoldError(
                f"PullbackManifold: the decoder's outputs, of shape {tuple(y.shape)}, are not points of "
                f"{type(self.constraint).__name__}: {reason}. {self.fix}"
            )

    @property
    def fix(self) -> str:
        """How a decoder is made to end on the constraint."""
        return "Append its projection: torch.nn.Sequential(decoder, pullgeo.manifold.ProjectOnto(manifold))."

    def _tolerance(self, y: Tensor) -> float:
        """How far from the constraint rounding in float32 may carry an output."""
        return 1e-5

    def _squares(self, y: Tensor, T: Tensor) -> Tensor:
        return self.checked_metric(y).quadratic(T)


Discretise = Callable[[Any, Expand, Decode], DiscreteEnergy]


def _with_methods(inherited: Discretise) -> Discretise:
    """A `discretise` that takes the methods of a space, which are given the decoder, where there are any."""

    @wraps(inherited)
    def discretise(self: Any, expand: Expand, decode: Decode) -> DiscreteEnergy:
        usual = inherited(self, expand, decode)
        names = [name for name in ("energy", "slope", "chord_lengths") if hasattr(self, name)]
        given: dict[str, Callable[..., Any]] = {name: partial(getattr(self, name), decode) for name in names}
        if hasattr(self, "expand_energy"):
            given["expand_energy"] = partial(self.expand_energy, expand, decode)
        energy, quadratic, lengths = (given.get(name, getattr(usual, name)) for name in NAMES)
        # the gradient of another energy is not that of this one
        gradient = given.get("slope", None if "energy" in given else getattr(usual, "slope", None))
        return EnergyOfMethods(energy, quadratic, lengths, gradient)

    return discretise


def lowered_connection(
    lower: Callable[[Tensor, Tensor], Tensor],
    y: Float[Tensor, "b *out"],
    u: Float[Tensor, "b D"],
    w: Float[Tensor, "b D"],
) -> Float[Tensor, "b D"]:
    """``M Γ(u, w) = ½ (∂_u M w + ∂_w M u - ∇(uᵀ M w))`` of any metric, by automatic differentiation.

    Args:
        lower: ``y, v -> M(y) v``, with M symmetric.
        y: points.
        u: flat tangent.
        w: flat tangent; the same tensor as u halves the work.
    """

    def along(v: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        def lowered(y: Tensor) -> Tensor:
            return lower(y, v)

        def transformed() -> Tensor:
            pull = vjp(lowered, y)[1]

            def slope(c: Tensor) -> Tensor:
                return pull(c)[0].flatten(1)

            # ∂_u M v as the transpose of c -> u·∇(cᵀ M v): reverse mode alone, much the faster on small tensors
            transposed = vjp(lambda c: (slope(c) * direction).sum(-1), torch.zeros_like(v))[1]
            return torch.stack([transposed(torch.ones_like(v[:, 0]))[0], slope(u)])

        def plainly() -> Tensor:
            run = Reverse(lowered, y)
            moved = run.push(direction.reshape(y.shape).unsqueeze(0)).squeeze(0)
            return torch.stack([moved, run.pull(u.unsqueeze(0)).squeeze(0).flatten(1)])

        with Remembering():
            derivative, slope = served(lowered, y, transformed, plainly)
        return derivative, slope

    along_u, slope = along(w, u)
    along_w = along_u if w is u else along(u, w)[0]
    return (along_u + along_w - slope) / 2
