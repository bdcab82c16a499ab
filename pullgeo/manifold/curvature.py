"""Curvature, from the normal bending of an immersion or else from derivatives of the connection.

Signs and indices: ``R(X, Y)Z = ∇_X ∇_Y Z - ∇_Y ∇_X Z - ∇_[X,Y] Z`` and ``R[l, i, j, k] = R^l_ijk``, component l of
``R(∂_i, ∂_j)∂_k``; ``Ric_jk = R^i_ijk``; a sphere of radius r has sectional curvature +1/r².
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.manifold.chart import Chart
from pullgeo.manifold.frame import Frame
from pullgeo.metric.structured import Dense
from pullgeo.numerics.directional_derivative import directional


def operator(
    manifold: Chart,
    z: Float[Tensor, "b d"],
    u: Float[Tensor, "b d"],
    v: Float[Tensor, "b d"],
    w: Float[Tensor, "b d"],
) -> Float[Tensor, "b d"]:
    """``R(u, v)w``.

    With an immersion by the equation of Gauss, ``⟨R(u, v)w, x⟩ = ⟨II(v, w), II(u, x)⟩ - ⟨II(u, w), II(v, x)⟩``; else
    ``∂_u Γ(v, w) - ∂_v Γ(u, w) + Γ(u, Γ(v, w)) - Γ(v, Γ(u, w))``.
    """
    immersion = manifold.immersion(z)
    if immersion is None:
        points, there, back, carried = z.repeat(2, 1), torch.cat([u, v]), torch.cat([v, u]), w.repeat(2, 1)
        turn, slope = directional(lambda p: manifold.connection(p, back, carried), points, there)
        first, second = (slope + manifold.connection(points, there, turn)).chunk(2)
        return first - second
    d, b = z.shape[1], len(z)
    basis = torch.eye(d, dtype=z.dtype, device=z.device).unsqueeze(1).expand(d, b, d)
    one = torch.cat([v.unsqueeze(0), u.unsqueeze(0), u.expand(d, b, d), v.expand(d, b, d)])
    two = torch.cat([w.unsqueeze(0), w.unsqueeze(0), basis, basis])
    vw, uw, ux, vx = immersion.second_form(one, two).split([1, 1, d, d])
    M = immersion.ambient
    paired = (M.apply(vw) * ux).sum(-1) - (M.apply(uw) * vx).sum(-1)
    return Dense(M.gram(immersion.tangents)).solve(paired.mT)


def riemann_tensor(manifold: Chart, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d d d d"]:
    """``R^l_ijk`` as ``[b, l, i, j, k]``; see `operator`."""
    immersion = manifold.immersion(z)
    if immersion is None:
        return _from_connection(manifold, z)
    forms = immersion.all_second_forms()
    d, _, b, D = forms.shape
    products = immersion.ambient.gram(forms.reshape(d * d, b, D)).reshape(b, d, d, d, d)
    # ⟨II_jk, II_il⟩ - ⟨II_ik, II_jl⟩ as [b, l, i, j, k]
    lowered = torch.einsum("bjkil->blijk", products) - torch.einsum("bikjl->blijk", products)
    G = immersion.ambient.gram(immersion.tangents)
    return Dense(G).solve(lowered.reshape(b, d, d**3).permute(2, 0, 1)).permute(1, 2, 0).reshape(b, d, d, d, d)


def _from_connection(manifold: Chart, z: Tensor) -> Tensor:
    b, d = z.shape
    # one copy of the points for each direction of differentiation
    directions = torch.eye(d, dtype=z.dtype, device=z.device).unsqueeze(1).expand(d, b, d).reshape(-1, d)
    values, slopes = directional(manifold.christoffel, z.repeat(d, 1), directions)
    gamma = values[:b]
    # [b, l, i, j, k] = ∂_i Γ^l_jk + Γ^l_im Γ^m_jk, and the same with i and j exchanged
    half = torch.einsum("ibljk->blijk", slopes.unflatten(0, (d, b))) + torch.einsum("blim,bmjk->blijk", gamma, gamma)
    return half - half.transpose(2, 3)


def ricci(manifold: Chart, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d d"]:
    """``Ric_jk = R^i_ijk``; with an immersion ``⟨II_jk, H⟩ - Σ_a ⟨II(∂_j, E_a), II(∂_k, E_a)⟩``.

    ``E_a`` is an orthonormal frame and ``H = Σ_a II(E_a, E_a)`` the mean curvature vector; no fourth-order tensor.
    """
    immersion = manifold.immersion(z)
    if immersion is None:
        return torch.einsum("biijk->bjk", riemann_tensor(manifold, z))
    forms, M = immersion.all_second_forms(), immersion.ambient
    d, _, b, D = forms.shape
    E = Frame.of(Dense(M.gram(immersion.tangents)), b).vectors
    framed = torch.einsum("bia,ijbo->ajbo", E, forms)  # II(E_a, ∂_j)
    mean = torch.einsum("bja,ajbo->bo", E, framed)
    products = torch.einsum("ajbo,akbo->bjk", framed, M.apply(framed.reshape(d * d, b, D)).reshape(framed.shape))
    return torch.einsum("jkbo,bo->bjk", forms, M.apply(mean)) - products


def scalar_curvature(manifold: Chart, z: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """``S = G^jk Ric_jk``."""
    tensor = ricci(manifold, z)
    return Dense(manifold.metric(z).dense()).solve(tensor.permute(2, 0, 1)).diagonal(dim1=0, dim2=2).sum(-1)


def sectional_curvature(
    manifold: Chart, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """``⟨R(u, v)v, u⟩ / (‖u‖² ‖v‖² - ⟨u, v⟩²)``; NaN where u and v span no plane.

    With an immersion the numerator is ``⟨II(u, u), II(v, v)⟩ - ‖II(u, v)‖²``.
    """
    G = manifold.metric(z)
    flat = G.apply(u)
    length, size = (u * flat).sum(-1), G.inner(v, v)
    # the plane's curvature knows only the plane: an orthogonal pair loses no digits where u and v are nearly parallel
    v = v - ((v * flat).sum(-1) / length).unsqueeze(-1) * u
    height = G.inner(v, v)
    immersion = manifold.immersion(z)
    if immersion is None:
        numerator = G.inner(operator(manifold, z, u, v, v), u)
    else:
        uu, vv, uv = immersion.second_form(torch.stack([u, v, u]), torch.stack([u, v, v])).unbind(0)
        M = immersion.ambient
        numerator = M.inner(uu, vv) - M.inner(uv, uv)
    plane = height > (8 * torch.finfo(z.dtype).eps) ** 2 * size
    return torch.where(plane, numerator / torch.where(plane, length * height, 1.0), torch.nan)
