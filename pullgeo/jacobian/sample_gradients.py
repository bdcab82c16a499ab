"""Gradients of a loss sample by sample, and their norms."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pullgeo.errors import DtypeError, ModuleError, ShapeError
from pullgeo.jacobian.base import ChunkSize, checked_chunk_size
from pullgeo.jacobian.linearize import linearize
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.weights.parameters import ParameterLayout, from_coordinates
from pullgeo.jacobian.weights.weight_graph import WeightGraph
from pullgeo.numerics.chunking import Budget
from pullgeo.typing import Parameters

Loss = Tensor | Callable[[Tensor], Tensor]
"""The gradients ``∂ℓ_b/∂y_b`` of the samples' losses, ``(b, *y)``; or the losses, a function ``(b, *y) -> (b,)``."""


def sample_gradients(
    module: nn.Module,
    x: Shaped[Tensor, "b *x"],
    loss: Loss,
    parameters: Parameters = "all",
    chunk_size: ChunkSize = "auto",
) -> Float[Tensor, "b p"]:
    """``∇_θ ℓ_b = J_bᵀ ∂ℓ_b/∂y``: the gradient of every sample's own loss with respect to all weights.

    Args:
        module: any module with parameters.
        x: the batch.
        loss: the gradients of the losses with respect to the outputs, ``(b, *y)``, or a function from outputs to
            losses ``(b,)``.
        parameters: which parameters are the weights, as for `linearize`.
        chunk_size: how many samples are linearized at a time, which bounds the memory beside the answer; the module is
            called with that many. ``"auto"`` takes the whole batch.

    Returns:
        ``(b, P)``, in the order of ``torch.nn.utils.parameters_to_vector(module.parameters())``. Differentiable with
        respect to x and weights.

    Raises:
        ShapeError, DtypeError: ``loss`` is or gives something else, or ``x`` does not fit the module.
        OptionError, ModuleError, CoupledSamplesError, DeviceError: as `linearize` raises them.

    Cost: one forward and one backward pass, and ``b P`` memory; a second forward pass with chunks and a
    loss that is a function. `sample_gradient_norms` needs much less.

    Example:
        >>> f = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> sample_gradients(f, x, lambda y: 5 * y.squeeze(1)).detach()
        tensor([[ 5., 10.],
                [15., 20.]])
    """
    return _over_samples("sample_gradients", module, x, loss, parameters, chunk_size, _pulled)


def named_sample_gradients(
    module: nn.Module,
    x: Shaped[Tensor, "b *x"],
    loss: Loss,
    parameters: Parameters = "all",
    chunk_size: ChunkSize = "auto",
) -> dict[str, Tensor]:
    """`sample_gradients` by the names of the parameters, each ``(b, *shape)``.

    Args:
        module: any module with parameters.
        x: the batch.
        loss: as for `sample_gradients`.
        parameters: which parameters are the weights, as for `linearize`.
        chunk_size: how many samples are linearized at a time, which bounds the memory beside the answer; the module is
            called with that many. ``"auto"`` takes the whole batch.

    Example:
        >>> found = named_sample_gradients(nn.Linear(2, 3), torch.zeros(5, 2), torch.ones(5, 3))
        >>> {name: tuple(gradient.shape) for name, gradient in found.items()}
        {'weight': (5, 3, 2), 'bias': (5, 3)}
    """
    where = "named_sample_gradients"
    gradients = _over_samples(where, module, x, loss, parameters, chunk_size, _pulled)
    layout = ParameterLayout.of(module, parameters, where)
    pieces = zip(layout.names, layout.parameters, layout.split(gradients), strict=True)
    return {name: from_coordinates(piece, p) for name, p, piece in pieces}


def sample_gradient_norms(
    module: nn.Module,
    x: Shaped[Tensor, "b *x"],
    loss: Loss,
    parameters: Parameters = "all",
    chunk_size: ChunkSize = "auto",
) -> Float[Tensor, " b"]:
    """``‖∇_θ ℓ_b‖`` of every sample, without the gradients themselves.

    A layer's part is ``‖δ‖² (‖x‖² + 1)`` for a linear layer, and a sum over pairs of positions for convolutions and
    for linear layers over tokens where that is cheaper than their gradients.

    Args:
        module: any module with parameters.
        x: the batch.
        loss: as for `sample_gradients`.
        parameters: which parameters are the weights, as for `linearize`.
        chunk_size: how many samples are linearized at a time, which bounds the memory beside the answer; the module is
            called with that many. ``"auto"`` takes the whole batch.

    Returns:
        ``(b,)``.

    Source: Goodfellow, *Efficient per-example gradient computations*, 2015; Li, Tramèr, Liang, Hashimoto, *Large
    language models can be strong differentially private learners*, ICLR 2022, section 4 ("ghost clipping").

    Example:
        >>> sample_gradient_norms(nn.Linear(2, 1), torch.tensor([[2.0, 2.0]]), torch.ones(1, 1))
        tensor([3.])
    """
    squares = _over_samples("sample_gradient_norms", module, x, loss, parameters, chunk_size, _squared_norms)
    return squares.clamp(min=0).sqrt()


def _pulled(J: WeightGraph, w: Float[Tensor, "1 b *y"]) -> Float[Tensor, "b p"]:
    return J.pull(w).squeeze(0)


def _squared_norms(J: WeightGraph, w: Float[Tensor, "1 b *y"]) -> Float[Tensor, " b"]:
    return J.pull_gram(w, w).reshape(w.shape[1])


def _over_samples(
    where: str,
    module: nn.Module,
    x: Tensor,
    loss: Loss,
    parameters: Parameters,
    chunk_size: ChunkSize,
    answer: Callable[[WeightGraph, Tensor], Tensor],
) -> Tensor:
    """What is asked of the Jacobian and the cotangent, for a part of the samples at a time.

    Cost: with a loss that is a function, which sees all outputs at once, one more forward pass for several parts.
    """
    size = checked_chunk_size(where, chunk_size)
    if size is None or not isinstance(x, Tensor) or x.ndim == 0 or len(x) <= size:
        return answer(*_cotangent(where, module, x, loss, parameters))
    parts = list(Budget(size).slices(len(x)))
    if isinstance(loss, Tensor):
        w = loss
        if len(w) != len(x):
            raise ShapeError(
                f"{where}: loss must be the gradients with respect to the outputs, one row for each of the {len(x)} "
                f"samples, or a function from outputs to one loss per sample; got shape {tuple(w.shape)}."
            )
    else:
        values = over_chunks(parts, lambda part: linearize(module, x[part], "weight", parameters)[0])
        w = _gradient(where, loss, torch.cat(list(values)))
    return torch.cat(
        list(over_chunks(parts, lambda part: answer(*_cotangent(where, module, x[part], w[part], parameters))))
    )


def _cotangent(
    where: str, module: nn.Module, x: Tensor, loss: Loss, parameters: Parameters
) -> tuple[WeightGraph, Tensor]:
    y, J = linearize(module, x, "weight", parameters)
    if not isinstance(J, WeightGraph):
        raise ModuleError(f"{where}: expected a network with parameters, got {type(module).__name__}.")
    w = loss if isinstance(loss, Tensor) else _gradient(where, loss, y)
    if w.shape != y.shape:
        raise ShapeError(
            f"{where}: loss must be the gradients with respect to the outputs, of shape {tuple(y.shape)}, or a "
            f"function from outputs to one loss per sample; got shape {tuple(w.shape)}."
        )
    if w.dtype != y.dtype:
        raise DtypeError(f"{where}: loss must be {y.dtype} as the module's output is, got {w.dtype}.")
    return J, w.unsqueeze(0)


def _gradient(where: str, loss: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    tracked = torch.is_grad_enabled() and y.requires_grad
    with torch.enable_grad():
        outputs = y if tracked else y.detach().requires_grad_()
        losses = loss(outputs)
        if not isinstance(losses, Tensor) or losses.shape != (len(y),):
            got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ShapeError(
                f"{where}: loss must return one number per sample, shape ({len(y)},), got {got}. Use "
                "reduction='none' in torch's losses, and sum over outputs."
            )
        if not losses.requires_grad:
            return torch.zeros_like(y)
        return torch.autograd.grad(losses.sum(), outputs, create_graph=tracked)[0]
