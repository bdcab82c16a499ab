"""The transposes of linear operations, by differentiating them."""

from collections.abc import Callable

from torch import Tensor
from torch.func import vjp


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
        (pulled,) = vjp(function, W.new_zeros(len(rows), *in_shape))[1](rows)
        return pulled.unflatten(0, W.shape[:2])

    return backward
