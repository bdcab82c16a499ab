"""What becomes of the batch: one answer per sample, their sum, or their mean."""

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.jacobian import BatchSum, WeightGraph
from pullgeo.metric import Diagonal, Implicit

Reduction = Literal["none", "sum", "mean"]
"""One answer per sample, their sum, or their mean."""


def checked_reduction(where: str, reduction: str) -> Reduction:
    """What is to become of the batch.

    Raises:
        OptionError: it is none of the choices.
    """
    if reduction not in get_args(Reduction):
        raise OptionError(f'{where}: reduction must be "none", "sum" or "mean", got {reduction!r}.')
    return reduction  # type: ignore[return-value]


def over_samples(answers: Tensor, reduction: Reduction) -> Tensor:
    """Answers with the batch in front, reduced."""
    if reduction == "none":
        return answers
    return answers.sum(0) if reduction == "sum" else answers.mean(0)


def of_sum(total: Any, reduction: Reduction, batch: int) -> Any:
    """What a sum over the batch, or a nested list of them, makes of the reduction asked for."""
    if reduction != "mean":
        return total
    return [of_sum(entry, reduction, batch) for entry in total] if isinstance(total, list) else total / batch


def sum_diag(metric: Implicit, J: WeightGraph) -> Float[Tensor, " p"]:
    """The diagonal of ``Σ_b J_bᵀ M_b J_b``, exactly."""
    s, over_batch = J.signature, BatchSum(J)
    if isinstance(metric.M, Diagonal):
        values = metric.M.values.expand(s.batch, -1)
        return over_batch.pull_squared(values.reshape(1, s.batch, *s.out_shape)).squeeze(0)
    total = torch.zeros(s.n_in, dtype=s.dtype, device=s.device)
    for part in J.sweep_parts(s.out_basis()):
        total = total + over_batch.pull_diag(*metric.factors(part))
    return total


def sum_dense(metric: Implicit, J: WeightGraph) -> Float[Tensor, "p p"]:
    """``Σ_b J_bᵀ M_b J_b``, whole."""
    s, over_batch = J.signature, BatchSum(J)
    total = torch.zeros(s.n_in, s.n_in, dtype=s.dtype, device=s.device)
    for part in J.sweep_parts(s.out_basis()):
        total = total + over_batch.pull_outer(*metric.factors(part))
    return total
