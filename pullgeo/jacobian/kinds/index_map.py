"""Maps whose every output copies one input of its own sample: pooling by maxima."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from pullgeo.jacobian.base import LinearKind
from pullgeo.jacobian.signature import Signature


@dataclass(frozen=True, eq=False)
class IndexMap(LinearKind):
    """``y_rs = x_r,index(r, s)``: push gathers, pull scatters and *adds*, since windows may choose the same input.

    Args:
        index: ``(b, r, s)``: for each row r of a sample (a channel), the position in that row that output s copies.
        signature: shapes whose elements fall into r rows, ``n_in = r n`` and ``n_out = r s``.

    Example:
        >>> import torch
        >>> from pullgeo.jacobian import linearize
        >>> y, J = linearize(torch.nn.MaxPool1d(2, stride=1), torch.tensor([[[0.0, 7.0, 1.0]]]))
        >>> J.pull(torch.ones(1, 1, 1, 2))
        tensor([[[[0., 2., 0.]]]])
    """

    index: Int[Tensor, "b r s"]
    signature: Signature

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """The chosen entries of ``T``."""
        chosen = self._rows(T).gather(3, self._indices(len(T)))
        return chosen.reshape(*T.shape[:2], *self.signature.out_shape)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``W`` added up at the chosen entries."""
        rows = self.index.shape[1]
        summed = W.new_zeros(*W.shape[:2], rows, self.signature.n_in // max(1, rows))
        summed = summed.scatter_add(3, self._indices(len(W)), self._rows(W))
        return summed.reshape(*W.shape[:2], *self.signature.in_shape)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """As ``push``: the entries are zeros and ones."""
        return self.push(v)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """As ``pull``: the entries are zeros and ones."""
        return self.pull(w)

    def _indices(self, k: int) -> Tensor:
        return self.index.expand(k, *self.index.shape)

    def _rows(self, T: Tensor) -> Tensor:
        rows = self.index.shape[1]
        return T.reshape(*T.shape[:2], rows, T.shape[2:].numel() // max(1, rows))
