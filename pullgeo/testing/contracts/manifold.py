"""What every manifold must do: operations that belong together agree with each other and with the metric."""

from collections.abc import Callable

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.testing import oracles
from pullgeo.testing.contracts.judge import Judge, random_like

GEOOPT_NAMES = (
    "expmap", "logmap", "dist", "dist2", "inner", "norm", "transp", "retr", "proju", "projx", "egrad2rgrad",
    "expmap_transp", "retr_transp",
)  # fmt: skip
"""What geoopt's optimisers and users call."""

OWN_NAMES = ("metric", "geodesic", "log_volume", "christoffel")


def check_manifold(
    manifold: geoopt.Manifold,
    x: Float[Tensor, "b d"],
    y: Float[Tensor, "b d"],
    *,
    rtol: float = 1e-6,
    generator: torch.Generator | None = None,
) -> None:
    """Check that a manifold's operations fit together at pairs of points.

    The names of geoopt and of this package are there; G is symmetric, positive definite and finite, and ``inner``,
    ``norm``, ``log_volume`` and ``egrad2rgrad`` follow from it; ``christoffel`` follows from it by finite
    differences; ``dist`` is symmetric, zero from a point to itself, and the norm of ``logmap``; ``expmap`` undoes
    ``logmap``; ``transp`` keeps inner products; geodesics start and end where they should; projections do nothing
    twice; dtype is kept, arguments are left alone, and `geoopt.ManifoldParameter` takes the manifold.

    Args:
        manifold: the manifold, with the methods of `pullgeo.manifold.Manifold`.
        x: float64 points ``(b, d)``; take b ≥ 2.
        y: float64 points ``(b, d)`` near enough that shortest geodesics from x are unique.
        rtol: what may differ, relatively, in whatever needs a geodesic.
        generator: source of the random tangents; a fixed one by default.

    Raises:
        AssertionError: a check fails; the text names it, the largest error and its place.

    Cost: some five boundary-value and five initial-value problems for each pair.

    Example:
        >>> from pullgeo import PullbackManifold
        >>> x, y = torch.tensor([[[0.0, 1.0], [0.5, 2.0]], [[1.0, 1.0], [0.5, 1.0]]], dtype=torch.float64)
        >>> check_manifold(PullbackManifold(torch.nn.Linear(2, 3).double()), x, y)
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    judge = Judge(f"check_manifold({type(manifold).__name__})")
    _check_names(judge, manifold, x)
    G = _check_metric_tensor(judge, manifold, x)
    u, v = (random_like(x, *x.shape, generator=generator) for _ in range(2))
    with judge.unchanged("operations", x, y, u, v):
        _check_tangents(judge, manifold, x, u, v, G)
        velocity = _check_geodesics(judge, manifold, x, y, rtol)
        _check_transport(judge, manifold, (x, y), velocity, (u, v), rtol)


def _check_names(judge: Judge, manifold: geoopt.Manifold, x: Tensor) -> None:
    judge.require(isinstance(manifold, geoopt.Manifold), "type", "expected a geoopt.Manifold")
    for name in (*GEOOPT_NAMES, *OWN_NAMES):
        judge.require(callable(getattr(manifold, name, None)), "names", f"there is no method {name!r}")
    parameter = geoopt.ManifoldParameter(x.detach().clone(), manifold=manifold)
    judge.close("geoopt.ManifoldParameter", parameter, x, like=x)


def _check_metric_tensor(judge: Judge, manifold: geoopt.Manifold, x: Tensor) -> Tensor:
    G = manifold.metric(x).dense().detach()
    judge.require(G.shape == (*x.shape, x.shape[1]), "metric", f"expected (b, d, d), got {tuple(G.shape)}")
    judge.close("metric: symmetry", G, G.mT, like=x)
    smallest = float(torch.linalg.eigvalsh(G).min())
    judge.require(smallest > 0, "metric: positive definite", f"the smallest eigenvalue is {smallest:.3g}")
    return G


def _check_tangents(judge: Judge, manifold: geoopt.Manifold, x: Tensor, u: Tensor, v: Tensor, G: Tensor) -> None:
    Gv = oracles.jvp(G, v)
    size = float((u.norm(dim=-1) * Gv.norm(dim=-1)).max())
    judge.close("inner", manifold.inner(x, u, v), (u * Gv).sum(-1), like=x, scale=size)
    judge.close("inner with keepdim", manifold.inner(x, u, v, keepdim=True), (u * Gv).sum(-1, keepdim=True), scale=size)
    judge.close("norm", manifold.norm(x, v), (v * Gv).sum(-1).sqrt(), like=x)
    judge.close("log_volume", manifold.log_volume(x), torch.linalg.slogdet(G).logabsdet / 2, like=x, scale=1.0)
    condition = float(torch.linalg.cond(G).max())
    gradient = manifold.egrad2rgrad(x, u)
    rtol = 1e-13 * condition
    judge.close(
        "egrad2rgrad: ⟨grad, v⟩ = derivative along v", manifold.inner(x, gradient, v), (u * v).sum(-1), rtol=rtol
    )
    gamma = oracles.christoffel(_metric_function(manifold), x, step=2e-3)
    judge.close("christoffel", manifold.christoffel(x), gamma, like=x, rtol=1e-7 + 1e-12 * condition)
    for name, moved, expected in (
        ("projx", manifold.projx(manifold.projx(x)), manifold.projx(x)),
        ("proju", manifold.proju(x, manifold.proju(x, v)), manifold.proju(x, v)),
        ("retr by nothing", manifold.retr(x, torch.zeros_like(v)), x),
        ("expmap by nothing", manifold.expmap(x, torch.zeros_like(v)), x),
    ):
        judge.close(name, moved, expected, like=x)
    # A retraction agrees with the exponential map to first order.
    small = 1e-5 * v
    judge.close("retr to first order", manifold.retr(x, small) - x, small, rtol=1e-3)


def _check_geodesics(judge: Judge, manifold: geoopt.Manifold, x: Tensor, y: Tensor, rtol: float) -> Tensor:
    distance = manifold.dist(x, y)
    judge.require(
        bool(torch.isfinite(distance).all()),
        "dist",
        f"{int((~torch.isfinite(distance)).sum())} of {len(x)} pairs have no finite distance; geodesic() tells why",
    )
    judge.require(bool((distance >= 0).all()), "dist", "a distance is negative")
    judge.require(distance.dtype == x.dtype, "dist", f"expected dtype {x.dtype}, got {distance.dtype}")
    judge.close("dist: symmetry", manifold.dist(y, x), distance, rtol=rtol)
    judge.close("dist with keepdim", manifold.dist(x, y, keepdim=True), distance[:, None], rtol=rtol)
    judge.close("dist2", manifold.dist2(x, y), distance**2, rtol=rtol)
    nothing = manifold.dist(x, x)
    judge.close(
        "dist from a point to itself",
        nothing,
        torch.zeros_like(nothing),
        scale=float(distance.detach().max()),
        rtol=rtol,
    )
    logarithm = manifold.logmap(x, y)
    judge.close("norm of logmap = dist", manifold.norm(x, logarithm), distance, like=x, rtol=rtol)
    reached = manifold.expmap(x, logarithm)
    judge.close("expmap(x, logmap(x, y)) = y", reached, y, like=x, rtol=rtol, scale=float((y - x).abs().max()))
    ends = manifold.geodesic(x, y).curve(torch.tensor([0.0, 1.0], dtype=x.dtype, device=x.device))
    judge.close("geodesic: ends", ends, torch.stack([x, y], dim=1), like=x)
    expected, _ = oracles.geodesic_ivp(_metric_function(manifold), x, logarithm, rtol=1e-3 * rtol)
    judge.close("expmap against an integrator", reached, expected[:, 0], rtol=rtol)
    return logarithm


def _check_transport(
    judge: Judge,
    manifold: geoopt.Manifold,
    ends: tuple[Tensor, Tensor],
    velocity: Tensor,
    tangents: tuple[Tensor, Tensor],
    rtol: float,
) -> None:
    (x, y), (u, v) = ends, tangents
    # One call for all three: following a geodesic costs about the same for one tangent as for many.
    moved = manifold.transp(x.repeat(3, 1), y.repeat(3, 1), torch.cat([u, v, 2 * u - 3 * v]))
    moved_u, moved_v, moved_sum = moved.chunk(3)
    size = float((manifold.norm(x, u) * manifold.norm(x, v)).detach().max())
    kept = manifold.inner(y, moved_u, moved_v)
    judge.close("transp keeps inner products", kept, manifold.inner(x, u, v), like=x, rtol=rtol, scale=size)
    judge.close("transp is linear", moved_sum, 2 * moved_u - 3 * moved_v, rtol=rtol)
    field = _metric_function(manifold)
    carried = oracles.transport_along_geodesic(field, x, velocity, u, rtol=1e-3 * rtol)
    judge.close("transp against an integrator", moved_u, carried, rtol=rtol)
    reached, moved = manifold.expmap_transp(x, velocity, u)
    judge.close("expmap_transp: point", reached, y, like=x, rtol=rtol, scale=float((y - x).abs().max()))
    judge.close("expmap_transp: tangent", moved, carried, like=x, rtol=rtol)


def _metric_function(manifold: geoopt.Manifold) -> Callable[[Tensor], Tensor]:
    return lambda z: manifold.metric(z).dense()
