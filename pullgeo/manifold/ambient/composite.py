"""Ambient spaces from others: products, and the same space in another unit of length."""

from dataclasses import dataclass

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.manifold.ambient.base import Ambient
from pullgeo.metric.base import Metric


@dataclass(frozen=True, eq=False)
class Product(Ambient):
    """A product of spaces, each on its own coordinates of the output; squared lengths add up.

    Args:
        parts: the spaces.
        shapes: the shape of a point of each, in the order of the output's coordinates.
    """

    parts: tuple[Ambient, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __repr__(self) -> str:
        return " x ".join(map(repr, self.parts))

    def metric(self, y: Float[Tensor, "b D"]) -> "DirectSum":
        """The metrics of the parts, side by side."""
        return DirectSum(tuple(part.metric(own) for part, own in zip(self.parts, self._split(y), strict=True)), len(y))

    def segment_energy(self, a: Float[Tensor, "n D"], b: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        """The sum over the parts."""
        own = zip(self.parts, self._split(a), self._split(b), strict=True)
        return torch.stack([part.segment_energy(begin, end) for part, begin, end in own]).sum(0)

    def lowered_christoffel(
        self, y: Float[Tensor, "b D"], u: Float[Tensor, "b D"], w: Float[Tensor, "b D"]
    ) -> Float[Tensor, "b D"]:
        """Part by part."""
        own = zip(self.parts, self._split(y), self._split(u), self._split(w), strict=True)
        return torch.cat([part.lowered_christoffel(p, s.flatten(1), t.flatten(1)) for part, p, s, t in own], 1)

    def check(self, y: Float[Tensor, "b D"]) -> None:
        """Raise unless the parts can measure there."""
        super().check(y)
        for part, own in zip(self.parts, self._split(y), strict=True):
            part.check(own)

    def _split(self, y: Tensor) -> list[Tensor]:
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        return [own.unflatten(1, shape) for own, shape in zip(y.split(sizes, 1), self.shapes, strict=True)]


@dataclass(frozen=True, eq=False)
class Scaled(Ambient):
    """A space in which all lengths are those of another one times ``manifold.scale``."""

    base: Ambient
    manifold: geoopt.Scaled

    def metric(self, y: Float[Tensor, "b *out"]) -> Metric:
        """``scale² M(y)``."""
        return Multiple(self.base.metric(y), self._square(y))

    def segment_energy(self, a: Float[Tensor, "n *out"], b: Float[Tensor, "n *out"]) -> Float[Tensor, " n"]:
        """``scale²`` times that of the base."""
        return self._square(a) * self.base.segment_energy(a, b)

    def lowered_christoffel(
        self, y: Float[Tensor, "b *out"], u: Float[Tensor, "b D"], w: Float[Tensor, "b D"]
    ) -> Float[Tensor, "b D"]:
        """``scale²`` times that of the base."""
        return self._square(y) * self.base.lowered_christoffel(y, u, w)

    @property
    def fix(self) -> str:
        """That of the base."""
        return self.base.fix

    def _square(self, y: Tensor) -> Tensor:
        return self.manifold.scale.to(y.dtype).square()


@dataclass(frozen=True, eq=False)
class Times(Ambient):
    """A space whose metric tensor is that of another one times a positive number; lengths grow by its root."""

    base: Ambient
    factor: float

    def __repr__(self) -> str:
        return f"{self.factor:g} * {self.base}"

    def metric(self, y: Float[Tensor, "b *out"]) -> Metric:
        """``c M(y)``."""
        return Multiple(self.base.metric(y), torch.as_tensor(self.factor, dtype=y.dtype, device=y.device))

    def segment_energy(self, a: Float[Tensor, "n *out"], b: Float[Tensor, "n *out"]) -> Float[Tensor, " n"]:
        """``c`` times that of the base."""
        return self.factor * self.base.segment_energy(a, b)

    def lowered_christoffel(
        self, y: Float[Tensor, "b *out"], u: Float[Tensor, "b D"], w: Float[Tensor, "b D"]
    ) -> Float[Tensor, "b D"]:
        """``c`` times that of the base."""
        return self.factor * self.base.lowered_christoffel(y, u, w)

    def check(self, y: Float[Tensor, "b *out"]) -> None:
        """Raise unless the base can measure there."""
        self.base.check(y)


@dataclass(frozen=True, eq=False)
class DirectSum(Metric):
    """Metrics on successive coordinates, side by side, for a batch of ``batch`` points."""

    parts: tuple[Metric, ...]
    batch: int

    @property
    def dim(self) -> int:  # type: ignore[override]
        """The sum of the dimensions."""
        return sum(part.dim for part in self.parts)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parts."""
        return self.parts[0].dtype

    def apply(self, v: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """Part by part."""
        self._check("apply", v)
        split = v.split([part.dim for part in self.parts], -1)
        return torch.cat([part.apply(own) for part, own in zip(self.parts, split, strict=True)], -1)

    def dense(self) -> Float[Tensor, "b n n"]:
        """Block-diagonal matrices."""
        rows = torch.eye(self.dim, dtype=self.dtype, device=self.parts[0].diag().device)
        return self.apply(rows.unsqueeze(1).expand(self.dim, self.batch, self.dim)).transpose(0, 1)

    def diag(self) -> Float[Tensor, "b n"]:
        """The diagonals of the parts, one after the other."""
        return torch.cat([part.diag().expand(self.batch, -1) for part in self.parts], -1)


@dataclass(frozen=True, eq=False)
class Multiple(Metric):
    """``c M`` for a number c."""

    base: Metric
    number: Float[Tensor, ""]

    @property
    def dim(self) -> int:  # type: ignore[override]
        """That of M."""
        return self.base.dim

    @property
    def dtype(self) -> torch.dtype:
        """That of M."""
        return self.base.dtype

    def apply(self, v: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """``c M v``."""
        return self.number * self.base.apply(v)

    def dense(self) -> Float[Tensor, "*b n n"]:
        """The matrices."""
        return self.number * self.base.dense()

    def diag(self) -> Float[Tensor, "*b n"]:
        """Their diagonals."""
        return self.number * self.base.diag()
