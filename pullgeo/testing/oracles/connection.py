"""Connection and curvature of a metric G(z) by finite differences of G alone.

Conventions: ``Γ[k, i, j]`` is Γ^k_ij; R(X, Y)Z = ∇_X∇_Y Z - ∇_Y∇_X Z - ∇_[X,Y] Z with
``R[l, i, j, k]`` = R^l_ijk = ∂_i Γ^l_jk - ∂_j Γ^l_ik + Γ^l_im Γ^m_jk - Γ^l_jm Γ^m_ik, the component of R(∂_i, ∂_j)∂_k;
Ric_jk = R^i_ijk. A sphere of radius r has sectional curvature +1/r² and scalar curvature d(d-1)/r².
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.testing.oracles.curves import MetricFunction
from pullgeo.testing.oracles.differences import central_difference, combine, offsets


def christoffel(metric: MetricFunction, z: Float[Tensor, "b d"], step: float = 1e-2) -> Float[Tensor, "b d d d"]:
    """Christoffel symbols of the second kind, Γ^k_ij = ½ G^kl (∂_i G_lj + ∂_j G_li - ∂_l G_ij).

    Args:
        metric: ``(b, d) -> (b, d, d)``.
        z: points ``(b, d)``.
        step: step of the finite differences, see `central_difference`.

    Returns:
        Float64 ``(b, k, i, j)``, about 1e-11 accurate for smooth metrics of unit scale.

    Cost: G at 6 d + 1 points, per point.

    Example:
        >>> flat = lambda z: torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2)
        >>> christoffel(flat, torch.zeros(1, 2)).abs().max().item()
        0.0
    """
    z = z.detach().double()
    b, d = z.shape
    nodes = z + offsets(d, step)[:, None]
    values = _values(metric, nodes.reshape(-1, d)).reshape(len(nodes), b, d, d)
    dG = combine(values, step)  # dG[l, j, i] = ∂_i G_lj
    # first[l, i, j] = ½ (∂_i G_lj + ∂_j G_li - ∂_l G_ij)
    first = (dG.permute(0, 1, 3, 2) + dG - dG.permute(0, 3, 1, 2)) / 2
    return torch.linalg.solve(_values(metric, z), first.reshape(b, d, d * d)).reshape(b, d, d, d)


def _values(metric: MetricFunction, points: Tensor) -> Tensor:
    with torch.no_grad():
        return metric(points).double()


def riemann_tensor(metric: MetricFunction, z: Float[Tensor, "b d"], step: float = 1e-2) -> Float[Tensor, "b d d d d"]:
    """R^l_ijk, the components of R(∂_i, ∂_j)∂_k (see the top of this module for signs).

    Args:
        metric: ``(b, d) -> (b, d, d)``.
        z: points ``(b, d)``.
        step: step of the finite differences; they are nested, so about 1e-9 is reached for metrics of unit scale.

    Returns:
        Float64 ``(b, l, i, j, k)``.

    Cost: G at some 36 d² points, per point.

    Example:
        >>> flat = lambda z: torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2)
        >>> riemann_tensor(flat, torch.zeros(1, 2)).abs().max().item()
        0.0
    """
    if not len(z):
        return torch.zeros(0, *(z.shape[1],) * 4, dtype=torch.float64)
    tensors = []
    for point in z.detach().double():
        gamma = christoffel(metric, point[None], step)[0]
        derivative = central_difference(lambda p: christoffel(metric, p[None], step)[0], point, step)  # [l, j, k, i]
        tensor = torch.zeros((len(point),) * 4, dtype=torch.float64)
        for i in range(len(point)):
            for j in range(len(point)):
                turn = derivative[:, j, :, i] - derivative[:, i, :, j]
                tensor[:, i, j, :] = turn + gamma[:, i, :] @ gamma[:, j, :] - gamma[:, j, :] @ gamma[:, i, :]
        tensors.append(tensor)
    return torch.stack(tensors)


def sectional_curvature(
    metric: MetricFunction,
    z: Float[Tensor, "b d"],
    u: Float[Tensor, "b d"],
    v: Float[Tensor, "b d"],
    step: float = 1e-2,
) -> Float[Tensor, " b"]:
    """K(u, v) = ⟨R(u, v)v, u⟩ / (‖u‖²‖v‖² - ⟨u, v⟩²).

    Args:
        metric: ``(b, d) -> (b, d, d)``.
        z: points ``(b, d)``.
        u: tangent ``(b, d)``.
        v: tangent ``(b, d)``, not parallel to ``u``.
        step: as for `riemann_tensor`.

    Returns:
        Float64 ``(b,)``, in units of 1/length².

    Cost: G at some 36 d² points, per point.

    Example:
        >>> half_plane = lambda z: torch.eye(2, dtype=z.dtype) / z[:, 1, None, None] ** 2
        >>> K = sectional_curvature(half_plane, *torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]], [[0.3, 1.0]]]))
        >>> round(K.item(), 6)
        -1.0
    """
    values = []
    for point, tensor, a, b in zip(z, riemann_tensor(metric, z, step), u.double(), v.double(), strict=True):
        G = _values(metric, point[None].double())[0]
        turned = torch.einsum("lijk,i,j,k->l", tensor, a, b, b)
        area = (a @ G @ a) * (b @ G @ b) - (a @ G @ b) ** 2
        values.append(turned @ G @ a / area)
    return torch.stack(values) if values else torch.zeros(0, dtype=torch.float64)


def ricci_tensor(metric: MetricFunction, z: Float[Tensor, "b d"], step: float = 1e-2) -> Float[Tensor, "b d d"]:
    """Ric_jk = R^i_ijk; (d-1)/r² G on a sphere of radius r. Arguments and cost as for `riemann_tensor`."""
    return torch.einsum("biijk->bjk", riemann_tensor(metric, z, step))


def scalar_curvature(metric: MetricFunction, z: Float[Tensor, "b d"], step: float = 1e-2) -> Float[Tensor, " b"]:
    """S = G^jk Ric_jk; twice the Gaussian curvature of a surface. Arguments and cost as for `riemann_tensor`."""
    values = []
    for point, ricci in zip(z, ricci_tensor(metric, z, step), strict=True):
        values.append(torch.trace(torch.linalg.solve(_values(metric, point[None].double())[0], ricci)))
    return torch.stack(values) if values else torch.zeros(0, dtype=torch.float64)
