"""What becomes of the batch: one answer per sample, their sum, or their mean."""

from typing import Any

from torch import Tensor

from pullgeo.metric.over_batch import Reduction


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
