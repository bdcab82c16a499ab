"""Singular values with finite derivatives where some of them are equal or zero.

torch differentiates them by its singular vectors, whose derivatives are infinite there, and the second derivatives come
out as NaN. Written without derivatives of vectors they are finite wherever they exist, as those of the nuclear norm at
the identity, and parts that have none, being kinks, count as zero, as everywhere in this package.

With ``W = U diag(g) Vᵀ``, the gradient of ``Σ g_i σ_i``, and ``P = Uᵀ X V`` of a direction X::

    ∂_X W = U ((P + Pᵀ)/2 ∘ (g_j - g_i)/(σ_j - σ_i) + (P - Pᵀ)/2 ∘ (g_i + g_j)/(σ_i + σ_j)) Vᵀ
            + (1 - UUᵀ) X V diag(g/σ) Vᵀ + U diag(g/σ) Uᵀ X (1 - VVᵀ)
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pullgeo._torch import equal_values


def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number: the largest singular value over the smallest, or by other norms."""
    if p not in (None, 2, -2) or A.is_complex() or not A.numel():
        return torch.linalg.cond(A, p)
    values = svdvals(A)
    largest, smallest = values[..., 0], values[..., -1]
    return smallest / largest if p == -2 else largest / smallest


def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values, in falling order."""
    if A.is_complex() or not A.numel():
        return torch.linalg.svdvals(A, driver=driver)
    values: Tensor = _Values.apply(A)
    return values


def linalg_svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> Any:
    """The singular value decomposition; see `pullgeo._torch.equal_values` for vectors of equal values."""
    if A.is_complex() or not A.numel():
        return torch.linalg.svd(A, full_matrices, driver=driver)
    U, S, Vh = (part.detach() for part in _svd(A.detach(), full_matrices, driver))
    wide, rank = A.shape[-2] != A.shape[-1], S.shape[-1]
    offset = equal_values.offsets(S, zeros=1 if wide else 2)
    if equal_values.is_spread():
        A = A + (U[..., :rank] * offset.unsqueeze(-2)) @ Vh[..., :rank, :]
    U, S, Vh = _svd(A, full_matrices, driver)
    S = S.detach()
    lacking = equal_values.near(S).sum(-1) > 1
    if wide:
        lacking = lacking | (equal_values.rounding(S) >= S)
    of_U, of_V = (F.pad(lacking, (0, n - rank)) for n in (U.shape[-1], Vh.shape[-2]))
    U = equal_values.WithoutDerivative.apply(U, of_U.unsqueeze(-2).expand(U.shape))
    Vh = equal_values.WithoutDerivative.apply(Vh, of_V.unsqueeze(-1).expand(Vh.shape))
    return torch.return_types.linalg_svd((U, svdvals(A), Vh))  # type: ignore[attr-defined]


def _svd(A: Tensor, full_matrices: bool = False, driver: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """By torch itself, whatever is substituted."""
    with torch._C.DisableTorchFunction():
        U, S, Vh = torch.linalg.svd(A, full_matrices, driver=driver)
    return U, S, Vh


def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Any:
    """The older form, with V itself."""
    if not compute_uv:
        return torch.svd(input, some, compute_uv)
    U, S, Vh = linalg_svd(input, not some)
    return torch.return_types.svd((U, S, Vh.mH))


class _Values(torch.autograd.Function):
    """``σ``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor) -> Tensor:
        return torch.linalg.svdvals(A)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        gradient: Tensor = _Gradient.apply(*ctx.saved_tensors, cotangents[0])
        return gradient

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        slope: Tensor = _Slope.apply(*ctx.saved_tensors, tangents[0])
        return slope


class _Gradient(torch.autograd.Function):
    """``A, g -> U diag(g) Vᵀ``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, g: Tensor) -> Tensor:
        U, _, Vh = _svd(A)
        return U @ (g.unsqueeze(-1) * Vh)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, Tensor]:
        A, g = ctx.saved_tensors
        slope: Tensor = _Slope.apply(A, cotangents[0])
        return _gradient_along(A, g, cotangents[0]), slope

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        A, g = ctx.saved_tensors
        X, rate = tangents
        moved = torch.zeros_like(A)
        moved = moved if X is None else moved + _gradient_along(A, g, X)
        return moved if rate is None else moved + _Gradient.apply(A, rate)


class _Slope(torch.autograd.Function):
    """``A, X -> diag(Uᵀ X V)``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, X: Tensor) -> Tensor:
        U, _, Vh = _svd(A)
        return (U * (X @ Vh.mT)).sum(-2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, Tensor]:
        A, X = ctx.saved_tensors
        gradient: Tensor = _Gradient.apply(A, cotangents[0])
        return _gradient_along(A, cotangents[0], X), gradient

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        A, X = ctx.saved_tensors
        Y, rate = tangents
        moved = torch.zeros_like(A[..., 0, :]) if A.shape[-2] >= A.shape[-1] else torch.zeros_like(A[..., 0])
        moved = moved if Y is None else moved + _second(A, X, Y)
        return moved if rate is None else moved + _Slope.apply(A, rate)


def _gradient_along(A: Tensor, g: Tensor, X: Tensor) -> Tensor:
    """``∂_X U diag(g) Vᵀ``."""
    U, Vh, P, apart, together, inverse = _parts(A, X)
    g_i, g_j = g.unsqueeze(-1), g.unsqueeze(-2)
    inner = (P + P.mT) / 2 * (g_j - g_i) * apart + (P - P.mT) / 2 * (g_i + g_j) * together
    rate = (g * inverse).unsqueeze(-2)
    left, right = _outside(U, Vh, X)
    return U @ inner @ Vh + (left * rate) @ Vh + (U * rate) @ right


def _second(A: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """``∂_Y diag(Uᵀ X V)``: what ``⟨X, ∂_Y U diag(g) Vᵀ⟩`` is for each entry of g."""
    U, Vh, P, apart, together, inverse = _parts(A, Y)
    Q = U.mT @ X @ Vh.mT
    even, odd = Q * (P + P.mT) / 2 * apart, Q * (P - P.mT) / 2 * together
    pairs = (even + odd).sum(-2) + (odd - even).sum(-1)
    (left, right), (mine, other) = _outside(U, Vh, Y), _outside(U, Vh, X)
    return pairs + inverse * ((mine * left).sum(-2) + (other * right).sum(-1))


def _outside(U: Tensor, Vh: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
    """``(1 - UUᵀ) X V`` and ``Uᵀ X (1 - VVᵀ)``."""
    left, right = X @ Vh.mT, U.mT @ X
    return left - U @ (U.mT @ left), right - (right @ Vh.mT) @ Vh


def _parts(A: Tensor, X: Tensor) -> tuple[Tensor, ...]:
    """The decomposition, ``Uᵀ X V``, and reciprocals of differences, sums and values, zero where these vanish."""
    U, S, Vh = _svd(A)
    rounding = 8 * torch.finfo(S.dtype).eps * max(A.shape[-2:]) * S.detach().amax(-1, keepdim=True)
    i, j = S.unsqueeze(-1), S.unsqueeze(-2)
    apart, together = (_reciprocal(a, rounding.unsqueeze(-1)) for a in (j - i, i + j))
    return U, Vh, U.mT @ X @ Vh.mT, apart, together, _reciprocal(S, rounding)


def _reciprocal(a: Tensor, rounding: Tensor) -> Tensor:
    zero = a.abs() <= rounding
    return torch.where(zero, 0.0, torch.where(zero, 1.0, a).reciprocal())
