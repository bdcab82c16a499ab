"""Gradients of values that may not depend on what they are differentiated by."""

import torch
from jaxtyping import Float
from torch import Tensor


def gradient_of(
    value: Tensor, by: Float[Tensor, "*s"], *, create_graph: bool = False, retain_graph: bool | None = None
) -> Float[Tensor, "*s"]:
    """``∂ Σ value / ∂ by``, which is zero where the value has no graph: a decoder may be constant, or detached."""
    if not value.requires_grad:
        return torch.zeros_like(by)
    with torch.enable_grad():
        total = value.sum()
    found: Tensor = torch.autograd.grad(
        total, by, create_graph=create_graph, retain_graph=retain_graph, materialize_grads=True
    )[0]
    return found
