"""The transposes of linear operations, by differentiating them."""

from collections.abc import Callable

import torch
from torch import Tensor

from pullgeo._torch.transforms import transformed, vjp


def adjoint(function: Callable[[Tensor], Tensor], in_shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """The transpose of a linear function of batches, for stacks.

    Args:
        function: linear, acting alike on every sample of a batch ``(n, *in)`` of any size.
        in_shape: shape of a sample.

    Returns:
        A function of stacks ``(k, b, *out)``.
    """

    def backward(W: Tensor) -> Tensor:
        rows = W.flatten(0, 1)
        zeros = W.new_zeros(len(rows), *in_shape)
        if transformed() or torch.is_inference_mode_enabled():  # where torch.func alone takes derivatives
            (pulled,) = vjp(function, zeros)[1](rows)
        else:
            # torch.func imports torch's compiler at the first call, and so do cotangents of tensors that are no number,
            # which takes longer than most products
            again = torch.is_grad_enabled() and W.requires_grad
            with torch.enable_grad():
                inner = (function(zeros.requires_grad_()) * rows).sum()
                (pulled,) = torch.autograd.grad(inner, zeros, create_graph=again)
        return pulled.unflatten(0, W.shape[:2])

    return backward
