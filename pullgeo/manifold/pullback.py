"""The manifold that a decoder spans."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from pullgeo._repr import function_text
from pullgeo._torch.plain_memory import inference_named, outside_inference
from pullgeo._torch.unvalidated import unvalidated
from pullgeo.errors import DtypeError, ModuleError, NonFiniteError, OptionError, PullgeoError, SingularMetricError
from pullgeo.geodesic.energy.base import DiscreteEnergy, EnergyGradient, Expansion, QuadraticModel
from pullgeo.geodesic.energy.chord import ChordEnergy
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.boundary import FAILURES
from pullgeo.jacobian.contractions import combined, flat, gram
from pullgeo.jacobian.kinds.autodiff import differentiable_kernels
from pullgeo.jacobian.linearize import linearize, linearize_again
from pullgeo.jacobian.returned import checked_tensor
from pullgeo.jacobian.reverse import guarded
from pullgeo.jacobian.tracing.modules_alone import modules_alone
from pullgeo.likelihood.mixture_nodes import MonteCarlo
from pullgeo.manifold.ambient.base import Ambient
from pullgeo.manifold.ambient.convert import ambient_of
from pullgeo.manifold.ambient.flat import Flat
from pullgeo.manifold.ambient.metric_field import MetricFn
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.conditions import conditioned, decoder_of
from pullgeo.manifold.decoders.ensemble import Ensemble, MeanAndDeviation
from pullgeo.manifold.float64.convert import in_double, is_single
from pullgeo.manifold.float64.promote import Promoted
from pullgeo.manifold.output import MeanAndScale, Output, Reading, as_picker, through
from pullgeo.manifold.second_fundamental import Immersion
from pullgeo.metric.base import Metric
from pullgeo.metric.structured import Dense
from pullgeo.typing import Decoder

_EUCLIDEAN = Flat()

_PROMOTE = "Or give a function, lambda z: decoder(z): every operation in a function is given float64."


@dataclass
class Held:
    """What a manifold finds out of itself while nobody changes it.

    Attributes:
        map: the decoder with what follows on it.
        settled: whether it was known then what the decoder returns.
        dtype: of latents for which the map has been checked.
        energy: the discrete energy.
    """

    map: Decoder | None = None
    settled: bool = False
    dtype: torch.dtype | None = None
    energy: DiscreteEnergy | None = None


class PullbackManifold(Manifold):
    """The latent space of a decoder f with the metric ``G(z) = J(z)ᵀ M(f(z)) J(z)`` pulled back from its output.

    Args:
        decoder: any network or function, latents ``(b, d)`` to outputs ``(b, *out)``, sample by sample. Modules stay
            as they are: nothing is rewritten, cast or put into another mode. A model with ``encode`` and ``decode``
            stands for its method ``decode``, one with ``encoder`` and ``decoder`` for the latter. It may return

            * a tensor;
            * a distribution of torch, which is measured by its Fisher-Rao metric: by a flat isometry or hyperbolic
              planes where the family has them, else by its Fisher information along segments. That of a mixture is a
              sum over a finite support or over counts, a quadrature where data are single numbers, and an average of
              draws with a fixed seed else, which the repr tells;
            * a tuple, dict, dataclass or model output, of which one part has a row for each latent, or is called
              ``sample``, ``logits``, ``reconstruction`` or ``recon_x``. Anything else is asked about by an error.

            With the first latents it is seen which; the repr tells from then on.
        ambient: what measures outputs; Euclidean if ``None``. One of

            * a constant `Metric` on the flattened output;
            * a function or module from outputs ``(b, *out)`` to matrices ``(b, D, D)`` or to a `Metric`;
            * a geoopt manifold, whose points the outputs then are: ``Sphere()``, ``PoincareBall()``, ``Lorentz()``,
              ``SymmetricPositiveDefinite()``, ``Scaled``, ``ProductManifold``, ...;
            * another learned manifold, whose latents the outputs are;
            * a likelihood whose parameters the outputs are, for its Fisher information: anything with ``fisher(η)``, a
              `Metric`, and where there is one an ``embedding``, a module that maps parameters isometrically into
              Euclidean space;
            * `pullgeo.likelihood.MonteCarlo`, for decoders of mixtures: how expectations over them are taken;
            * an `Ambient` of your own.
        output: picks the tensor, or the distribution, from what the decoder returns: a function,
            ``lambda out: out.mean``; or for short its position, key or attribute: ``0``, ``"mean"``. For the expected
            metric of Gaussian decoders, which is the Euclidean one of (μ, σ): ``"mean+std"``, of distributions and
            pairs; ``"mean+logvar"``, ``"mean+var"``, ``"mean+logstd"`` of pairs, dicts and the like.
        conditions: further arguments of the decoder, by name, the same for all latents: a library size, a class. A
            tensor of one row is repeated for each latent.

    Raises:
        OptionError: the decoder cannot be called, nothing in the list is what ``ambient`` is, or ``output`` picks
            nothing. Later: the decoder returns a distribution whose information is not known, or with an ``ambient``.

    Source: Arvanitidis, Hansen, Hauberg, *Latent Space Oddity*, ICLR 2018, section 3; ambient metrics: Arvanitidis,
    Hauberg, Schölkopf, *Geometrically Enriched Latent Spaces*, AISTATS 2021; Fisher-Rao: Arvanitidis,
    González-Duque, Pouplin, Kalatzis, Hauberg, *Pulling back information geometry*, AISTATS 2022.

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

    _held: Held | None = None

    def __init__(
        self,
        decoder: Decoder | Any,
        ambient: Metric | geoopt.Manifold | MetricFn | Ambient | Any | None = None,
        output: Output | None = None,
        *,
        conditions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.decoder = conditioned(decoder_of(decoder), conditions)
        self.output = as_picker(output)
        draws = ambient if isinstance(ambient, MonteCarlo) else None
        self._given = None if ambient is None or draws is not None else ambient_of(ambient)
        self._reading = Reading(self.output, draws)

    def __repr__(self) -> str:
        return f"PullbackManifold({function_text(self.decoder)}{self._reading.text}, ambient={self.ambient})"

    @property
    def ambient(self) -> Ambient:
        """What measures outputs; for a decoder of distributions, the chart of their family once they are seen."""
        if self._given is not None:
            return self._given
        chart = self._reading.chart
        return _EUCLIDEAN if chart is None else chart.ambient

    @property
    def measured(self) -> str:
        """What distances are lengths of, in words for a page, once latents have been seen."""
        if self._reading.chart is not None:
            return "the distributions that the decoder returns, by their Fisher-Rao metric: G = JᵀIJ"
        return "the decoder's outputs, pulled back by its Jacobian: G = JᵀJ"

    def decode(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b *out"]:
        """The decoder's output at a batch of latents; of distributions the mean, or the probabilities of classes.

        Raises:
            ModuleError: it is not a tensor; the message lists what it holds.
        """
        self._settle(z)
        shown = through(self.decoder, self.output, *self._reading.shown())
        with inference_named():
            return checked_tensor(_name(self.decoder), shown(outside_inference(z)))

    def deviation(self, z: Float[Tensor, "b d"]) -> Tensor | None:
        """The standard deviation of what is decoded, ``(b, *out)``, or ``None`` if the decoder says nothing of it.

        That of a `MeanAndDeviation`, among the members of an `Ensemble`, of the mean and scale that ``output`` takes,
        and of a distribution.

        Raises:
            ModuleError: as `decode`.
        """
        self._settle(z)
        if isinstance(self.decoder, MeanAndDeviation):
            return self.decoder.deviation(z)
        if isinstance(self.decoder, Ensemble):
            return self.decoder.members_at(z).std(1, correction=0)
        if isinstance(self.output, MeanAndScale):
            return self.decode(z).chunk(2, 1)[1]
        found = self.distribution(z)
        return None if found is None else found.stddev

    def with_decoder(self, decoder: Decoder | Any) -> "PullbackManifold":
        """The manifold that another decoder spans, measured as this one is.

        Example:
            >>> manifold = PullbackManifold(torch.nn.Linear(2, 3), output=0)
            >>> manifold.with_decoder(torch.nn.Linear(5, 3))
            PullbackManifold(Linear(5 -> 3), output=0, ambient=Euclidean)
        """
        return PullbackManifold(decoder, self._asked, self.output)

    def distribution(self, z: Float[Tensor, "b d"]) -> Distribution | None:
        """What the decoder, with ``output``, returns for latents, if these are distributions; or ``None``.

        Raises:
            OptionError: their Fisher information is not known.
        """
        self._settle(z)
        if self._reading.chart is None:
            return None
        with inference_named(), unvalidated():
            found: Distribution = through(self.decoder, self.output, self._reading.pick)(outside_inference(z))
            return found

    def metric(self, z: Tensor) -> Metric:
        """``G(z) = JᵀMJ``, held implicitly: ``.dense()`` multiplies it out, ``.inner(u, v)`` pushes two tangents.

        As many tangents are moved at a time as their bytes allow. For another number, such as 1 where a single tangent
        of all points takes much memory, pull back yourself: with ``y, J = linearize(decoder, z)`` it is
        ``M.pullback(J.in_chunks(1))``, with M the metric at y, or ``ggn(decoder, z, likelihood, chunk_size=1)``.

        Raises:
            NonFiniteError: a latent, or what the decoder returns for it, is NaN or infinite.
            ShapeError: ``z`` is not ``(b, d)``, or the ambient metric is of another dimension than the output.
            OffManifoldError: an output is no point of the ambient manifold.

        Cost: one forward pass; ``.dense()`` costs d further tangent passes, or fewer.
        """
        y, J = self._linearize(z)
        self.ambient.check(y)
        return self.ambient.checked_metric(y).pullback(J)

    def connection(
        self, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], w: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """``Γ(u, w) = G⁻¹ Jᵀ M (f''(u, w) + Γ_M(Ju, Jw))``: no derivative of the pulled-back metric is needed.

        Raises:
            SingularMetricError: the decoder squashes a direction at a point.

        Cost: one forward pass, d tangent passes and one second-order pass.
        """
        y, J = self._linearize(z)
        _check_dimensions("connection", z, y)
        u, w = (outside_inference(u),) * 2 if w is u else (outside_inference(u), outside_inference(w))
        M = self.ambient.checked_metric(y)
        # one tensor for both directions if they are the same, which halves the work
        wide_u = u.unsqueeze(0)
        wide_w = wide_u if w is u else w.unsqueeze(0)
        d = z.shape[1]
        jet = flat(J.push_jet_of_basis(wide_u, wide_w))
        columns = jet[:d]
        products = gram(columns, M.apply(jet))
        force = products[:, :, d:].sum(2)
        if not isinstance(self.ambient, Flat):
            pushed_u = combined(columns, wide_u).squeeze(0)
            pushed_w = pushed_u if w is u else combined(columns, wide_w).squeeze(0)
            force = force + torch.einsum("kbo,bo->bk", columns, self.ambient.lowered_christoffel(y, pushed_u, pushed_w))
        return Dense(products[:, :, :d]).solve(force)

    def lowered_derivative(
        self, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], w: Float[Tensor, "b d"], rate: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """``Jᵀ M (J ẇ + f''(u, w) + Γ_M(Ju, Jw))``: the derivative of ``J w`` along the curve, pulled back.

        Cost: one forward pass, two or three tangent passes, one second-order and one backward pass, whatever d is.
        """
        y, J = self._linearize(z)
        _check_dimensions("lowered_derivative", z, y)
        one = torch.ones_like(z[:, :1]).unsqueeze(0)
        if w is u:
            jet = J.push_jet(torch.stack([u, rate]), one, one)
            pushed_u, moved = flat(jet)
            pushed_w = pushed_u
        else:
            tangents = torch.stack([u, w, rate])
            pushed_u, pushed_w, moved = flat(J.push(tangents))
            moved = moved + flat(J.second_push(tangents[:1], tangents[1:2])).squeeze(0)
        force = self.ambient.checked_metric(y).apply(moved)
        if not isinstance(self.ambient, Flat):
            force = force + self.ambient.lowered_christoffel(y, pushed_u, pushed_w)
        return J.pull(force.reshape(y.shape).unsqueeze(0)).squeeze(0)

    def immersion(self, z: Float[Tensor, "b d"]) -> Immersion | None:
        """The decoder to second order, as a map into the flat space of its outputs; ``None`` if that is not flat.

        Raises:
            SingularMetricError: the decoder has fewer outputs than latents.

        Cost: one forward pass and d tangent passes.
        """
        self._settle(z)
        if not isinstance(self.ambient, Flat):
            return None
        y, J = self._linearize(z)
        _check_dimensions("immersion", z, y)
        return Immersion(J.columns(), lambda T, S: flat(J.second_push(T, S)), self.ambient.metric(y))

    def in_double(self) -> "PullbackManifold":
        """This manifold in float64, connected to the same weights."""
        ambient = self._asked if self._given is None else self._given.in_double()
        double = PullbackManifold(in_double(self.decoder), ambient, in_double(self.output))
        double._reading = self._reading  # what one of them sees, the other knows
        return double if self._held is None else double.held()

    def held(self, z: Float[Tensor, "n d"] | None = None) -> "PullbackManifold":
        """This manifold while nobody changes its decoder: the map is put together and checked once.

        So are the values at the end points of curves found once, where no derivatives are recorded. A method that does
        nothing but call a network is replaced by the network.

        Args:
            z: latents, of which one is tried.
        """
        held = copy.copy(self)
        held._held = Held()
        network = None if z is None or not len(z) else modules_alone(self.decoder, z[:1])
        if network is not None and decoder_of(network) is network:
            # past the module's own assignment, which would enter it in the table of modules of the original
            object.__setattr__(held, "decoder", network)
        return held

    def in_single(self) -> "PullbackManifold | None":
        """This manifold if its decoder is in float32: solvers begin with it, as it takes half the time."""
        lowered = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        return self if self.ambient.fits_single and is_single(self.decoder) and not lowered else None

    def check_ends(self, z: Float[Tensor, "n d"]) -> None:
        """Raise unless the decoder has a Jacobian at these points, and the ambient space can measure at their images.

        Raises:
            ModuleError: the decoder does not take such points, or returns no tensor with a row for each.
            OffManifoldError: an image is no point of the ambient manifold.
            GeometryError: an ambient metric that depends on the point is not symmetric there, or not positive.
        """
        self.ambient.check(self._images(z)[0])

    def check_connected(self, where: str, z: Float[Tensor, "n d"]) -> None:
        """Raise unless the decoder has at least as many outputs as latents.

        Raises:
            SingularMetricError: it has fewer, so that the metric is singular everywhere.
        """
        with torch.no_grad():
            _check_dimensions(where, z, self._images(z)[0])

    def expand(self, z: Float[Tensor, "n d"]) -> Expansion:
        """The decoder to second order at n points: value, and the derivatives against a cotangent."""
        self._settle(z)
        y, J = self._derived(z)

        def derivatives(w: Tensor) -> tuple[Tensor, Tensor]:
            tangents, second = J.push_with_second(J.signature.in_basis(), w.reshape(y.shape))
            return flat(tangents), second

        return Expansion(y if y.ndim == 2 else flat(y.unsqueeze(0)).squeeze(0), derivatives)

    def discretise(self) -> DiscreteEnergy:
        """The discrete energy of the curves' images: of chords in flat space, of geodesic or midpoint segments else."""
        held = self._held
        if held is not None and held.energy is not None:
            return held.energy
        seen = self._reading.settled

        def value(z: Tensor) -> Tensor:
            self._settle(z)
            if not seen and self._reading.chart is not None:
                raise OptionError(
                    f"PullbackManifold.discretise: the decoder returns a distribution{self._reading.text}, which was "
                    "not known before. Show the manifold some latents first: manifold.check_ends(z)."
                )
            return self._value(z)

        energy = self.ambient.discretise(self.expand, value)
        if held is not None and seen:
            held.energy = energy = energy.held() if isinstance(energy, ChordEnergy) else energy
        return energy

    def energy(self, nodes: Float[Tensor, "b nodes d"]) -> Float[Tensor, " b"]:
        """The discrete energy of curves given by their nodes."""
        self._settle(nodes[:, 0])
        return super().energy(nodes)

    def slope(self, nodes: Float[Tensor, "b nodes d"]) -> EnergyGradient:
        """The discrete energy with its exact gradient, without second derivatives of the decoder."""
        self._settle(nodes[:, 0])
        return super().slope(nodes)

    def expand_energy(self, nodes: Float[Tensor, "b nodes d"]) -> QuadraticModel:
        """The discrete energy with its exact gradient and banded Hessian."""
        self._settle(nodes[:, 0])
        return super().expand_energy(nodes)

    def chord_lengths(self, layers: Float[Tensor, "p n k d"]) -> Float[Tensor, "p s k k"]:
        """Lengths in the output between all points of successive layers."""
        self._settle(layers[:, 0, 0])
        return super().chord_lengths(layers)

    def flat_map(self, z: Float[Tensor, "n d"]) -> Callable[[Tensor], Tensor] | None:
        """Latents to outputs in coordinates in which the ambient metric is Euclidean; ``None`` if it is not flat.

        Args:
            z: some latents, by which it is found out what the decoder returns.
        """
        self._settle(z)
        energy = self.discretise()
        return energy.flat_images if isinstance(energy, ChordEnergy) else None

    def gauss_newton_energy(self, nodes: Float[Tensor, "b nodes d"]) -> QuadraticModel:
        """`expand_energy` with a Hessian that does without second derivatives of the decoder."""
        self._settle(nodes[:, 0])

        def expand(z: Tensor) -> Expansion:
            y, J = linearize(self._map, z)
            nothing = z.new_zeros(len(z), z.shape[1], z.shape[1])
            return Expansion(flat(y.unsqueeze(0)).squeeze(0), lambda w: (J.columns(), nothing))

        return self.ambient.discretise(expand, self._value).expand_energy(nodes)

    @property
    def _asked(self) -> Ambient | MonteCarlo | None:
        """What was given to measure outputs by."""
        return self._given if self._reading.draws is None else self._reading.draws

    @property
    def _map(self) -> Decoder:
        """The decoder with what follows on it, up to the space that measures."""
        held = self._held
        if held is None:
            if self.output is None and self._reading.is_plain and self.ambient.embedding is None:
                return self.decoder
            return through(self.decoder, self.output, *self._reading.stages(), self.ambient.embedding)
        if held.map is None or not held.settled:
            held.settled = self._reading.settled
            held.map = through(self.decoder, self.output, *self._reading.stages(), self.ambient.embedding)
        return held.map

    def _derived(self, z: Tensor) -> tuple[Tensor, Jacobian]:
        """The map's value and Jacobian."""
        held = self._held
        if held is None:
            return linearize(self._map, z)
        if held.dtype is not z.dtype:
            y, J = linearize(self._map, z)
            held.dtype = z.dtype
            return y, J
        return linearize_again(self._map, z)

    def _settle(self, z: Tensor) -> None:
        """See what the decoder returns, the first time that there are latents.

        Raises:
            OptionError: a distribution, and something else to measure it by; or one with no Fisher-Rao metric here.
        """
        if self._reading.settled:
            return
        self._reading.settle(through(self.decoder, self.output), z)
        if self._reading.chart is not None and self._given is not None:
            raise OptionError(
                f"PullbackManifold: the decoder returns a distribution{self._reading.text}, and ambient={self._given} "
                "measures tensors. Leave ambient out for the Fisher-Rao metric of the distribution, or pick a tensor: "
                "output='mean'."
            )

    def _value(self, z: Tensor) -> Tensor:
        """The map's value, of points that it may write into; derivatives of its derivatives are those of Jacobians."""

        def value(z: Tensor) -> Tensor:
            return checked_tensor(_name(self.decoder), self._map(z.clone()))

        if not (torch.is_grad_enabled() and z.requires_grad):
            return value(z)
        with differentiable_kernels():
            return guarded(value, z, lambda y: y)

    def _linearize(self, z: Tensor) -> tuple[Tensor, Jacobian]:
        self._check_points("metric", z)
        y, J = self._images(z)
        # a sum is finite only if all of its terms are, or overflows
        if math.isfinite(y.detach().sum()):
            return y, J
        bad = ~torch.isfinite(flat(y.unsqueeze(0)).squeeze(0)).all(1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise NonFiniteError(
                f"PullbackManifold: the decoder returned NaN or infinity at {int(bad.sum())} of {len(z)} latents, the "
                f"first at index {first}, z = {z[first].tolist()}. Check its weights, and keep latents where it was "
                "trained.",
                bad,
            )
        return y, J

    def _images(self, z: Tensor) -> tuple[Tensor, Jacobian]:
        # torch's forward mode refuses points that share memory, as one point does that is broadcast against tangents
        z = z.contiguous()
        self._settle(z)
        try:
            y, J = self._derived(z)
        except RuntimeError as error:
            if isinstance(error, PullgeoError | torch.OutOfMemoryError | RecursionError):
                raise
            self._explain(z)
            raise
        if torch.finfo(y.dtype).eps > torch.finfo(z.dtype).eps:
            owner = getattr(self._map, "__self__", self._map)
            way = _PROMOTE if isinstance(owner, nn.Module) else "Or use manifold.in_double()."
            raise DtypeError(
                f"PullbackManifold: the decoder returned {y.dtype} for {z.dtype} latents. Geometry needs the precision "
                "of the latents all the way: leave torch.autocast where it is measured, let the decoder not cast its "
                f"input or output, and give latents in the precision that it works in. {way}"
            )
        return y, J

    def _explain(self, z: Tensor) -> None:
        """Raise what the decoder, by itself, has against some points, by name.

        Raises:
            DtypeError: their precision.
            ModuleError: anything else.
        """
        try:
            self._value(z)
        except RuntimeError as own:
            cause: RuntimeError = own
        else:
            return
        if isinstance(cause, PullgeoError):
            raise cause
        if z.dtype == torch.float64 and _takes(self._map, z.float()):
            raise DtypeError(
                f"PullbackManifold: the decoder takes float32 latents, got {z.dtype}: {cause}. Use z.float()."
            ) from cause
        if z.dtype == torch.float64 and _takes(Promoted(self._map), z):
            raise DtypeError(
                f"PullbackManifold: geometry runs in float64, and the decoder computes with another precision inside: "
                f"{cause}. It casts its input, as z.float() does, or holds constants that are not buffers. Write "
                f"z.to(self.weight.dtype), and register_buffer for constants. {_PROMOTE}"
            ) from cause
        if z.dtype != torch.float64 and _takes(self._map, z.double()):
            raise DtypeError(
                f"PullbackManifold: the decoder takes float64 latents, got {z.dtype}: {cause}. Use z.double()."
            ) from cause
        raise ModuleError(
            f"PullbackManifold: the decoder cannot be called with {z.dtype} latents of shape {tuple(z.shape)}: "
            f"{cause}. It must map a batch (b, d) to (b, *out); is d = {z.shape[1]} what it takes?"
        ) from cause


def _name(decoder: Decoder) -> str:
    return getattr(decoder, "__name__", type(decoder).__name__)


def _takes(function: Decoder, z: Tensor) -> bool:
    try:
        function(z.clone())
    except FAILURES:
        return False
    return True


def _check_dimensions(where: str, z: Tensor, y: Tensor) -> None:
    D, d = torch.Size(y.shape[1:]).numel(), z.shape[1]
    if d > D:
        raise SingularMetricError(
            f"PullbackManifold.{where}: the decoder has fewer outputs, {D}, than latents, {d}, so that its metric is "
            "singular everywhere and geodesics have no equation. geodesic() and dist() measure all the same. For all "
            "else let the decoder return the latents too: torch.cat([decoder(z).flatten(1), 0.01 * z], 1) adds 1e-4 "
            "times the identity to the metric."
        )


@ambient_of.register
def _(given: PullbackManifold) -> Ambient:
    return replace(given.ambient, embedding=given._map)
