"""Dense Jacobians of a module, one sample and one output at a time.

Nothing here is clever: each sample goes through the module as a batch of one, in float64, and each output coordinate
is differentiated by its own call of `torch.autograd.grad`. Slow, and for that reason a truth to compare with.
"""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from pullgeo.testing.oracles.differences import central_difference
from pullgeo.testing.oracles.samples import Sample, flat_gradient, per_sample, sizes
from pullgeo.typing import Decoder, Wrt


def dense_jacobian(module: Decoder, x: Num[Tensor, "b ..."], wrt: Wrt = "input") -> Float[Tensor, "b n_out n"]:
    """Jacobian ∂y_o/∂x_i, or ∂y_o/∂θ_p, of every sample.

    Args:
        module: a module or callable ``(b, *in) -> (b, *out)`` that treats samples independently.
        x: ``(b, *in)``; cast to float64, integers (indices) are kept as they are.
        wrt: ``"input"``, or ``"weight"`` for all parameters in the order of `torch.nn.utils.parameters_to_vector`:
            a shared parameter is counted once and carries its total derivative, an unused one has zero columns.

    Returns:
        Float64 tensor ``(b, n_out, n)`` with ``n = prod(in)`` or the number P of parameters, without a graph.

    Raises:
        OptionError: ``wrt`` is neither of the two.
        ModuleError: ``wrt="weight"`` for a callable without parameters, or an output that is not a tensor.
        DtypeError: ``wrt="input"`` with integers.

    Cost: b forward passes and ``b n_out`` backward passes.

    Example:
        >>> dense_jacobian(torch.nn.Tanh(), torch.zeros(1, 2))
        tensor([[[1., 0.],
                 [0., 1.]]], dtype=torch.float64)
    """
    rows = [_gradients(sample) for sample in per_sample(module, x, wrt)]
    return torch.stack(rows) if rows else torch.zeros(0, *sizes(module, x, wrt), dtype=torch.float64)


def _gradients(sample: Sample) -> Tensor:
    y, variables = sample.graph()
    rows = [flat_gradient(value, variables) for value in y]
    return torch.stack(rows) if rows else y.new_zeros(0, sample.start().numel())


def dense_jacobian_fd(
    module: Decoder, x: Num[Tensor, "b ..."], wrt: Wrt = "input", step: float = 1e-2
) -> Float[Tensor, "b n_out n"]:
    """`dense_jacobian` by central differences with Richardson extrapolation: no autograd at all.

    Args:
        module: as for `dense_jacobian`.
        x: as for `dense_jacobian`.
        wrt: as for `dense_jacobian`.
        step: largest step h; the error is O(h⁶) for smooth maps. A map with kinks (ReLU) is right only where no
            kink lies within h of the point: take h small there.

    Returns:
        Float64 tensor ``(b, n_out, n)``.

    Raises:
        OptionError: ``wrt`` is neither of the two, or ``step`` is not positive.
        ModuleError: as for `dense_jacobian`.
        DtypeError: as for `dense_jacobian`.

    Cost: 6 n forward passes per sample.

    Example:
        >>> J = dense_jacobian_fd(torch.nn.Sigmoid(), torch.zeros(1, 1))
        >>> round(J.item(), 12)
        0.25
    """
    rows = [central_difference(sample.at, sample.start(), step) for sample in per_sample(module, x, wrt)]
    return torch.stack(rows) if rows else torch.zeros(0, *sizes(module, x, wrt), dtype=torch.float64)
