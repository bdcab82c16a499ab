"""Determinants, linear systems, eigenvalues and products of reflections, in operations that torch differentiates right.

torch's forward mode is right for each of them, and cannot be differentiated: its formulas take a factorisation that
depends on the point for a constant, so that gradients of pushed tangents were wrong or missing. At a singular matrix it
pushes zeros through a determinant, whose derivative there is the adjugate.
"""

from typing import Any

import torch
from torch import Tensor

from pullgeo._torch import equal_values

_CLOSED = 3
"""Size of the block whose determinant is written out: its first three derivatives need no division."""


def det(A: Tensor) -> Tensor:
    """The determinant, with all derivatives up to the third at singular matrices too.

    Gaussian elimination with complete pivoting never divides by the last pivots, and these are the ones that vanish;
    the last block of three rows is written out.
    """
    n = A.shape[-1]
    if n == 0:
        return torch.linalg.det(A)
    factor, block = A.new_ones(A.shape[:-2]), A
    for _ in range(n - _CLOSED):
        pivot, block, sign = _eliminated(block)
        factor = factor * sign * pivot
    return factor * _written_out(block)


def _eliminated(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The largest entry, the Schur complement of it, and the sign of the exchanges that bring it to the corner."""
    n = A.shape[-1]
    largest = A.detach().abs().flatten(-2).argmax(-1)
    row, column = largest // n, largest % n
    places = torch.arange(n, device=A.device)
    order = [_exchanged(places, chosen) for chosen in (row, column)]
    A = A.take_along_dim(order[0].unsqueeze(-1), -2).take_along_dim(order[1].unsqueeze(-2), -1)
    sign = torch.where((row == 0) ^ (column == 0), -1.0, 1.0).to(A.dtype)
    pivot = A[..., 0, 0]
    divisor = torch.where(pivot == 0, torch.ones_like(pivot), pivot)  # all of A vanishes then
    multiples = A[..., 1:, :1] / divisor[..., None, None]
    return pivot, A[..., 1:, 1:] - multiples * A[..., :1, 1:], sign


def _exchanged(places: Tensor, chosen: Tensor) -> Tensor:
    """The order of rows in which the first and a chosen one have changed places."""
    chosen = chosen.unsqueeze(-1)
    return torch.where(places == 0, chosen, torch.where(places == chosen, 0, places))


def _written_out(A: Tensor) -> Tensor:
    """The determinant of at most three rows."""
    rows = [[A[..., i, j] for j in range(A.shape[-1])] for i in range(A.shape[-1])]
    if len(rows) == 1:
        return rows[0][0]
    if len(rows) == 2:
        return rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def slogdet(A: Tensor) -> Any:
    """The sign, which is constant for real matrices, and the logarithm of the absolute determinant."""
    if A.is_complex() or A.shape[-1] == 0:
        return torch.linalg.slogdet(A)
    sign = torch.linalg.slogdet(A.detach()).sign
    pivots = torch.linalg.lu_factor(A)[0].diagonal(dim1=-2, dim2=-1)
    return torch.return_types.linalg_slogdet((sign, pivots.abs().log().sum(-1)))  # type: ignore[attr-defined]


def logdet(A: Tensor) -> Tensor:
    """The logarithm of the determinant, NaN where that is negative."""
    if A.is_complex() or A.shape[-1] == 0:
        return torch.logdet(A)
    sign, logarithm = slogdet(A)
    return torch.where(sign < 0, torch.nan, logarithm)


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """``A⁻¹ B``, or ``B A⁻¹``."""
    inverse = torch.linalg.inv(A)
    vectors = B.ndim == 1 or (A.ndim - 1 == B.ndim and B.shape == A.shape[:-1])
    right_hand = B.unsqueeze(-1) if vectors else B
    X = inverse @ right_hand if left else right_hand @ inverse
    return X.squeeze(-1) if vectors else X


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    """`solve` with the number that says whether it succeeded."""
    info = torch.linalg.solve_ex(A.detach(), B.detach(), left=left, check_errors=check_errors).info
    return torch.return_types.linalg_solve_ex((solve(A, B, left=left), info))  # type: ignore[attr-defined]


def tensorsolve(A: Tensor, B: Tensor, dims: Any = None) -> Tensor:
    """``X`` with ``tensordot(A, X, X.ndim) = B``."""
    if dims is not None:
        A = A.movedim(tuple(dims), tuple(range(A.ndim - len(dims), A.ndim)))
    shape = A.shape[B.ndim :]
    return solve(A.reshape(B.numel(), shape.numel()), B.reshape(-1)).reshape(shape)


class _Eigh(torch.autograd.Function):
    """Eigenvalues and eigenvectors of symmetric matrices, with formulas that can be differentiated again.

    torch divides by differences of eigenvalues with something in place of the zeros on the diagonal, whose own
    derivative is NaN. The numbers are torch's.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, L: Tensor, V: Tensor, values: bool) -> tuple[Tensor, Tensor]:
        """Both, as they were computed; or for the values alone, in which equal ones count as a kink."""
        return L.clone(), V.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep both, which is all that derivatives need."""
        ctx.save_for_backward(*output)
        ctx.save_for_forward(*output)
        ctx.values = inputs[3]

    @staticmethod
    def backward(ctx: Any, gL: Tensor, gV: Tensor) -> tuple[Tensor, None, None, None]:
        """``V (diag gL + Vᴴ gV / (λ_j - λ_i)) Vᴴ``."""
        L, V = ctx.saved_tensors
        inner = _over_gaps(V.mH @ gV, L, ctx.values) + gL.to(V.dtype).diag_embed()
        return V @ inner @ V.mH, None, None, None

    @staticmethod
    def jvp(ctx: Any, dA: Tensor, *_: None) -> tuple[Tensor, Tensor]:
        """``diag (Vᴴ dA V)`` and ``V (Vᴴ dA V / (λ_j - λ_i))``."""
        L, V = ctx.saved_tensors
        inner = V.mH @ dA @ V
        return inner.diagonal(dim1=-2, dim2=-1).real, V @ _over_gaps(inner, L, ctx.values)


def _over_gaps(inner: Tensor, L: Tensor, values: bool) -> Tensor:
    """Entries over ``λ_j - λ_i`` in row i and column j, zero on the diagonal.

    Eigenvectors of equal eigenvalues have no derivatives: what asks for them is NaN, unless it counts as a kink. That
    goes for cotangents of zero too, as those through ``V g(Λ) Vᵀ`` where g vanishes, whose derivative does not.
    """
    n = L.shape[-1]
    gaps = L.unsqueeze(-2) - L.unsqueeze(-1)
    same = torch.eye(n, dtype=torch.bool, device=L.device)
    if values:
        size = L.detach().abs().amax(-1, keepdim=True).unsqueeze(-1) if n else L.unsqueeze(-1)
        same = same | (gaps.abs() <= 8 * n * torch.finfo(L.dtype).eps * size)
    elif n:
        # a factor, as the derivative of what is replaced by NaN would be zero
        inner = inner * torch.where(equal_values.near(L.detach()) & ~same, torch.nan, L.new_ones(()))
    return torch.where(same, 0.0, inner / torch.where(same, 1.0, gaps))


def eigh(A: Tensor, UPLO: str = "L") -> Any:
    """Eigenvalues and eigenvectors of symmetric matrices."""
    found = _decomposed(A, UPLO)
    offset = equal_values.offsets(found[0])
    if equal_values.is_spread():
        A = A + (found[1] * offset.unsqueeze(-2)) @ found[1].mH
        found = _decomposed(A, UPLO)
    values, vectors = _Eigh.apply(A, *found, True)[0], _Eigh.apply(A, *found, False)[1]
    return torch.return_types.linalg_eigh((values, vectors))  # type: ignore[attr-defined]


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """Eigenvalues of symmetric matrices."""
    L: Tensor = _Eigh.apply(A, *_decomposed(A, UPLO), True)[0]
    return L


def _decomposed(A: Tensor, UPLO: str) -> tuple[Tensor, Tensor]:
    """Constants, by torch itself, whatever is substituted."""
    with torch._C.DisableTorchFunction():
        L, V = torch.linalg.eigh(A.detach(), UPLO)
    return L.detach(), V.detach()


def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    """``A⁻¹ b`` of a triangular matrix, and this matrix."""
    triangle = A.mT if transpose else A
    X = torch.linalg.solve_triangular(triangle, b, upper=upper != transpose, unitriangular=unitriangular)
    return torch.return_types.triangular_solve((X, A.clone()))


def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """``(L Lᴴ)⁻¹`` of a lower triangle."""
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    inverse = torch.linalg.solve_triangular(L.triu().mH if upper else L.tril(), eye, upper=False)
    return inverse.mH @ inverse


def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first columns of the product of the reflections ``1 - τ_i v_i v_iᴴ``."""
    m, n = A.shape[-2:]
    eye = torch.eye(m, n, dtype=A.dtype, device=A.device)
    vectors = A.tril(-1) + eye
    Q = eye.expand(*A.shape[:-2], m, n)
    for i in reversed(range(tau.shape[-1])):
        v = vectors[..., i : i + 1]
        Q = Q - tau[..., i, None, None] * v @ (v.mH @ Q)
    return Q
