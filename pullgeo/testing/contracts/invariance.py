"""What no choice of latent coordinates may change: metric tensors as tensors, and distances."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.manifold.base import Manifold
from pullgeo.manifold.output import through
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.testing import oracles
from pullgeo.testing.contracts.judge import Judge
from pullgeo.typing import Decoder


def check_invariant(
    manifold: Manifold,
    diffeomorphism: Decoder,
    x: Float[Tensor, "b d"],
    y: Float[Tensor, "b d"],
    *,
    remake: Callable[[Decoder], Manifold] | None = None,
    rtol: float = 1e-6,
) -> None:
    """Check that distances do not change with the latent coordinates.

    A network's latents are coordinates without a meaning of their own: ``f`` with latents z and ``f ∘ ψ`` with latents
    ``w``, ``z = ψ(w)``, generate the same. What is measured must be the same too: ``d_{f∘ψ}(x, y) = d_f(ψ(x), ψ(y))``
    and ``G_{f∘ψ} = ψ'ᵀ G_f ψ'``. Euclidean distances of latents are not, nor is a metric with a part that looks at
    latents themselves, a regularisation ``JᵀJ + εI`` or the density of latents, if it is made anew from the new ones.

    Args:
        manifold: in the latents z.
        diffeomorphism: ``ψ``, smooth and invertible, from new coordinates ``(b, d)`` to latents ``(b, d)``: for a
            change of coordinates ``w = φ(z)`` its inverse.
        x: float64 points ``(b, d)`` in the new coordinates.
        y: float64 points ``(b, d)`` near enough that shortest geodesics from x are unique.
        remake: how the manifold is made of a decoder; as it is measured now if ``None``. Give it for manifolds that
            are made of more: it is called with ``f ∘ ψ``, or with ``ψ`` itself where the manifold has no decoder.
        rtol: what distances may differ, relatively.

    Raises:
        AssertionError: the map is no diffeomorphism at a point, or metric or distances change; the text tells which,
            by how much, and where.

    Cost: two boundary-value problems for each pair.

    Source: Syrota, Zainchkovskyy, Xi, Bloem-Reddy, Hauberg, *Identifying metric structures of deep latent variable
    models*, ICML 2025, who show that distances are identifiable where coordinates are not.

    Example:
        >>> from pullgeo import PullbackManifold
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7)).double()
        >>> x, y = torch.tensor([[[0.0, 1.0], [0.5, 2.0]], [[1.0, 1.0], [0.5, 1.0]]], dtype=torch.float64)
        >>> check_invariant(PullbackManifold(decoder), lambda w: w + 0.3 * w.sin().flip(1), x, y)
    """
    judge = Judge(f"check_invariant({type(manifold).__name__})")
    with judge.attempt("diffeomorphism"):
        z0, z1 = diffeomorphism(x).detach(), diffeomorphism(y).detach()
        slope = oracles.dense_jacobian(diffeomorphism, x)
    judge.require(z0.shape == x.shape, "diffeomorphism", f"expected shape {tuple(x.shape)}, got {tuple(z0.shape)}")
    worst = float(torch.linalg.cond(slope).max())
    judge.require(worst < 1e8, "diffeomorphism", f"its derivative has a condition number of {worst:.3g} at a point")
    other = _reparametrised(manifold, diffeomorphism, remake)
    expected = slope.mT @ manifold.metric(z0).dense().detach() @ slope
    found = other.metric(x).dense().expand(len(x), -1, -1)
    judge.close("metric: ψ'ᵀ G ψ'", found, expected, rtol=1e-9)
    there, here = manifold.dist(z0, z1), other.dist(x, y)
    for name, distance in (("latents", there), ("new coordinates", here)):
        lost = int((~torch.isfinite(distance)).sum())
        judge.require(lost == 0, f"dist in {name}", f"{lost} of {len(x)} pairs have none; geodesic() tells why")
    try:
        judge.close("dist", here, there, rtol=rtol)
    except AssertionError as error:
        raise AssertionError(
            f"{error}. The metric is the same: the map is not one to one between the points, or solvers have found "
            "different minima; take nearer points."
        ) from None


def _reparametrised(
    manifold: Manifold, diffeomorphism: Decoder, remake: Callable[[Decoder], Manifold] | None
) -> Manifold:
    if not isinstance(manifold, PullbackManifold):
        return PullbackManifold(diffeomorphism, manifold) if remake is None else remake(diffeomorphism)
    decoder = through(diffeomorphism, manifold.decoder)
    return manifold.with_decoder(decoder) if remake is None else remake(decoder)
