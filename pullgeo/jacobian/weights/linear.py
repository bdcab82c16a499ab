"""The derivative of ``y = A x + c`` with respect to ``(A, c)``."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import LinearKind
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.base import WeightKind
from pullgeo.numerics.chunking import Budget


@dataclass(frozen=True, eq=False)
class LinearWeight(WeightKind, LinearKind):
    """``J_θ (δA, δc) = δA x + δc``, where ``x`` may have further dimensions before its features: ``(b, *s, i)``.

    Args:
        x: the layer's input, ``(b, s, i)`` with the further dimensions flattened into ``s`` (1 if there are none).
        out_features: number of rows of ``A``.
        bias: whether there is a ``c``.
        signature: ``(P,) -> (*s, o)``.
    """

    x: Float[Tensor, "b s i"]
    out_features: int
    bias: bool
    signature: Signature

    def at(self, part: slice) -> "LinearWeight":
        """Some of the samples."""
        x = self.x[part]
        return LinearWeight(x, self.out_features, self.bias, replace(self.signature, batch=len(x)))

    def push(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``δA x + δc``."""
        features = self.x.shape[-1]
        dA = T[..., : self.out_features * features].unflatten(-1, (self.out_features, features))
        y = torch.einsum("kboi,bsi->kbso", dA, self.x)
        if self.bias:
            y = y + T[..., self.out_features * features :].unsqueeze(-2)
        return y.reshape(*T.shape[:2], *self.signature.out_shape)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``(Σ_s w_s x_sᵀ, Σ_s w_s)``."""
        pieces = self.pull_pieces(W)
        return torch.cat(pieces, -1) if self.bias else pieces[0]

    def pull_pieces(self, W: Float[Tensor, "k b *y"]) -> list[Float[Tensor, "k b _"]]:
        """The weight's, and the bias's."""
        w = self._rows(W)
        if self.x.shape[1] == 1:
            weight = (w.mT * self.x).flatten(2)
        else:
            weight = torch.einsum("kbso,bsi->kboi", w, self.x).flatten(2)
        return [weight, w.sum(2)] if self.bias else [weight]

    def pull_into(self, W: Float[Tensor, "k b *y"], targets: list[Float[Tensor, "k b _"]]) -> None:
        """Products are formed where they are wanted."""
        w, weight = self._rows(W), targets[0].unflatten(-1, (self.out_features, self.x.shape[-1]))
        if self.x.shape[1] == 1:
            torch.mul(w.mT, self.x, out=weight)
        elif len(W) == 1:
            torch.bmm(w.squeeze(0).mT, self.x, out=weight.squeeze(0))
        else:
            weight.copy_(torch.einsum("kbso,bsi->kboi", w, self.x))
        if self.bias:
            torch.sum(w, 2, out=targets[1])

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``(w ⊗ x², w)``: the output of row s depends on every weight once, through ``x_s``."""
        rows = self._rows(w)
        return self._pack(torch.einsum("kbso,bsi->kboi", rows, self.x.square()).flatten(2), rows.sum(2))

    def push_squared(self, v: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``δA x² + δc``."""
        return LinearWeight(self.x.square(), self.out_features, self.bias, self.signature).push(v)

    def pull_gram(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "l b *y"]) -> Float[Tensor, "b k l"]:
        """``Σ_st ⟨w_ks, v_lt⟩ (⟨x_s, x_t⟩ + 1)``: no weight-sized stack."""
        kernel = torch.einsum("bsi,bti->bst", self.x, self.x)
        if self.bias:
            kernel = kernel + 1
        return torch.einsum("kbso,bst,lbto->bkl", self._rows(W), kernel, self._rows(V))

    def pull_diag(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b p"]:
        """``(Σ_k w_k v_k) ⊗ x²`` for plain features; otherwise rows interact and weights are formed in chunks."""
        if self.x.shape[1] != 1:
            return super().pull_diag(W, V)
        product = (self._rows(W) * self._rows(V)).sum(0).squeeze(1)
        return self._pack(torch.einsum("bo,bi->boi", product, self.x.squeeze(1).square()).flatten(1), product)

    def pull_outer(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b p p"]:
        """``(Σ_k w_k v_kᵀ) ⊗ (x, 1)(x, 1)ᵀ`` for plain features, in the order of the parameter vector."""
        if self.x.shape[1] != 1:
            return super().pull_outer(W, V)
        product = torch.einsum("kbo,kbp->bop", self._rows(W).squeeze(2), self._rows(V).squeeze(2))
        x = self.x.squeeze(1)
        n, i = self.out_features, x.shape[-1]
        weight = torch.einsum("bop,bi,bj->boipj", product, x, x).reshape(len(x), n * i, n * i)
        if not self.bias:
            return weight
        right = torch.einsum("bop,bi->boip", product, x).reshape(len(x), n * i, n)
        below = torch.einsum("bop,bj->bopj", product, x).reshape(len(x), n, n * i)
        return torch.cat([torch.cat([weight, right], 2), torch.cat([below, product], 2)], 1)

    def pull_squared_summed(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k p"]:
        """``(Σ_bs w ⊗ x², Σ_bs w)``: one product of matrices."""
        rows = self._rows(w).flatten(1, 2)
        return self._pack((rows.mT @ self.x.square().flatten(0, 1)).flatten(1), rows.sum(1))

    def pull_diag_summed(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, " p"]:
        """``(Σ_k w_k v_k)ᵀ x²`` for plain features, one product of matrices; otherwise rows interact."""
        if self.x.shape[1] != 1:
            return super().pull_diag_summed(W, V)
        product = (self._rows(W) * self._rows(V)).sum(0).squeeze(1)
        return self._pack((product.T @ self.x.squeeze(1).square()).flatten(), product.sum(0))

    def pull_outer_summed(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "p p"]:
        """``Σ_b (Σ_k w_k v_kᵀ) ⊗ (x, 1)(x, 1)ᵀ`` for plain features: products of (b, o²) with (b, i²)."""
        if self.x.shape[1] != 1:
            return super().pull_outer_summed(W, V)
        product = torch.einsum("kbo,kbp->bop", self._rows(W).squeeze(2), self._rows(V).squeeze(2))
        x = self.x.squeeze(1)
        n, i, j = self.out_features, x.shape[-1], x.shape[-1] + self.bias
        x = torch.cat([x, x.new_ones(len(x), 1)], 1) if self.bias else x
        total = x.new_zeros(n * n, j * j)
        # the pairs of inputs of so many samples take no more than the answer
        for part in Budget(max(16, n * n)).slices(len(x)):
            pairs = torch.einsum("bi,bj->bij", x[part], x[part]).flatten(1)
            total = torch.addmm(total, product[part].flatten(1).T, pairs)
        whole = total.reshape(n, n, j, j).transpose(1, 2)  # o i p j, biases last in i and j
        weight = whole[:, :i, :, :i].reshape(n * i, n * i)
        if not self.bias:
            return weight
        right, below = whole[:, :i, :, i].reshape(n * i, n), whole[:, i, :, :i].reshape(n, n * i)
        return torch.cat([torch.cat([weight, right], 1), torch.cat([below, whole[:, i, :, i]], 1)])

    def cross_gram(
        self, W: Float[Tensor, "k b *y"], other: WeightKind, V: Float[Tensor, "l c *z"]
    ) -> Float[Tensor, "b k c l"]:
        """``⟨w_kb, v_lc⟩ (⟨x_b, x_c⟩ + 1)`` for plain features."""
        if not self._is_plain_with(other):
            return super().cross_gram(W, other, V)
        w, v = self._rows(W).squeeze(2), self._rows(V).squeeze(2)
        return torch.einsum("kbo,lco->bkcl", w, v) * self._samples_gram(other)[:, None, :, None]

    def cross_diag(
        self, W: Float[Tensor, "k b *y"], other: WeightKind, V: Float[Tensor, "k c *z"]
    ) -> Float[Tensor, "k b c"]:
        """``⟨w_kb, v_kc⟩ (⟨x_b, x_c⟩ + 1)`` for plain features."""
        if not self._is_plain_with(other):
            return super().cross_diag(W, other, V)
        return (self._rows(W).squeeze(2) @ self._rows(V).squeeze(2).mT) * self._samples_gram(other)

    def _is_plain_with(self, other: WeightKind) -> bool:
        return isinstance(other, LinearWeight) and self.x.shape[1] == other.x.shape[1] == 1

    def _samples_gram(self, other: WeightKind) -> Float[Tensor, "b c"]:
        x = self.x.squeeze(1) @ other.x.squeeze(1).T  # type: ignore[attr-defined]
        return x + 1 if self.bias else x

    def _rows(self, W: Tensor) -> Tensor:
        return W.reshape(*W.shape[:2], self.x.shape[1], self.out_features)

    def _pack(self, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.cat([weight, bias], dim=-1) if self.bias else weight
