"""Metrics that come with a structured root, and travel through maps as roots."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import SingularMetricError
from pullgeo.jacobian import Elementwise, Jacobian, LinearKind, Reshape, Signature, compose, flat, gram
from pullgeo.metric import Diagonal, Identity, Metric, pullback_rule


class RootMetric(Metric):
    """``M = R Rᵀ`` with a root ``R`` that is a map of its own and is never multiplied out."""

    @property
    @abstractmethod
    def root_map(self) -> Jacobian:
        """``R``, from r coordinates to the space in which the metric lives, whose shape it may keep."""

    def root(self) -> Float[Tensor, "b n r"]:
        """``R`` as matrices."""
        return self.root_map.dense()


@dataclass(frozen=True, eq=False)
class PulledRoot(RootMetric):
    """``Jᵀ R Rᵀ J``, held as ``J`` and ``R``: tangents end in the coordinates of the root, cotangents start there.

    Args:
        J: the map through which the metric came.
        R: the root of the metric on its other side.
    """

    J: Jacobian
    R: Jacobian

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Dimension of the side it lives on."""
        return self.J.signature.n_in

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the Jacobian."""
        return self.J.signature.dtype

    @property
    def root_map(self) -> Jacobian:
        """``Jᵀ R``."""
        return compose([self.R, self._between, self.J.T])

    def apply(self, v: Float[Tensor, "*k b n"]) -> Float[Tensor, "*k b n"]:
        """``Jᵀ R Rᵀ J v``. Cost: one push and one pull for each of the k."""
        self._check("apply", v)
        pushed = self._push(_stack(v))
        return self._pull(pushed).reshape(v.shape)

    def inner(self, u: Float[Tensor, "*k b n"], v: Float[Tensor, "*k b n"]) -> Float[Tensor, "*k b"]:
        """``(Rᵀ J u)ᵀ (Rᵀ J v)``. Cost: one push for u and one for v, no pull."""
        self._check("inner", u)
        self._check("inner", v)
        pushed_u = self._push(_stack(u))
        pushed_v = pushed_u if v is u else self._push(_stack(v))
        return (flat(pushed_u) * flat(pushed_v)).sum(-1).reshape(u.shape[:-1])

    def gram(self, T: Float[Tensor, "k b n"]) -> Float[Tensor, "b k k"]:
        """``(Rᵀ J T_i)ᵀ (Rᵀ J T_j)``. Cost: k pushes."""
        self._check("gram", T)
        pushed = self._push(T)
        return gram(pushed, pushed)

    def quadratic(self, T: Float[Tensor, "k b n"]) -> Float[Tensor, "k b"]:
        """``‖Rᵀ J T_i‖²``. Cost: k pushes, in chunks."""
        self._check("quadratic", T)
        parts = [flat(self._push(T[part])).square().sum(-1) for part in self._chunks(len(T))]
        return torch.cat(parts) if parts else T.new_zeros(0, T.shape[1])

    def dense(self) -> Float[Tensor, "b n n"]:
        """The matrices. Cost: min(n_in, r) passes and one contraction."""
        s = self.J.signature
        if s.n_in <= self.R.signature.n_in:
            return self.gram(flat(s.in_basis()))
        columns = self._columns(slice(None))
        return self.J.pull_outer(columns, columns)

    def diag(self) -> Float[Tensor, "b n"]:
        """The diagonals, exactly. Cost: min(n_in, r) passes, in chunks; no matrix is formed, nor r columns of it."""
        s = self.J.signature
        if s.n_in <= self.R.signature.n_in:
            return self.quadratic(flat(s.in_basis())).T
        total = torch.zeros(s.batch, s.n_in, dtype=s.dtype, device=s.device)
        for part in self._chunks(self.R.signature.n_in):
            columns = self._columns(part)
            total = total + flat(self.J.pull_diag(columns, columns).unsqueeze(0)).squeeze(0)
        return total

    def root(self) -> Float[Tensor, "b n r"]:
        """``Jᵀ R``. Cost: r pulls."""
        pulled = self.J.pull(self._columns(slice(None)))
        return flat(pulled).permute(1, 2, 0)

    @property
    def terms(self) -> int:
        """How many terms `factors` has in all."""
        return self.R.signature.n_in

    def factors(self, part: slice) -> tuple[Float[Tensor, "k b *y"], Float[Tensor, "k b *y"]]:
        """Columns of the root, as cotangents where ``J`` ends, twice: ``R Rᵀ`` is the sum of their products."""
        columns = self._columns(part)
        return columns, columns

    def _columns(self, part: slice) -> Tensor:
        """Columns of the root, as cotangents where ``J`` ends."""
        return self._between.push(self.R.push(self.R.signature.in_basis()[part]))

    def _push(self, T: Tensor) -> Tensor:
        pushed = self.J.push(T.reshape(*T.shape[:2], *self.J.signature.in_shape))
        return self.R.pull(self._between.pull(pushed))

    def _pull(self, W: Tensor) -> Tensor:
        return flat(self.J.pull(self._between.push(self.R.push(W))))

    def _chunks(self, k: int) -> list[slice]:
        s = self.J.signature
        return list(self.J.parts(k, max(s.n_out, self.R.signature.n_in) * s.batch * s.dtype.itemsize))

    @property
    def _between(self) -> Reshape:
        s, r = self.J.signature, self.R.signature
        return Reshape(Signature(s.batch, r.out_shape, s.out_shape, s.dtype, s.device))


@pullback_rule(Jacobian, RootMetric)  # type: ignore[type-abstract]
def pulled_root(J: Jacobian, M: RootMetric) -> PulledRoot:
    """``Jᵀ R``: what has a structured root keeps it."""
    return PulledRoot(J, M.root_map)


@dataclass(frozen=True, eq=False)
class Columns(LinearKind):
    """A map given by its columns: ``T ↦ Σ_r T_r W_r``.

    Args:
        stack: the columns ``W``, ``(r, b, *y)``.
    """

    stack: Float[Tensor, "r b *y"]

    @property
    def signature(self) -> Signature:  # type: ignore[override]
        """``(r,) -> (*y)``."""
        W = self.stack
        return Signature(W.shape[1], (len(W),), tuple(W.shape[2:]), W.dtype, W.device)

    def push(self, T: Float[Tensor, "k b r"]) -> Float[Tensor, "k b *y"]:
        """``Σ_r T_r W_r``."""
        return torch.einsum("kbr,rb...->kb...", T, self.stack)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b r"]:
        """``⟨W_r, W⟩``."""
        return torch.einsum("kbn,rbn->kbr", flat(W), flat(self.stack))


def root_map(M: Metric, batch: int) -> Jacobian:
    """A root of a metric, as structured as the metric is.

    Args:
        M: symmetric and positive.
        batch: number of points, for a metric that is the same at all of them.

    Raises:
        SingularMetricError: it has no root, or is singular and does not know one.
    """
    if isinstance(M, RootMetric):
        return M.root_map
    if isinstance(M, Identity | Diagonal):
        return Elementwise(_root(M.diag()).expand(batch, M.dim))
    return Columns(M.root().expand(batch, -1, -1).permute(2, 0, 1))


def _root(values: Tensor) -> Tensor:
    """The square root, whose derivative is taken to be zero at zero: where a variance underflows, not infinite."""
    if bool((values < 0).any()):
        raise SingularMetricError("root_map: a diagonal entry is negative, so the metric has no real root.")
    zero = values == 0
    return torch.where(zero, values, torch.where(zero, torch.ones_like(values), values).sqrt())


def _stack(v: Tensor) -> Tensor:
    return v.reshape(v.shape[:-2].numel(), *v.shape[-2:])
