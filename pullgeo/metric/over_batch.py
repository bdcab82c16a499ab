"""Metrics on weights, which all samples share, added up over the batch while layers contract."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.jacobian.base import Jacobian, added_up
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.weights.batch_sum import BatchSum
from pullgeo.jacobian.weights.weight_graph import WeightGraph
from pullgeo.metric.implicit import Implicit
from pullgeo.metric.structured import Diagonal

Reduction = Literal["none", "sum", "mean"]
"""One answer per sample, their sum, or their mean."""


def checked_reduction(where: str, reduction: str) -> Reduction:
    """What is to become of the batch.

    Raises:
        OptionError: it is not one of the choices.
    """
    if reduction not in get_args(Reduction):
        raise OptionError(f'{where}: reduction must be "none", "sum" or "mean", got {reduction!r}.')
    return reduction  # type: ignore[return-value]


def batch_sum(where: str, J: Jacobian, reduction: str) -> BatchSum | None:
    """What adds up over the batch, or None for ``"none"``.

    Raises:
        OptionError: the reduction is not one of the choices, or there is nothing that the samples share.
    """
    if checked_reduction(where, reduction) == "none":
        return None
    if not isinstance(J, WeightGraph):
        raise OptionError(
            f'{where}: reduction={reduction!r} is for wrt="weight", as all samples share the weights; every sample has '
            'an input of its own. Use reduction="none".'
        )
    return BatchSum(J)


def sum_diag(metric: Implicit, over_batch: BatchSum) -> Float[Tensor, " p"]:
    """The diagonal of ``Σ_b J_bᵀ M_b J_b``, exactly. Cost: as many backward sweeps as M has terms, in chunks."""
    s = over_batch.J.signature
    if isinstance(metric.M, Diagonal):  # kinds that square their entries need one pass
        values = metric.M.diag().expand(s.batch, s.n_out)
        return over_batch.pull_squared(values.reshape(1, s.batch, *s.out_shape)).squeeze(0)
    parts = over_batch.J.sweep_parts(metric.terms)
    total = added_up(over_chunks(parts, lambda part: over_batch.pull_diag(*metric.factors(part))))
    return torch.zeros(s.n_in, dtype=s.dtype, device=s.device) if total is None else total


def sum_dense(metric: Implicit, over_batch: BatchSum) -> Float[Tensor, "p p"]:
    """``Σ_b J_bᵀ M_b J_b``, whole. Cost: as many backward sweeps as M has terms, in chunks."""
    s = over_batch.J.signature
    parts = over_batch.J.sweep_parts(metric.terms)
    total = added_up(over_chunks(parts, lambda part: over_batch.pull_outer(*metric.factors(part))))
    return torch.zeros(s.n_in, s.n_in, dtype=s.dtype, device=s.device) if total is None else total
