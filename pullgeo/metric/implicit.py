"""A metric given by a map and the metric on its other side."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import Jacobian, added_up
from pullgeo.jacobian.contractions import flat, gram
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.weights.weight_graph import WeightGraph
from pullgeo.metric.base import Metric, pullback_rule
from pullgeo.metric.low_rank import LowRank
from pullgeo.metric.rooted import FactoredMetric
from pullgeo.metric.structured import Dense, Diagonal, Identity


@dataclass(frozen=True, eq=False)
class Implicit(Metric):
    """``Jᵀ M J``, held as ``J`` and ``M``; nothing is multiplied out before it is asked for.

    A pushed-forward metric is one of these with the transposed map. Direction is chosen by cost: n tangents are
    pushed, or as many cotangents pulled as the other side has dimensions, whichever are fewer.
    """

    J: Jacobian
    M: Metric

    def __post_init__(self) -> None:
        """It holds no tensors of its own."""

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
        stack = _stack(v)
        parts = self._parts(len(stack))
        pulled = list(over_chunks(parts, lambda part: self._pull(self.M.apply(self._push(stack[part])))))
        return (pulled[0] if len(pulled) == 1 else torch.cat([stack[:0], *pulled])).reshape(v.shape)

    def inner(self, u: Float[Tensor, "*k b n"], v: Float[Tensor, "*k b n"]) -> Float[Tensor, "*k b"]:
        """``(J u)ᵀ M (J v)``. Cost: one push for u and one for v, no pull."""
        self._check("inner", u)
        self._check("inner", v)
        Ju = self._push(_stack(u))
        Jv = Ju if v is u else self._push(_stack(v))
        return (Ju * self.M.apply(Jv)).sum(-1).reshape(u.shape[:-1])

    def gram(self, T: Float[Tensor, "k b n"]) -> Float[Tensor, "b k k"]:
        """``(J T_i)ᵀ M (J T_j)``. Cost: k pushes; with a chunk size below k as many pulls."""
        self._check("gram", T)
        if isinstance(self.M, Identity):
            shaped = self._shaped(T, self.J.signature.in_shape)
            return self.J.push_gram(shaped, shaped)
        if self.J.in_one_piece(len(T)):
            return self.M.gram(self._push(T))

        def columns(part: slice) -> Tensor:
            return gram(T, self._pull(self.M.apply(self._push(T[part]))))

        return torch.cat(list(over_chunks(self._parts(len(T)), columns)), 2)

    def quadratic(self, T: Float[Tensor, "k b n"]) -> Float[Tensor, "k b"]:
        """``(J T_i)ᵀ M (J T_i)``. Cost: k pushes, in chunks."""
        self._check("quadratic", T)
        parts = self._parts(len(T))
        found = list(over_chunks(parts, lambda part: self.M.quadratic(self._push(T[part]))))
        return torch.cat(found) if found else T.new_zeros(0, T.shape[1])

    def dense(self) -> Float[Tensor, "b n n"]:
        """The matrices. Cost: min(n_in, rank of M) passes and one contraction."""
        s = self.J.signature
        if s.n_in <= self.terms:
            if self.J.in_one_piece(s.n_in):
                return self.J.gram_of_basis() if type(self.M) is Identity else self.M.gram(flat(self.J.push_basis()))
            return self.gram(flat(s.in_basis()))
        parts = self._parts(self.terms)
        total = added_up(over_chunks(parts, lambda part: self.J.pull_outer(*self.factors(part))))
        return self.J.pull_outer(*self.factors(slice(0, 0))) if total is None else total

    def diag(self) -> Float[Tensor, "b n"]:
        """The diagonals, exactly. Cost: min(n_in, rank of M) passes, in chunks; no matrix is formed."""
        s = self.J.signature
        # kinds that square their entries in closed form need one pass
        squares = isinstance(self.M, Diagonal) or (isinstance(self.M, Identity) and not isinstance(self.J, WeightGraph))
        if squares:
            values = self.M.diag().expand(s.batch, -1)
            return flat(self.J.pull_squared(self._shaped(values.unsqueeze(0), s.out_shape))).squeeze(0)
        if s.n_in <= self.terms:
            return self.quadratic(flat(s.in_basis())).T
        sweep = self.J.sweep_parts if isinstance(self.J, WeightGraph) else self._parts
        total = added_up(over_chunks(sweep(self.terms), lambda part: self.J.pull_diag(*self.factors(part))))
        total = self.J.pull_diag(*self.factors(slice(0, 0))) if total is None else total
        return flat(total.unsqueeze(0)).squeeze(0)

    def factors(self, part: slice) -> tuple[Float[Tensor, "k b *y"], Float[Tensor, "k b *y"]]:
        """Stacks W and V with ``M = Σ_k W_k V_kᵀ``: some of as many terms as M has dimensions, or its root columns.

        Args:
            part: which of the terms.
        """
        s = self.J.signature
        if isinstance(self.M, LowRank | FactoredMetric):
            stack = self._shaped(self.M.columns(part).expand(-1, s.batch, -1), s.out_shape)
            return stack, stack
        if isinstance(self.M, Implicit):
            W, V = self.M.factors(part)
            left = self._shaped(flat(self.M.J.pull(W)), s.out_shape)
            return left, left if V is W else self._shaped(flat(self.M.J.pull(V)), s.out_shape)
        basis = s.out_basis()[part]
        if isinstance(self.M, Identity):
            return basis, basis
        if isinstance(self.M, Diagonal):
            return basis, basis * self._shaped(self.M.values.expand(1, s.batch, -1), s.out_shape)
        rows = self.M.dense()[..., part, :].expand(s.batch, -1, -1).transpose(0, 1)
        return basis, self._shaped(rows, s.out_shape)

    def root(self) -> Float[Tensor, "b n r"]:
        """``Jᵀ R`` with ``M = R Rᵀ``. Cost: r pulls."""
        s = self.J.signature
        if isinstance(self.M, Identity):
            return self.J.dense().mT
        if isinstance(self.M, LowRank | FactoredMetric):
            stack = flat(self.factors(slice(None))[0])
        else:
            stack = self.M.root().expand(s.batch, -1, -1).permute(2, 0, 1)
        return torch.cat(list(over_chunks(self._parts(len(stack)), lambda part: self._pull(stack[part])))).permute(
            1, 2, 0
        )

    def to_dense(self) -> Dense:
        """The same metric with its matrices multiplied out, for many uses at the same points."""
        return Dense(self.dense())

    @property
    def terms(self) -> int:
        """How many terms `factors` has in all."""
        if type(self.M) is Identity:  # the commonest, and the other questions take as long as a small layer
            return self.M.dim
        if isinstance(self.M, LowRank):
            return self.M.matrix.shape[-1]
        if isinstance(self.M, FactoredMetric):
            return self.M.root_map.signature.n_in
        return self.M.terms if isinstance(self.M, Implicit) else self.J.signature.n_out

    def _parts(self, k: int) -> Iterator[slice]:
        return self.J.parts(k, self.J.item_bytes)

    def _push(self, T: Tensor) -> Tensor:
        return flat(self.J.push(self._shaped(T, self.J.signature.in_shape)))

    def _pull(self, W: Tensor) -> Tensor:
        return flat(self.J.pull(self._shaped(W, self.J.signature.out_shape)))

    @staticmethod
    def _shaped(T: Tensor, shape: tuple[int, ...]) -> Tensor:
        return T.reshape(*T.shape[:2], *shape)


def _stack(v: Float[Tensor, "*k b n"]) -> Float[Tensor, "s b n"]:
    return v.reshape(v.shape[:-2].numel(), *v.shape[-2:])


@pullback_rule(Jacobian, LowRank)  # type: ignore[type-abstract]
def low_rank(J: Jacobian, M: LowRank) -> Metric:
    """``(Jᵀ R)(Jᵀ R)ᵀ``, of the same rank, by r pulls; held as it is where pushing the n tangents is cheaper.

    Over weights it is always held: the pulled root of every sample would be r times as large as the network.
    """
    rank, s = M.matrix.shape[-1], J.signature
    if isinstance(J, WeightGraph) or s.n_in < rank:
        return Implicit(J, M)
    columns = M.matrix.expand(s.batch, -1, -1).permute(2, 0, 1)
    pulled = flat(J.pull_in_chunks(columns.reshape(rank, s.batch, *s.out_shape)))
    return LowRank(pulled.permute(1, 2, 0))


@pullback_rule(Jacobian, Metric)  # type: ignore[type-abstract]
def implicit(J: Jacobian, M: Metric) -> Metric:
    """What serves every pair without a rule of its own."""
    return Implicit(J, M)
