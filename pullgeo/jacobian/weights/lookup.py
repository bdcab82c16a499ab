"""The derivative of a table's selected rows with respect to the table."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullgeo.jacobian.base import LinearKind
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.base import WeightKind


@dataclass(frozen=True, eq=False)
class LookupWeight(WeightKind, LinearKind):
    """``J_θ δA = (f_s δA_index(s))_s``, or the sum of that over s.

    Rows that a sample does not look up have no derivative, and rows looked up twice add up. Diagonals and Gram
    matrices find equal indices among the s of a sample and never form a stack of tables.

    Args:
        index: rows of the table, ``(b, s, e)``, where e is 1, or the table's width if its columns come from different
            rows; then s is 1.
        factor: ``f``, of the same shape, or one that expands to it.
        table: number of rows and columns of the table.
        added: whether the s selected rows are added up.
        signature: ``(P,) -> (*s, width)`` or ``(P,) -> (width,)``.

    Example:
        >>> from pullgeo.jacobian import weight_rule_for
        >>> layer = torch.nn.Embedding(3, 1)
        >>> weight_rule_for(layer)(layer, torch.tensor([[2, 2]])).pull(torch.ones(1, 1, 2, 1))
        tensor([[[0., 0., 2.]]])
    """

    index: Int[Tensor, "b s e"]
    factor: Float[Tensor, "b s _"]
    table: tuple[int, int]
    added: bool
    signature: Signature

    def at(self, part: slice) -> "LookupWeight":
        """Some of the samples."""
        index, factor = self.index[part], self.factor.expand(*self.index.shape[:2], -1)[part]
        return replace(self, index=index, factor=factor, signature=replace(self.signature, batch=len(index)))

    def push(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """The selected rows of ``T``, times the factor."""
        rows = T.unflatten(2, self.table).gather(2, self._indices(len(T))) * self.factor
        return (rows.sum(2) if self.added else rows).reshape(*T.shape[:2], *self.signature.out_shape)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``f W`` added up at the selected rows."""
        return self._scatter(self._rows(W))

    def push_squared(self, v: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """The selected rows of ``v``, times the squared factor."""
        return self._squared().push(v)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``f² w`` added up at the selected rows."""
        return self._squared().pull(w)

    def pull_gram(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "l b *y"]) -> Float[Tensor, "b k l"]:
        """``Σ_st [index(s) = index(t)] ⟨f_s w_ks, f_t v_lt⟩``."""
        return torch.einsum("kbsd,lbsd->bkl", self._rows(W), self._met(self._rows(V)))

    def pull_diag(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b p"]:
        """``Σ_k Σ_t [index(s) = index(t)] f_s w_ks ∘ f_t v_kt`` added up at the selected rows."""
        return self._scatter((self._rows(W) * self._met(self._rows(V))).sum(0, keepdim=True)).squeeze(0)

    def pull_squared_summed(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k p"]:
        """``f² w`` of all samples added up at the selected rows."""
        return self._squared()._scatter_summed(self._squared()._rows(w))

    def pull_diag_summed(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, " p"]:
        """``Σ_k Σ_t [index(s) = index(t)] f_s w_ks ∘ f_t v_kt`` of all samples added up at the selected rows."""
        return self._scatter_summed((self._rows(W) * self._met(self._rows(V))).sum(0, keepdim=True)).squeeze(0)

    def cross_gram(
        self, W: Float[Tensor, "k b *y"], other: WeightKind, V: Float[Tensor, "l c *z"]
    ) -> Float[Tensor, "b k c l"]:
        """``Σ_st [index_b(s) = index_c(t)] ⟨f_s w_kbs, f_t v_lct⟩``: no table is formed."""
        if not isinstance(other, LookupWeight):
            return super().cross_gram(W, other, V)
        left, right = self._rows(W), other._rows(V)
        same = self._same_rows(other)
        if same.shape[-1] == 1:
            return torch.einsum("kbsd,bsct,lctd->bkcl", left, same[..., 0], right)
        return torch.einsum("kbsd,bsctd,lctd->bkcl", left, same, right)

    def cross_diag(
        self, W: Float[Tensor, "k b *y"], other: WeightKind, V: Float[Tensor, "k c *z"]
    ) -> Float[Tensor, "k b c"]:
        """``Σ_st [index_b(s) = index_c(t)] ⟨f_s w_kbs, f_t v_kct⟩``: no table is formed."""
        if not isinstance(other, LookupWeight):
            return super().cross_diag(W, other, V)
        same = self._same_rows(other)
        if same.shape[-1] == 1:
            return torch.einsum("kbsd,bsct,kctd->kbc", self._rows(W), same[..., 0], other._rows(V))
        return torch.einsum("kbsd,bsctd,kctd->kbc", self._rows(W), same, other._rows(V))

    def _same_rows(self, other: "LookupWeight") -> Float[Tensor, "b s c t e"]:
        same = self.index[:, :, None, None] == other.index[None, None]
        return same.to(self.factor.dtype)

    def _squared(self) -> "LookupWeight":
        # the entries of the table that a sum selects twice have the sum of both factors, which is then squared
        factor = self.factor * self._met(self.factor.unsqueeze(0)).squeeze(0) if self.added else self.factor.square()
        return replace(self, factor=factor)

    def _rows(self, W: Tensor) -> Float[Tensor, "k b s d"]:
        s = 1 if self.added else self.index.shape[1]
        return W.reshape(*W.shape[:2], s, self.table[1]) * self.factor

    def _met(self, rows: Float[Tensor, "k b s d"]) -> Float[Tensor, "k b s d"]:
        """For each s the sum over all t that select the same row of the table."""
        first = self.index[..., 0]
        same = (first.unsqueeze(2) == first.unsqueeze(1)).to(rows.dtype)
        return torch.einsum("bst,kbtd->kbsd", same, rows)

    def _scatter(self, rows: Float[Tensor, "k b s d"]) -> Float[Tensor, "k b p"]:
        zeros = rows.new_zeros(*rows.shape[:2], *self.table)
        return zeros.scatter_add(2, self._indices(len(rows)), rows).flatten(2)

    def _scatter_summed(self, rows: Float[Tensor, "k b s d"]) -> Float[Tensor, "k p"]:
        zeros = rows.new_zeros(len(rows), *self.table)
        indices = self._indices(len(rows)).flatten(1, 2)
        every = rows.expand(*rows.shape[:2], self.index.shape[1], self.table[1]).flatten(1, 2)
        return zeros.scatter_add(1, indices, every).flatten(1)

    def _indices(self, k: int) -> Int[Tensor, "k b s d"]:
        return self.index.expand(k, *self.index.shape[:2], self.table[1])
