"""Functions with kinks, ties or removable singularities, in operations whose two modes agree there.

The convention is that of torch's reverse mode: what it gives to one of several arguments, forward mode takes from the
same one; a norm, a standard deviation or an angle has derivative zero at zero, and so have the derivatives of that.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pullgeo._torch.singular_values import svdvals

TIES_ARE_SHARED = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14)
"""Whether equal arguments of ``fmax`` and ``fmin`` have half the gradient each; the first had all of it before."""

_SERIES = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(11))


def masked_root(s: Tensor, power: float = 0.5) -> Tensor:
    """``s^power`` of what is not negative, constant where that is zero."""
    zero = s == 0
    root = torch.where(zero, 1.0, s)
    return torch.where(zero, 0.0, root.sqrt() if power == 0.5 else root**power)


def vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """``(Σ |x|^p)^(1/p)``; entries and norms that vanish have derivative zero, except for p = 2 through the norm."""
    p = float(ord)
    if p <= 0 or x.numel() == 0:
        return torch.linalg.vector_norm(x, ord, dim, keepdim, dtype=dtype)
    x = x if dtype is None else x.to(dtype)
    dims = list(range(x.ndim)) if dim is None else dim
    if not x.ndim:
        return x.abs()
    if p == math.inf:
        return x.abs().amax(dims, keepdim)
    if p == 2:
        squares = x.real.square() + x.imag.square() if x.is_complex() else x.square()
        return masked_root(squares.sum(dims, keepdim))
    size = x.abs()
    if p == 1:
        return size.sum(dims, keepdim)
    zero = size == 0
    powers = torch.where(zero, 0.0, torch.where(zero, 1.0, size) ** p)
    return masked_root(powers.sum(dims, keepdim), 1 / p)


def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The norm of matrices; that of Frobenius as a vector's, and those by singular values as these."""
    if ord in ("nuc", 2, -2):
        A = (A if dtype is None else A.to(dtype)).movedim(tuple(dim), (-2, -1))
        values = svdvals(A)
        value = values.sum(-1) if ord == "nuc" else values.amax(-1) if ord == 2 else values.amin(-1)
        first, second = sorted(d % A.ndim for d in dim)
        return value.unsqueeze(first).unsqueeze(second) if keepdim else value
    if ord != "fro":
        return torch.linalg.matrix_norm(A, ord, dim, keepdim, dtype=dtype)
    return vector_norm(A, 2, dim, keepdim, dtype=dtype)


def linalg_norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The norm of vectors or of matrices, as torch tells them apart."""
    dims = [dim] if isinstance(dim, int) else dim
    if ord is None or (len(dims) == 1 if dims is not None else A.ndim == 1):
        return vector_norm(A, 2 if ord is None else ord, dims, keepdim, dtype=dtype)
    return matrix_norm(A, ord, (-2, -1) if dims is None else dims, keepdim, dtype=dtype)


def norm(
    input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Any = None, dtype: Any = None
) -> Tensor:
    """The older norm, of vectors unless it is the sum of singular values."""
    if p == "nuc":
        return matrix_norm(input, p, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    return vector_norm(input, 2 if p is None or p == "fro" else p, dim, keepdim, dtype=dtype)


def dist(input: Tensor, other: Tensor, p: Any = 2) -> Tensor:
    """The norm of a difference."""
    return vector_norm(input - other, p)


def normalize(input: Tensor, p: Any = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
    """``x / max(‖x‖, ε)``."""
    return input / vector_norm(input, p, dim, True).clamp_min(eps)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """``⟨x1, x2⟩ / (max(‖x1‖, ε) max(‖x2‖, ε))``; torch differentiates the norms past the bound."""
    x1, x2 = torch.broadcast_tensors(x1, x2)
    units = []
    for x in (x1, x2):
        size = vector_norm(x, 2, dim, True)
        units.append(x / (size + (size.clamp_min(eps) - size).detach()))
    return (units[0] * units[1]).sum(dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: Any = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """``‖x1 - x2 + ε‖`` along the last dimension."""
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


def cdist(x1: Tensor, x2: Tensor, p: Any = 2.0, compute_mode: Any = None) -> Tensor:
    """Distances between the rows of both."""
    return vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def pdist(input: Tensor, p: Any = 2) -> Tensor:
    """Distances between all pairs of rows."""
    i, j = torch.triu_indices(len(input), len(input), 1, device=input.device)
    return vector_norm(input[i] - input[j], p, -1)


def renorm(input: Tensor, p: Any, dim: int, maxnorm: Any) -> Tensor:
    """Slices along a dimension, made as short as a bound."""
    others = [d for d in range(input.ndim) if d != dim % input.ndim]
    size = vector_norm(input, p, others, True)
    long = size > maxnorm
    return input * torch.where(long, maxnorm / (torch.where(long, size, 1.0) + 1e-7), 1.0)


def std(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The root of the variance."""
    return masked_root(torch.var(input, *args, **kwargs))


def std_mean(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean."""
    variance, mean = torch.var_mean(input, *args, **kwargs)
    return masked_root(variance), mean


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """``√(x² + y²)``."""
    zero = (input == 0) & (other == 0)
    return torch.where(zero, 0.0, torch.hypot(torch.where(zero, 1.0, input), other))


def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle of ``(other, input)``."""
    zero = (input == 0) & (other == 0)
    angle = torch.atan2(torch.where(zero, 0.0, input), torch.where(zero, 1.0, other))
    return torch.where(zero, torch.atan2(input.detach(), other.detach()), angle)


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """``r (cos φ + i sin φ)``."""
    return torch.complex(abs * torch.cos(angle), abs * torch.sin(angle))


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """``x`` within bounds, of which it takes the one that it passes."""
    if not isinstance(min, Tensor) and not isinstance(max, Tensor):
        return torch.clamp(input, min, max)
    value = torch.clamp(input, min, max)
    over = input > max if max is not None else torch.zeros_like(value, dtype=torch.bool)
    under = input < min if min is not None else torch.zeros_like(over)
    inside, value = ~(over | under | value.isnan()), value.detach()
    if min is not None and max is not None:
        over, under = over | (max < min), under & (min < max)
    for chosen, argument in ((inside, input), (under, min), (over, max)):
        value = value if argument is None else torch.where(chosen, argument, value)
    return value


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """``x``, at least a bound."""
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """``x``, at most a bound."""
    return clamp(input, max=max)


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """The step at zero, constant as other steps are."""
    return torch.where(input == 0, values.detach(), (input > 0).to(input.dtype))


def cummax(input: Tensor, dim: int) -> Any:
    """The largest entries so far, and where they are."""
    indices = torch.cummax(input.detach(), dim).indices
    return torch.return_types.cummax((_gathered(input, dim, indices), indices))


def cummin(input: Tensor, dim: int) -> Any:
    """The smallest entries so far, and where they are."""
    indices = torch.cummin(input.detach(), dim).indices
    return torch.return_types.cummin((_gathered(input, dim, indices), indices))


def _gathered(input: Tensor, dim: int, indices: Tensor) -> Tensor:
    return input.gather(dim, indices) if input.ndim else input.clone()


def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The larger one, or the one that is a number; at ties as torch has it."""
    if TIES_ARE_SHARED:
        return torch.where(other.isnan(), input, torch.where(input.isnan(), other, torch.maximum(input, other)))
    return torch.where((input >= other) | other.isnan(), input, other)


def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The smaller one, or the one that is a number; at ties as torch has it."""
    if TIES_ARE_SHARED:
        return torch.where(other.isnan(), input, torch.where(input.isnan(), other, torch.minimum(input, other)))
    return torch.where((input <= other) | other.isnan(), input, other)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """``x`` where positive, and a slope times it elsewhere, one for all or one for each channel."""
    if weight.numel() > 1 and input.ndim > 1:
        weight = weight.reshape(-1, *[1] * (input.ndim - 2))
    return torch.where(input > 0, input, weight * input)


def celu(input: Tensor, alpha: Any = 1.0, inplace: bool = False) -> Tensor:
    """``x`` where positive, ``α (exp(x/α) - 1)`` elsewhere; torch rounds ``1/α`` to single precision."""
    y = torch.where(input > 0, input, alpha * torch.expm1(input.clamp(max=0) / alpha))
    return input.copy_(y) if inplace else y


def sinc(input: Tensor) -> Tensor:
    """``sin(πx) / πx``, by its series near zero, where torch has no second derivative."""
    u = math.pi * input
    small = u.abs() < 1
    square = torch.where(small, u, 0.0).square()
    series = torch.full_like(square, _SERIES[-1])
    for coefficient in reversed(_SERIES[:-1]):
        series = series * square + coefficient
    large = torch.where(small, 1.0, u)
    return torch.where(small, series, torch.sin(large) / large)


def power(input: Any, exponent: Any) -> Tensor:
    """``x^p``, constant in p where x is zero.

    For exponents that are tensors torch masks derivatives where p is zero, the mixed one ``1/x`` among them; here the
    exponential of ``p log |x|`` takes care of it.
    """
    if not isinstance(exponent, Tensor):
        return torch.pow(input, exponent)
    if not isinstance(input, Tensor):
        return torch.pow(input, exponent if input != 0 else exponent.detach())
    if input.is_complex() or not exponent.is_floating_point():
        return torch.pow(input, exponent)
    zero, negative = input == 0, input < 0
    fixed = exponent.detach()
    at_zero = torch.where(
        fixed == 0, 1.0, torch.pow(torch.where(zero, input, 1.0), torch.where(fixed == 0, 1.0, fixed))
    )
    size = torch.exp(exponent * torch.where(zero, 1.0, input).abs().log())
    sign = torch.where(fixed.remainder(2) == 1, -1.0, torch.where(fixed.remainder(2) == 0, 1.0, torch.nan))
    value = torch.where(zero, at_zero, torch.where(negative, sign, 1.0).to(size.dtype) * size)
    return value.to(torch.result_type(input, exponent))


def reflected_power(input: Tensor, other: Any) -> Tensor:
    """``other^input``."""
    return power(other, input)


def float_power(input: Any, exponent: Any) -> Tensor:
    """`power` in double precision."""
    base, p = (t.double() if isinstance(t, Tensor) and not t.is_complex() else t for t in (input, exponent))
    return power(base, p)


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """``log(exp x + exp y)``, constant where both are minus infinity."""
    nothing = (input == -torch.inf) & (other == -torch.inf)
    total = torch.logaddexp(torch.where(nothing, 0.0, input), torch.where(nothing, 0.0, other))
    return torch.where(nothing, -torch.inf, total)


def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """``log Σ exp x``, constant where all of it is minus infinity."""
    if input.numel() == 0 or not input.is_floating_point():
        return torch.logsumexp(input, dim, keepdim)
    top = input.detach().amax(dim, True)
    top = torch.where(top.isinf(), 0.0, top)
    total = (input - top).exp().sum(dim, keepdim)
    nothing = total == 0
    top = top if keepdim else top.reshape(total.shape)
    return torch.where(nothing, -torch.inf, torch.where(nothing, 1.0, total).log() + top)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """``log Σ_{j≤i} exp x_j``, by doubling; torch takes the logarithm of cotangents, which may be zero."""
    return _scanned(logaddexp, input, dim)


def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """``Π_{j≤i} x_j``, by doubling, so that nothing is divided by zeros."""
    return _scanned(torch.mul, input if dtype is None else input.to(dtype), dim)


def _scanned(combine: Callable[[Tensor, Tensor], Tensor], x: Tensor, dim: int) -> Tensor:
    """All partial results of an associative operation along a dimension. Cost: ``log n`` operations on everything."""
    if not x.ndim:
        return x.clone()
    n, step = x.shape[dim], 1
    while step < n:
        head, tail = x.narrow(dim, 0, step), x.narrow(dim, step, n - step)
        x = torch.cat([head, combine(tail, x.narrow(dim, 0, n - step))], dim)
        step *= 2
    return x


def layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """The last dimensions brought to mean zero and variance one; torch's pushed tangents have wrong gradients."""
    dims = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(dims, keepdim=True)
    y = centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Each channel brought to mean zero and variance one, as `layer_norm`."""
    if not use_input_stats:
        return F.instance_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    dims = tuple(range(2, input.ndim))
    centred = input - input.mean(dims, keepdim=True)
    y = centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
    shape = (-1, *[1] * len(dims))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)
