"""Volume: how a chart stretches, and the Laplacian that belongs to its measure."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.grad_mode import check_grad_mode
from pullgeo._torch.half_precision import decomposable
from pullgeo.errors import ShapeError
from pullgeo.manifold.exponential import Connection
from pullgeo.manifold.frame import Frame
from pullgeo.metric.base import Metric
from pullgeo.numerics.directional_derivative import depends_on_others, variable

ScalarField = Callable[[Tensor], Tensor]
"""Points ``(b, d)`` to numbers ``(b,)``, point by point, composed of torch operations."""


def condition_number(G: Metric) -> Float[Tensor, "*b"]:
    """``λ_max / λ_min`` of the eigenvalues of G; infinite where G is singular to working precision."""
    eigenvalues = torch.linalg.eigvalsh(decomposable(G.dense())).to(G.dtype)
    least, most = eigenvalues[..., 0], eigenvalues[..., -1]
    regular = least > torch.finfo(least.dtype).eps * most
    return torch.where(regular, most / torch.where(regular, least, 1.0), torch.inf)


def laplace_beltrami(
    metric: Callable[[Tensor], Metric], connection: Connection, function: ScalarField, z: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """``Δf = Σ_a (f''(E_a, E_a) - df(Γ(E_a, E_a)))`` over an orthonormal frame ``E_a``: the trace of the Hessian."""
    b, d = z.shape
    frame = Frame.of(metric(z), b).vectors.mT  # [b, a, k]: vector a
    slope, second = _second_derivatives(function, z, frame)
    flat = frame.reshape(-1, d)
    return second.sum(1) - torch.einsum("bk,bak->b", slope, _diagonal_christoffel(connection, z, flat).reshape(b, d, d))


def mean_christoffel(connection: Connection, z: Float[Tensor, "b d"], frame: Frame) -> Float[Tensor, "b d"]:
    """``Σ_a Γ(E_a, E_a) = G^ij Γ^k_ij`` for an orthonormal frame."""
    flat = frame.vectors.mT.reshape(-1, z.shape[1])
    return _diagonal_christoffel(connection, z, flat).reshape(frame.vectors.shape).sum(1)


def _diagonal_christoffel(connection: Connection, z: Tensor, flat: Tensor) -> Tensor:
    return connection(z.repeat_interleave(z.shape[1], 0), flat, flat)


def _second_derivatives(function: ScalarField, z: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient ``(b, d)``, and second derivatives ``f''(E_a, E_a)`` along the rows of a frame, ``(b, a)``."""
    check_grad_mode("laplace_beltrami")
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        z = variable("laplace_beltrami", z)
        value = function(z)
        if value.shape != z.shape[:1]:
            raise ShapeError(
                f"laplace_beltrami: the function must map {tuple(z.shape)} to ({len(z)},), got {tuple(value.shape)}. "
                "Return one number per point; sum or squeeze the last axis."
            )
        again = again and (frame.requires_grad or depends_on_others(value, z))
        slope = torch.zeros_like(z)
        if value.requires_grad:
            slope = torch.autograd.grad(value.sum(), z, create_graph=True)[0]
        second = []
        for direction in frame.unbind(1):
            along = None
            if slope.requires_grad:
                (along,) = torch.autograd.grad(
                    slope, z, direction, create_graph=again, retain_graph=True, allow_unused=True
                )
            second.append(torch.zeros_like(value) if along is None else (along * direction).sum(1))
        stacked = torch.stack(second, 1)
    return (slope, stacked) if again else (slope.detach(), stacked.detach())
