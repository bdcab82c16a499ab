"""Pulled-back metrics over weights, added up over the batch layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pullgeo.jacobian.base import added_up, all_added_up
from pullgeo.jacobian.contractions import flat
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.weights.base import as_weight_kind
from pullgeo.jacobian.weights.parameters import coordinate_count
from pullgeo.jacobian.weights.shared import grouped, joined
from pullgeo.jacobian.weights.weight_graph import ParameterBlock, Swept, WeightGraph


@dataclass(frozen=True, eq=False)
class BatchSum:
    """``Σ_b J_bᵀ M_b J_b`` over the samples of a batch, which share their weights.

    Every layer adds up while it contracts: the diagonal of a linear layer is one product of matrices, ``(w²)ᵀ x²``. An
    array of the batch times the weights never exists, so the memory is that of the answer and of the cotangents.

    Args:
        J: the Jacobian with respect to weights, as `linearize` gives it for ``wrt="weight"``.

    Example:
        >>> from pullgeo import linearize
        >>> from pullgeo.jacobian import BatchSum
        >>> J = linearize(torch.nn.Linear(2, 3), torch.ones(5, 2), "weight")[1]
        >>> basis = J.signature.out_basis()
        >>> BatchSum(J).pull_diag(basis, basis)
        tensor([5., 5., 5., 5., 5., 5., 5., 5., 5.])
    """

    J: WeightGraph

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k p"]:
        """``Σ_b (J_b∘J_b)ᵀ w_b`` exactly. Cost: n_out backward sweeps for each of the k."""
        basis = self.J.signature.out_basis()
        return torch.stack([self._squared(basis, rows.T) for rows in flat(w)]) if len(w) else w.new_zeros(0, self._p)

    def pull_squared_layerwise(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k p"]:
        """``Σ_b (J_b∘J_b)ᵀ w_b`` with off-diagonal terms dropped before every layer: one backward sweep."""
        found: dict[int, Tensor] = {}
        for own, delta in self.J.sweep(lambda J, w: J.pull_squared_layerwise(w), w):
            for p, piece in own.split(as_weight_kind(own.J).pull_squared_summed(delta)):
                found[id(p)] = found[id(p)] + piece if id(p) in found else piece
        return self.J.in_order(found)

    def pull_diag(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, " p"]:
        """``Σ_b Σ_k J_bᵀ W_kb ∘ J_bᵀ V_kb``: the diagonal of ``Σ_b J_bᵀ (Σ_k W_kb V_kbᵀ) J_b``."""

        def term(part: slice) -> Tensor:
            w = W[part]
            return self._diagonal(self.J.sweep_pair(w, w if V is W else V[part]))

        total = added_up(over_chunks(self.J.sweep_parts(len(W)), term))
        return W.new_zeros(self._p) if total is None else total

    def pull_blocks(
        self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"], groups: Sequence[Sequence[nn.Parameter]]
    ) -> list[Float[Tensor, "_ _"]]:
        """Blocks of ``Σ_b J_bᵀ (Σ_k W_kb V_kbᵀ) J_b`` on the diagonal, one for each group of parameters.

        Args:
            W: cotangents.
            V: others, or the same.
            groups: the parameters of each block, in the order of its rows; the parameters of a layer, for example.

        Cost: for a group that is one linear layer of plain features, one product of matrices.
        """

        def term(part: slice) -> tuple[Tensor, ...]:
            w, found = W[part], []
            met = list(self.J.sweep_pair(w, w if V is W else V[part]))
            for group in groups:
                wanted, n = {id(p) for p in group}, sum(map(coordinate_count, group))
                layers = [one for one in met if any(id(p) in wanted for p in one[0].parameters)]
                found.append(_block(layers, group) if layers else w.new_zeros(n, n))
            return tuple(found)

        parts = list(self.J.sweep_parts(len(W))) or [slice(0, 0)]
        return list(all_added_up(over_chunks(parts, term)))

    def pull_outer(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "p p"]:
        """``Σ_b J_bᵀ (Σ_k W_kb V_kbᵀ) J_b``, with the blocks between layers.

        Cost: k b P² multiplications; cotangents are pulled to all weights for some samples at a time.
        """
        p = self._p

        def term(part: slice) -> Tensor:
            w = W[part]
            together, left, right = joined(self.J.sweep_pair(w, w if V is W else V[part]))
            places, found = self._places(together.parameters), together.pull_outer_summed(left, right)
            return found.new_zeros(p, p).index_put((places[:, None], places), found, accumulate=True)

        total = added_up(over_chunks(self.J.sweep_parts(len(W)), term))
        return W.new_zeros(p, p) if total is None else total

    @property
    def _p(self) -> int:
        return self.J.signature.n_in

    def _squared(self, W: Tensor, scale: Float[Tensor, "k b"]) -> Tensor:

        def term(part: slice) -> Tensor:
            swept = self.J.sweep(lambda J, w: J.pull(w), W[part])
            return self._diagonal(((own, delta, delta) for own, delta in swept), scale[part])

        total = added_up(over_chunks(self.J.sweep_parts(len(W)), term))
        return W.new_zeros(self._p) if total is None else total

    def _diagonal(self, swept: Swept, scale: Float[Tensor, "k b"] | None = None) -> Tensor:
        found: dict[int, Tensor] = {}
        for own, kind, delta, gamma in grouped(self.J, swept):
            scaled = kind.pull_diag_summed(delta, gamma) if scale is None else kind.pull_scaled_summed(scale, delta)
            found.update((id(p), piece) for p, piece in own.split(scaled))
        return self.J.in_order(found)

    def _places(self, parameters: Sequence[nn.Parameter]) -> Int[Tensor, " q"]:
        """Where parameters stand in the vector of all weights."""
        layout = self.J.layout
        every = layout.split(torch.arange(layout.size, device=self.J.signature.device))
        places = dict(zip(map(id, layout.parameters), every, strict=True))
        return torch.cat([places[id(p)] for p in parameters])


def _block(layers: list[tuple[ParameterBlock, Tensor, Tensor]], group: Sequence[nn.Parameter]) -> Tensor:
    """The block of a group of parameters, from all layers that have any of them."""
    (own, delta, gamma), *others = layers
    if not others and list(map(id, own.parameters)) == list(map(id, group)):
        return as_weight_kind(own.J).pull_outer_summed(delta, gamma)
    together, W, V = joined(layers)
    block = together.pull_outer_summed(W, V)
    starts = dict(zip(map(id, group), accumulate(map(coordinate_count, group), initial=0), strict=False))
    rows, places, start = [], [], 0
    for p in together.parameters:
        every = torch.arange(coordinate_count(p), device=block.device)
        if id(p) in starts:
            rows.append(every + start)
            places.append(every + starts[id(p)])
        start += coordinate_count(p)
    row, place = torch.cat(rows), torch.cat(places)
    n = sum(map(coordinate_count, group))
    return block.new_zeros(n, n).index_put((place[:, None], place), block[row[:, None], row])
