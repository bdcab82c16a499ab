"""The empirical neural tangent kernel between two batches."""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pullgeo.errors import DeviceError, DtypeError, OptionError, ShapeError
from pullgeo.jacobian.base import ChunkSize, all_added_up
from pullgeo.jacobian.linearize import linearize
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.weights.shared import grouped
from pullgeo.jacobian.weights.weight_graph import WeightGraph
from pullgeo.typing import Parameters

Outputs = Literal["full", "diagonal", "trace"]
"""Which pairs of outputs a kernel holds: all, each with itself, or the sum of these."""


def tangent_kernel(
    module: nn.Module,
    x1: Shaped[Tensor, "b1 *x"],
    x2: Shaped[Tensor, "b2 *x"] | None = None,
    outputs: Outputs = "full",
    parameters: Parameters = "all",
    chunk_size: ChunkSize = "auto",
) -> Float[Tensor, "..."]:
    """``Θ(x1, x2) = J_θ(x1) J_θ(x2)ᵀ``: how a step along the gradient at one sample moves the output at another.

    Both Jacobians meet layer by layer: for a linear layer with inputs x and cotangents δ of its output, the layer's
    term is ``⟨δ1, δ2⟩ (⟨x1, x2⟩ + 1)``, so that nothing of the size outputs x weights is formed. Layers that have no
    such form pull cotangents of some samples at a time to their own weights; layers that share weights are taken
    together.

    Args:
        module: any module with parameters.
        x1: a batch of points.
        x2: another, of the same shape per sample; the first if ``None``.
        outputs: ``"full"`` for all pairs of outputs, ``"diagonal"`` for each output with itself, ``"trace"`` for their
            sum.
        chunk_size: how many outputs are swept back at a time; ``"auto"`` bounds the memory by bytes.
        parameters: which parameters are the weights, as for `linearize`.

    Returns:
        ``(b1, n_out, b2, n_out)``, ``(b1, b2, n_out)`` or ``(b1, b2)``. Differentiable with respect to points and
        weights.

    Raises:
        OptionError: ``outputs``, ``chunk_size`` or ``parameters`` is something else.
        ShapeError, DtypeError, DeviceError: the batches do not fit each other or the module.
        CoupledSamplesError, ModuleError: as `linearize` raises them.

    Cost: one forward pass over both batches, n_out backward sweeps, and for a linear layer of width w
    ``b1 b2 n_out² w`` multiplications, n_out times fewer for diagonal and trace; with chunks, a sweep for each pair.

    Source: Jacot, Gabriel, Hongler, *Neural Tangent Kernel*, NeurIPS 2018; the contraction by layers: Novak,
    Sohl-Dickstein, Schoenholz, *Fast Finite Width Neural Tangent Kernel*, ICML 2022.

    Example:
        >>> f = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3))
        >>> x1, x2 = torch.zeros(7, 2), torch.ones(4, 2)
        >>> tangent_kernel(f, x1, x2).shape, tangent_kernel(f, x1, x2, "trace").shape
        (torch.Size([7, 3, 4, 3]), torch.Size([7, 4]))
    """
    if outputs not in get_args(Outputs):
        raise OptionError(f"tangent_kernel: outputs must be one of {get_args(Outputs)}, got {outputs!r}.")
    both = x1 if x2 is None else _joined(x1, x2)
    J = linearize(module, both, "weight", parameters)[1].in_chunks(chunk_size)
    if not isinstance(J, WeightGraph):
        raise OptionError("tangent_kernel: expected the Jacobian of a network with respect to its weights.")
    b1 = len(x1)
    first, second = slice(0, b1), slice(0, b1) if x2 is None else slice(b1, len(both))
    basis = J.signature.out_basis()
    if outputs == "full":
        parts = [slice(0, len(basis))] if J.in_one_piece(len(basis)) else list(J.sweep_parts(len(basis)))
        tiles = [(left, right) for left in parts for right in parts]
        found = list(over_chunks(tiles, lambda tile: _full(J, basis[tile[0]], basis[tile[1]], first, second)))
        n = len(parts)
        return torch.cat([torch.cat(found[i : i + n], 3) for i in range(0, len(found), n)], 1)
    parts = list(J.sweep_parts(len(basis))) or [slice(0, 0)]
    if outputs == "trace":
        terms = over_chunks(parts, lambda part: (_diagonal(J, basis[part], first, second).sum(0),))
        return all_added_up(terms)[0]
    diagonals = over_chunks(parts, lambda part: _diagonal(J, basis[part], first, second))
    return torch.cat(list(diagonals)).permute(1, 2, 0)


def _joined(x1: Tensor, x2: Tensor) -> Tensor:
    if not isinstance(x2, Tensor) or x2.dtype != x1.dtype:
        got = x2.dtype if isinstance(x2, Tensor) else type(x2).__name__
        raise DtypeError(f"tangent_kernel: x2 must be a {x1.dtype} tensor as x1 is, got {got}.")
    if x2.shape[1:] != x1.shape[1:] or x2.ndim != x1.ndim:
        raise ShapeError(
            f"tangent_kernel: x2 must have shape (b2, {', '.join(map(str, x1.shape[1:]))}) as the samples of x1 have, "
            f"got {tuple(x2.shape)}."
        )
    if x2.device != x1.device:
        raise DeviceError(f"tangent_kernel: x2 must be on {x1.device} as x1 is, got {x2.device}.")
    return torch.cat([x1, x2])


def _full(J: WeightGraph, left: Tensor, right: Tensor, first: slice, second: slice) -> Float[Tensor, "b1 k b2 l"]:
    n1, n2 = first.stop - first.start, second.stop - second.start
    total = left.new_zeros(n1, len(left), n2, len(right))
    for _, kind, delta, gamma in grouped(J, J.sweep_pair(left, right)):
        total = total + kind.at(first).cross_gram(delta[:, first], kind.at(second), gamma[:, second])
    return total


def _diagonal(J: WeightGraph, stack: Tensor, first: slice, second: slice) -> Float[Tensor, "k b1 b2"]:
    total = stack.new_zeros(len(stack), first.stop - first.start, second.stop - second.start)
    for _, kind, delta, _ in grouped(J, J.sweep_pair(stack, stack)):
        here, w = kind.at(first), delta[:, first]
        there, v = (here, w) if second == first else (kind.at(second), delta[:, second])
        total = total + here.cross_diag(w, there, v)
    return total
