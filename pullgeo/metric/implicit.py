"""A metric given by a map and the metric on its other side."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian import Jacobian, chunks
from pullgeo.metric.base import Metric, pullback_rule
from pullgeo.metric.structured import Dense, Diagonal, Identity


@dataclass(frozen=True, eq=False)
class Implicit(Metric):
    """``Jᵀ M J``, held as ``J`` and ``M``; nothing is multiplied out before it is asked for.

    A pushed-forward metric is one of these with the transposed map. Direction is chosen by cost: n tangents are
    pushed, or as many cotangents pulled as the other side has dimensions, whichever are fewer.
    """

    J: Jacobian
    M: Metric

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Dimension of the side it lives on."""
        return self.J.signature.n_in

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the Jacobian."""
        return self.J.signature.dtype

    def apply(self, v: Float[Tensor, "*k b n"]) -> Float[Tensor, "*k b n"]:
        """``Jᵀ M J v``. Cost: one push and one pull for each of the k."""
        self._check("apply", v)
        stack = v.reshape(-1, *v.shape[-2:])
        pulled = self._pull(self.M.apply(self._push(stack)))
        return pulled.reshape(v.shape)

    def inner(self, u: Float[Tensor, "*k b n"], v: Float[Tensor, "*k b n"]) -> Float[Tensor, "*k b"]:
        """``(J u)ᵀ M (J v)``. Cost: one push for u and one for v, no pull."""
        self._check("inner", u)
        self._check("inner", v)
        Ju = self._push(u.reshape(-1, *u.shape[-2:]))
        Jv = Ju if v is u else self._push(v.reshape(-1, *v.shape[-2:]))
        return (Ju * self.M.apply(Jv)).sum(-1).reshape(u.shape[:-1])

    def gram(self, T: Float[Tensor, "k b n"]) -> Float[Tensor, "b k k"]:
        """``(J T_i)ᵀ M (J T_j)``. Cost: k pushes."""
        self._check("gram", T)
        if isinstance(self.M, Identity):
            shaped = self._shaped(T, self.J.signature.in_shape)
            return self.J.push_gram(shaped, shaped)
        return self.M.gram(self._push(T))

    def quadratic(self, T: Float[Tensor, "k b n"]) -> Float[Tensor, "k b"]:
        """``(J T_i)ᵀ M (J T_i)``. Cost: k pushes, in chunks."""
        self._check("quadratic", T)
        item_bytes = self.J.signature.n_out * T.shape[1] * T.element_size()
        parts = [self.M.quadratic(self._push(T[part])) for part in chunks(len(T), item_bytes)]
        return torch.cat(parts) if parts else T.new_zeros(0, T.shape[1])

    def dense(self) -> Float[Tensor, "b n n"]:
        """The matrices. Cost: min(n_in, n_out) passes and one contraction."""
        s = self.J.signature
        if s.n_in <= s.n_out:
            return self.gram(s.in_basis().flatten(2))
        basis = s.out_basis()
        return self.J.pull_outer(basis, self._rows_of_M(basis))

    def diag(self) -> Float[Tensor, "b n"]:
        """The diagonals, exactly. Cost: min(n_in, n_out) passes, in chunks; no matrix is formed."""
        s = self.J.signature
        if isinstance(self.M, Identity | Diagonal):  # kinds that square their entries in closed form need one pass
            values = self.M.diag().expand(s.batch, -1)
            return self.J.pull_squared(self._shaped(values.unsqueeze(0), s.out_shape)).squeeze(0).flatten(1)
        if s.n_in <= s.n_out:
            return self.quadratic(s.in_basis().flatten(2)).T
        basis = s.out_basis()
        return self.J.pull_diag(basis, self._rows_of_M(basis)).flatten(1)

    def root(self) -> Float[Tensor, "b n r"]:
        """``Jᵀ R`` with ``M = R Rᵀ``. Cost: r pulls."""
        s = self.J.signature
        if isinstance(self.M, Identity):
            return self.J.dense().mT
        R = self.M.root().expand(s.batch, -1, -1)
        return self._pull(R.permute(2, 0, 1)).permute(1, 2, 0)

    def to_dense(self) -> Dense:
        """The same metric with its matrices multiplied out, for many uses at the same points."""
        return Dense(self.dense())

    def _rows_of_M(self, basis: Tensor) -> Tensor:
        # JᵀMJ = Σ_k (Jᵀ e_k)(Jᵀ m_k)ᵀ with m_k the k-th row of M
        if isinstance(self.M, Identity):
            return basis
        rows = self.M.dense().expand(self.J.signature.batch, -1, -1).transpose(0, 1)
        return self._shaped(rows, self.J.signature.out_shape)

    def _push(self, T: Tensor) -> Tensor:
        return self.J.push(self._shaped(T, self.J.signature.in_shape)).flatten(2)

    def _pull(self, W: Tensor) -> Tensor:
        return self.J.pull(self._shaped(W, self.J.signature.out_shape)).flatten(2)

    @staticmethod
    def _shaped(T: Tensor, shape: tuple[int, ...]) -> Tensor:
        return T.reshape(*T.shape[:2], *shape)


@pullback_rule(Jacobian, Metric)  # type: ignore[type-abstract]
def implicit(J: Jacobian, M: Metric) -> Metric:
    """What serves every pair without a rule of its own."""
    return Implicit(J, M)
