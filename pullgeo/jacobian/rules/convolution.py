"""Convolutions and transposed convolutions in one to three dimensions, with respect to input and weight."""

from functools import reduce
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.jacobian.base import Jacobian, LinearKind
from pullgeo.jacobian.kinds.convolution import Convolution
from pullgeo.jacobian.kinds.linear_map import LinearMap, Reshape, stacked
from pullgeo.jacobian.registry import rule, weight_rule
from pullgeo.jacobian.rules.layout import require_dims
from pullgeo.jacobian.rules.padding import padded, sources
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.conv import ConvWeight

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
ConvTranspose = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
SquaredTerms = list[tuple[Tensor, Tensor | float]]
"""Squared kernels, each with the mask of the positions where it acts."""


@rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(module: Conv, x: Tensor) -> tuple[Tensor, Jacobian]:
    """``y = A * pad(x) + c``: padding with zeros is the convolution's own, any other a map before it."""
    before, surround, settings = _surrounded(module, x)
    weight = module.weight
    y = settings.apply(before, weight, module.bias)

    def forward_squared(v: Tensor) -> Tensor:
        terms = _squared_terms(module, x, weight, settings)
        return reduce(torch.add, (mask * settings.apply(v, squared) for squared, mask in terms))

    def backward_squared(w: Tensor) -> Tensor:
        terms = _squared_terms(module, x, weight, settings)
        return reduce(torch.add, (settings.transpose(mask * w, squared) for squared, mask in terms))

    apply, transpose = stacked(lambda T: settings.apply(T, weight)), stacked(lambda W: settings.transpose(W, weight))
    return y, LinearMap(
        Signature.between(x, y),
        forward=lambda T: apply(surround.push(T)),
        backward=lambda W: surround.pull(transpose(W)),
        forward_squared=lambda v: stacked(forward_squared)(surround.push(v)),
        backward_squared=lambda w: surround.pull(stacked(backward_squared)(w)),
    )


@weight_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution_weight(module: Conv, x: Tensor) -> Jacobian:
    """``δy = δA * pad(x) + δc``."""
    before, _, settings = _surrounded(module, x)
    return _weight_jacobian(module, before, settings, settings.narrow)


@rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_convolution(module: ConvTranspose, x: Tensor) -> tuple[Tensor, Jacobian]:
    """``y = Aᵀ * x + c``, with ``Aᵀ`` the adjoint of a convolution from the size of y to the size of x."""
    settings = _of_transposed(module, x)
    weight = module.weight
    y = settings.transpose(x, weight, module.bias)
    return y, LinearMap(
        Signature.between(x, y),
        forward=stacked(lambda T: settings.transpose(T, weight)),
        backward=stacked(lambda W: settings.apply(W, weight)),
        forward_squared=stacked(lambda v: settings.transpose(v, weight.square())),
        backward_squared=stacked(lambda w: settings.apply(w, weight.square())),
    )


@weight_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_convolution_weight(module: ConvTranspose, x: Tensor) -> Jacobian:
    """``δy = δAᵀ * x + δc``."""
    settings = _of_transposed(module, x)
    return _weight_jacobian(module, x, settings, settings.wide)


def _weight_jacobian(
    module: Conv | ConvTranspose, x: Tensor, settings: Convolution, out_size: tuple[int, ...]
) -> ConvWeight:
    has_bias = module.bias is not None
    size = module.weight.numel() + (module.out_channels if has_bias else 0)
    signature = Signature(len(x), (size,), (module.out_channels, *out_size), x.dtype, x.device)
    return ConvWeight(x, settings, tuple(module.weight.shape), module.transposed, has_bias, signature)


def _surrounded(module: Conv, x: Tensor) -> tuple[Tensor, LinearKind, Convolution]:
    """The input as the kernel sees it, how it came from ``x``, and the convolution that remains."""
    require_dims(module, x, len(module.kernel_size) + 2)
    amounts, mode = _amounts(module)
    symmetric = all(left == right for left, right in amounts)
    if module.padding_mode == "zeros" and symmetric:
        surround: LinearKind = Reshape(Signature.between(x, x))
        before, padding = x, tuple(left for left, _ in amounts)
    else:
        before, surround = padded(module, x, _last_axis_first(amounts), mode)
        padding = (0,) * len(amounts)
    wide = tuple(before.shape[2:])
    narrow = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(wide, padding, module.dilation, module.kernel_size, module.stride, strict=True)
    )
    settings = (module.kernel_size, module.stride, padding, module.dilation, module.groups)
    return before, surround, Convolution(wide, narrow, *settings)


def _amounts(module: Conv) -> tuple[list[tuple[int, int]], str]:
    """Padding before and behind each axis, and its mode as `torch.nn.functional.pad` names it."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    if module.padding == "valid":
        return [(0, 0)] * len(module.kernel_size), mode
    if module.padding == "same":
        totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return [(total // 2, total - total // 2) for total in totals], mode
    return [(p, p) for p in module.padding if isinstance(p, int)], mode


def _last_axis_first(amounts: list[tuple[int, int]]) -> list[int]:
    return [amount for pair in reversed(amounts) for amount in pair]


def _of_transposed(module: ConvTranspose, x: Tensor) -> Convolution:
    require_dims(module, x, len(module.kernel_size) + 2)
    narrow = tuple(x.shape[2:])
    padding = tuple(p for p in module.padding if isinstance(p, int))
    settings = (module.kernel_size, module.stride, padding, module.dilation)
    wide = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + 1 + beyond
        for n, beyond, k, s, p, d in zip(narrow, module.output_padding, *settings, strict=True)
    )
    return Convolution(wide, narrow, *settings, module.groups)


def _squared_terms(module: Conv, x: Tensor, weight: Tensor, settings: Convolution) -> SquaredTerms:
    """Kernels whose maps, each at its own positions, make up the entrywise square.

    Where padding repeats elements, taps of the kernel at the border read the same one, and their weights add up before
    they are squared. Which taps do so depends on the position along each axis, in a few patterns.
    """
    amounts, mode = _amounts(module)
    if mode == "constant":
        return [(weight.square(), 1.0)]
    copied = sources(x.shape[2:], _last_axis_first(amounts), mode, x.device)
    axes = [_patterns(source, axis, settings, weight.dtype) for axis, source in enumerate(copied)]
    terms: SquaredTerms = []
    for choice in product(*axes):
        kernel, mask = weight, torch.ones((), dtype=weight.dtype, device=weight.device)
        for axis, (merge, where) in enumerate(choice):
            kernel = torch.tensordot(kernel, merge, dims=([axis + 2], [1])).movedim(-1, axis + 2)
            mask = mask.unsqueeze(-1) * where
        terms.append((kernel.square(), mask))
    return terms


def _patterns(source: Tensor, axis: int, settings: Convolution, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Along one axis: matrices that add up taps which read the same element, with the positions where they do."""
    k, s, d, n = settings.kernel[axis], settings.stride[axis], settings.dilation[axis], settings.narrow[axis]
    read = source.unfold(0, d * (k - 1) + 1, s)[:n, ::d]
    first = (read.unsqueeze(2) == read.unsqueeze(1)).to(torch.int8).argmax(2)
    patterns, which = torch.unique(first, dim=0, return_inverse=True)
    return [(F.one_hot(taps, k).T.to(dtype), (which == i).to(dtype)) for i, taps in enumerate(patterns)]
