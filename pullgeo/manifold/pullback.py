"""The manifold that a decoder spans."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullgeo.errors import NonFiniteError, OptionError, ShapeError
from pullgeo.geodesic import EnergyExpansion, Expansion, chord_energy, chord_lengths, expand_chord_energy
from pullgeo.jacobian import Jacobian, linearize
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.precision import in_double, is_single
from pullgeo.manifold.second_fundamental import Immersion
from pullgeo.metric import Dense, Diagonal, Identity, Metric
from pullgeo.typing import Decoder


class PullbackManifold(Manifold):
    """The latent space of a decoder f with the metric ``G(z) = J(z)ᵀ M J(z)`` pulled back from its output.

    Args:
        decoder: any network or function, latents ``(b, d)`` to outputs ``(b, *out)``, sample by sample. Modules stay
            as they are: nothing is rewritten, cast or put into another mode.
        ambient: the constant metric ``M`` on the flattened output; Euclidean if ``None``.
        output: picks the tensor from what the decoder returns, if that is not a tensor: ``lambda out: out.mean``.

    Raises:
        OptionError: the decoder cannot be called, or the ambient metric is not a constant `Metric`.

    Source: Arvanitidis, Hansen, Hauberg, *Latent Space Oddity*, ICLR 2018, section 3.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> plane = torch.nn.Linear(2, 3).double()
        >>> manifold = PullbackManifold(plane)
        >>> z = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
        >>> straight = (plane(z[1]) - plane(z[0])).norm()
        >>> bool((manifold.dist(z[:1], z[1:]) - straight).abs() < 1e-10)
        True
    """

    name = "pullback"

    def __init__(
        self, decoder: Decoder, ambient: Metric | None = None, output: Callable[[Any], Tensor] | None = None
    ) -> None:
        super().__init__()
        if not callable(decoder):
            raise OptionError(
                f"PullbackManifold: decoder must be a torch.nn.Module or a function, got {type(decoder).__name__}."
            )
        if ambient is not None and (not isinstance(ambient, Identity | Diagonal | Dense) or ambient.diag().ndim != 1):
            raise OptionError(
                "PullbackManifold: ambient must be a constant metric without a batch, one of Identity(D), "
                f"Diagonal(values) with values (D,), Dense(matrix) with matrix (D, D); got {ambient!r}."
            )
        self.decoder = decoder
        self.ambient = ambient
        self.output = output

    def decode(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b *out"]:
        """The decoder's output at a batch of latents."""
        return self._map(z)

    def metric(self, z: Tensor) -> Metric:
        """``G(z) = JᵀMJ``, held implicitly: ``.dense()`` multiplies it out, ``.inner(u, v)`` pushes two tangents.

        Raises:
            NonFiniteError: a latent, or what the decoder returns for it, is NaN or infinite.
            ShapeError: ``z`` is not ``(b, d)``, or the ambient metric is of another dimension than the output.

        Cost: one forward pass; ``.dense()`` costs d further tangent passes, or fewer.
        """
        J = self._linearize(z)[1]
        return self._ambient_of(J).pullback(J)

    def connection(
        self, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], w: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """``Γ(u, w) = G⁻¹ Jᵀ M f''(u, w)``: no derivative of the metric is needed.

        Raises:
            SingularMetricError: the decoder squashes a direction at a point.

        Cost: one forward pass, d tangent passes and one second-order pass.
        """
        J = self._linearize(z)[1]
        M = self._ambient_of(J)
        bent = J.second_push(u.unsqueeze(0), w.unsqueeze(0)).flatten(2)
        columns = J.columns()
        force = torch.einsum("kbo,bo->bk", columns, M.apply(bent).squeeze(0))
        return Dense(M.gram(columns)).solve(force)

    def immersion(self, z: Float[Tensor, "b d"]) -> Immersion:
        """The decoder to second order, as a map into the flat space of its outputs.

        Cost: one forward pass and d tangent passes.
        """
        J = self._linearize(z)[1]
        return Immersion(J.columns(), lambda T, S: J.second_push(T, S).flatten(2), self._ambient_of(J))

    def in_double(self) -> "PullbackManifold":
        """This manifold in float64, connected to the same weights."""
        return PullbackManifold(in_double(self.decoder), _metric_in_double(self.ambient), self.output)

    def in_single(self) -> "PullbackManifold | None":
        """This manifold if its decoder is in float32: solvers begin with it, as it takes half the time."""
        fits = self.ambient is None or self.ambient.dtype == torch.float32
        return self if fits and is_single(self.decoder) else None

    def expand(self, z: Float[Tensor, "n d"]) -> Expansion:
        """The decoder to second order at n points: value, tangents, and second derivatives against a cotangent."""
        y, J = linearize(self._map, z)
        tangents, second = J.push_with_second(J.signature.in_basis())
        shape = y.shape
        return Expansion(y.flatten(1), tangents.flatten(2), lambda w: second(w.reshape(shape)))

    def energy(self, nodes: Float[Tensor, "b nodes d"]) -> Float[Tensor, " b"]:
        """``T Σ Δ_iᵀ M Δ_i`` over the chords ``Δ_i`` in the output."""
        return chord_energy(self._decode_flat, self._apply, nodes)

    def expand_energy(self, nodes: Float[Tensor, "b nodes d"]) -> EnergyExpansion:
        """The chord energy with its exact gradient and block-tridiagonal Hessian."""
        return expand_chord_energy(self.expand, self._apply, nodes, self._decode_flat)

    def chord_lengths(self, layers: Float[Tensor, "p n k d"]) -> Float[Tensor, "p s k k"]:
        """Lengths of the chords in the output between all points of successive layers."""
        return chord_lengths(self._decode_flat, None if self.ambient is None else self.ambient.root(), layers)

    @property
    def _map(self) -> Decoder:
        return self.decoder if self.output is None else _Output(self.decoder, self.output)

    @property
    def _apply(self) -> Callable[[Tensor], Tensor] | None:
        return None if self.ambient is None else self.ambient.apply

    def _decode_flat(self, z: Tensor) -> Tensor:
        return self._map(z).flatten(1)

    def _linearize(self, z: Tensor) -> tuple[Tensor, Jacobian]:
        self._check_points("metric", z)
        y, J = linearize(self._map, z)
        bad = ~torch.isfinite(y).flatten(1).all(1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise NonFiniteError(
                f"PullbackManifold: the decoder returned NaN or infinity at {int(bad.sum())} of {len(z)} latents, the "
                f"first at index {first}, z = {z[first].tolist()}. Check its weights, and keep latents where it was "
                "trained."
            )
        return y, J

    def _ambient_of(self, J: Jacobian) -> Metric:
        s = J.signature
        if self.ambient is None:
            return Identity(s.n_out, s.dtype, s.device)
        if self.ambient.dim != s.n_out:
            raise ShapeError(
                f"PullbackManifold: the decoder's flattened output has dimension {s.n_out} and the ambient metric "
                f"lives in dimension {self.ambient.dim}. They must be the same."
            )
        return self.ambient


class _Output(nn.Module):
    """A decoder followed by what picks the tensor out of its result."""

    def __init__(self, decoder: Decoder, output: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.decoder = decoder
        self.output = output

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.decoder(z))


def _metric_in_double(metric: Metric | None) -> Metric | None:
    if isinstance(metric, Identity):
        return Identity(metric.dim, torch.float64, metric.device)
    if isinstance(metric, Diagonal):
        return Diagonal(metric.values.double())
    if isinstance(metric, Dense):
        return Dense(metric.matrix.double())
    return metric
