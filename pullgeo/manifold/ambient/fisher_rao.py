"""Distributions as points of a space with the Fisher-Rao metric."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td

from pullgeo._torch.plain_memory import inference_named, outside_inference
from pullgeo.errors import OptionError
from pullgeo.jacobian.contractions import flat
from pullgeo.jacobian.linearize import linearize
from pullgeo.likelihood.channel_blocks import ChannelBlocks
from pullgeo.likelihood.distribution import TorchDistribution
from pullgeo.likelihood.families import Family, family_of
from pullgeo.likelihood.mixture_layout import innermost
from pullgeo.likelihood.mixture_nodes import Listed, MonteCarlo, nodes_of
from pullgeo.manifold.ambient.base import Ambient
from pullgeo.manifold.ambient.composite import Times
from pullgeo.manifold.ambient.flat import Flat
from pullgeo.manifold.ambient.metric_field import check_riemannian
from pullgeo.manifold.ambient.mixture import MixtureInformation, RootsOfProbabilities
from pullgeo.manifold.ambient.positive_definite import AffineInvariant
from pullgeo.manifold.ambient.space_forms import squared_arc
from pullgeo.manifold.float64.convert import fits_single
from pullgeo.metric.base import Metric
from pullgeo.metric.structured import Diagonal

TRANSFORMS = "transforms"
"""What stands among the parameters that move where the transforms of a distribution do."""


@dataclass(frozen=True, eq=False)
class Chart:
    """Coordinates of a family of distributions, in which its Fisher-Rao metric is easy.

    Args:
        point: from a distribution, inside of `Independent`, to coordinates ``(b, *out)``.
        ambient: the space that these are points of.
    """

    point: Callable[[Any], Tensor]
    ambient: Ambient


def chart_of(distribution: td.Distribution, moves: frozenset[str], draws: MonteCarlo | None = None) -> Chart:
    """The coordinates for a distribution that a decoder returns.

    Args:
        distribution: one for each latent; what is `Independent` is looked into.
        moves: the names of its parameters that depend on the latent: a Gaussian of fixed deviation is flat.
        draws: how expectations over a mixture are taken; without them by the best means that there are.

    Raises:
        OptionError: its Fisher information is not known in closed form, or not for the parameters that move.
    """
    inner = innermost(distribution)
    if type(inner) is td.TransformedDistribution:
        return _of_transformed(inner, moves, draws)
    if isinstance(inner, td.MixtureSameFamily):
        nodes = nodes_of(inner, draws)
        if isinstance(nodes, Listed):
            return Chart(RootsOfProbabilities(nodes), Flat())
        return Chart(nodes.layout.pack, MixtureInformation(nodes))
    if draws is not None:
        raise OptionError(
            f"PullbackManifold: ambient={draws} is for mixtures, and the decoder returns a {type(inner).__name__}, "
            "whose Fisher information is known in closed form. Leave ambient out."
        )
    return _chart(inner, moves)


def _of_transformed(given: td.TransformedDistribution, moves: frozenset[str], draws: MonteCarlo | None) -> Chart:
    """That of the base: what is mapped one to one, by a map that stays, is told apart as well as before."""
    if TRANSFORMS in moves or not all(transform.bijective for transform in given.transforms):
        why = "depend on the latent" if TRANSFORMS in moves else "are not one to one"
        raise OptionError(
            f"PullbackManifold: the transforms of a TransformedDistribution {why}, and its Fisher information is known "
            "to be that of its base otherwise only. Put what depends on the latent into the base, as its loc and "
            "scale; or give output= a function that picks a tensor."
        )
    base = chart_of(given.base_dist, moves, draws)
    return Chart(lambda d: base.point(innermost(d.base_dist)), base.ambient)


def parameters_of(distribution: td.Distribution) -> tuple[str, ...]:
    """The names of the parameters that a family's information is about, and of those that it leaves out."""
    inner = innermost(distribution)
    if isinstance(inner, td.MultivariateNormal | td.LowRankMultivariateNormal):
        return ("loc", "covariance_matrix")
    if isinstance(inner, td.Wishart):
        return ("df", "covariance_matrix")
    family = family_of(type(inner))
    return (*family.names, *family.fixed)


@functools.singledispatch
def _chart(distribution: Any, moves: frozenset[str]) -> Chart:
    return _of_family(distribution, moves)


def _of_family(distribution: td.Distribution, moves: frozenset[str]) -> Chart:
    """Whatever is known of a family: a flat isometry, or its information."""
    family = family_of(type(distribution), moves)
    for name in family.fixed:
        if name in moves:
            raise OptionError(
                f"PullbackManifold: {name} of the {type(distribution).__name__} depends on the latent, and its Fisher "
                f"information is known for a fixed {name} only. Hold it fixed, as a parameter of the decoder or by "
                f"{name}.detach(); or measure means, output='mean'."
            )
    if family.embedding is not None:
        return Chart(family.embedding, Flat())
    return Chart(functools.partial(_coordinates, family), InformationField(family))


@_chart.register
def _(given: td.Normal, moves: frozenset[str]) -> Chart:
    return _location_scale(moves, 1.0, 2.0)


@_chart.register
def _(given: td.LogNormal, moves: frozenset[str]) -> Chart:
    return _location_scale(moves, 1.0, 2.0)


@_chart.register
def _(given: td.Laplace, moves: frozenset[str]) -> Chart:
    return _location_scale(moves, 1.0, 1.0)


@_chart.register
def _(given: td.Cauchy, moves: frozenset[str]) -> Chart:
    return _location_scale(moves, 0.5, 0.5)


@_chart.register
def _(given: td.LogisticNormal, moves: frozenset[str]) -> Chart:
    return _location_scale(moves, 1.0, 2.0)  # that of the Gaussian which is mapped onto the simplex


@_chart.register
def _(given: td.Gumbel, moves: frozenset[str]) -> Chart:
    # the mixed term of the information is gone in loc + (γ - 1) scale, with Euler's constant γ
    return _location_scale(moves, 1.0, math.pi**2 / 6, shear=0.57721566490153286 - 1)


@_chart.register
def _(given: td.Weibull, moves: frozenset[str]) -> Chart:
    names = {"scale": "loc", "concentration": "scale"}
    gumbel = _chart(td.Gumbel(0.0, 1.0), frozenset(names[name] for name in moves))
    # minus the logarithm is a Gumbel variable
    return Chart(lambda d: gumbel.point(td.Gumbel(-d.scale.log(), d.concentration.reciprocal())), gumbel.ambient)


@_chart.register
def _(given: td.StudentT, moves: frozenset[str]) -> Chart:
    df = given.df.detach()
    if "df" not in moves and bool((df == df.flatten()[0]).all()):
        nu = float(df.flatten()[0])
        return _location_scale(moves, (nu + 1) / (nu + 3), 2 * nu / (nu + 3))
    return _of_family(given, moves)


@_chart.register(td.Gamma)
@_chart.register(td.InverseGamma)
def _(given: td.Distribution, moves: frozenset[str]) -> Chart:
    if moves == {"rate"}:
        return Chart(lambda d: d.concentration.sqrt() * d.rate.log(), Flat())
    return _of_family(given, moves)


@_chart.register(td.Categorical)
@_chart.register(td.OneHotCategorical)
def _(given: td.Distribution, moves: frozenset[str]) -> Chart:
    return Chart(_on_sphere, Flat())


@_chart.register
def _(given: td.Multinomial, moves: frozenset[str]) -> Chart:
    return Chart(lambda d: d.total_count**0.5 * _on_sphere(d), Flat())


@_chart.register(td.MultivariateNormal)
@_chart.register(td.LowRankMultivariateNormal)
def _(given: td.Distribution, moves: frozenset[str]) -> Chart:
    if moves == {"loc"}:
        return Chart(_whitened, Flat())
    return Chart(_extended_covariance, Times(AffineInvariant(), 0.5))


@_chart.register
def _(given: td.Wishart, moves: frozenset[str]) -> Chart:
    df = given.df.detach()
    if "df" in moves or len(given.batch_shape) > 1 or bool((df != df.flatten()[0]).any()):
        raise OptionError(
            "PullbackManifold: a Wishart is measured where df is one number that does not depend on the latent, and "
            "where there is one matrix for each. Hold df fixed, df.detach(), or measure output='mean'."
        )
    return Chart(lambda d: d.covariance_matrix, Times(AffineInvariant(), float(df.flatten()[0]) / 2))


def _location_scale(moves: frozenset[str], location: float, scale: float, shear: float = 0.0) -> Chart:
    """Families with the information ``(A dμ² + B dσ²)/σ²``: flat where σ is fixed, or μ; else hyperbolic planes."""
    if moves == {"loc"}:
        return Chart(lambda d: location**0.5 * d.loc / d.scale, Flat())
    if moves == {"scale"} and not shear:
        return Chart(lambda d: scale**0.5 * d.scale.log(), Flat())

    def point(d: Any) -> Tensor:
        return torch.stack(torch.broadcast_tensors((location / scale) ** 0.5 * (d.loc + shear * d.scale), d.scale), 1)

    return Chart(point, HalfPlanes(scale))


def _on_sphere(d: Any) -> Float[Tensor, "b *s c"]:
    return 2 * torch.exp(0.5 * torch.log_softmax(d.logits, -1))


def _whitened(d: Any) -> Float[Tensor, "b *s n"]:
    return torch.linalg.solve_triangular(d.scale_tril, d.loc.unsqueeze(-1), upper=False).squeeze(-1)


def _extended_covariance(d: Any) -> Float[Tensor, "b n m"]:
    """``[[Σ + μμᵀ, μ], [μᵀ, 1]]``; matrices of several locations as the blocks of one.

    Source: Calvo, Oller, *A distance between multivariate normal distributions based in an embedding into the Siegel
    group*, Journal of Multivariate Analysis 1990.
    """
    mean = d.loc.unsqueeze(-1)
    upper = torch.cat([d.covariance_matrix + mean @ mean.mT, mean], -1)
    each = torch.cat([upper, torch.cat([mean.mT, torch.ones_like(mean[..., :1, :])], -1)], -2)
    if each.ndim == 3:
        return each
    blocks = each.flatten(1, -3)
    count, size = blocks.shape[1], blocks.shape[-1]
    places = torch.eye(count, dtype=each.dtype, device=each.device)
    return torch.einsum("bsij,st->bsitj", blocks, places).reshape(len(each), count * size, count * size)


def _coordinates(family: Family, d: Any) -> Float[Tensor, "b c *s"]:
    """The parameters and those that are fixed, along axis 1."""
    theta = family.parameters(d)
    if not family.fixed:
        return theta.movedim(-1, 1)
    held = [torch.as_tensor(getattr(d, name)).to(theta).expand(theta.shape[:-1]) for name in family.fixed]
    return torch.cat([theta, torch.stack(held, -1)], -1).movedim(-1, 1)


@dataclass(frozen=True, eq=False)
class HalfPlanes(Ambient):
    """Pairs ``(x, σ)`` along axis 1, each a hyperbolic plane: ``w (dx² + dσ²)/σ²``, of curvature ``-1/w``.

    Segments are measured by their exact geodesic length.

    Args:
        weight: ``w``.
    """

    weight: float

    def __repr__(self) -> str:
        return f"half planes of curvature {-1 / self.weight:.3g}"

    def metric(self, y: Float[Tensor, "b 2 *s"]) -> Diagonal:
        """``w/σ²``, for both."""
        return Diagonal((self.weight / y[:, 1:].square()).expand_as(y).flatten(1))

    def segment_energy(self, a: Float[Tensor, "n 2 *s"], b: Float[Tensor, "n 2 *s"]) -> Float[Tensor, " n"]:
        """``w arcosh²(1 + ‖a - b‖²/(2σσ'))``, which is ``4 w arsinh²`` of half the root of that ratio."""
        chord = (a - b).square().sum(1) / (a[:, 1] * b[:, 1])
        return self.weight * squared_arc(chord.flatten(), -1.0).reshape(len(a), -1).sum(1)

    def lowered_christoffel(
        self, y: Float[Tensor, "b 2 *s"], u: Float[Tensor, "b D"], w: Float[Tensor, "b D"]
    ) -> Float[Tensor, "b D"]:
        """``w/σ³`` times ``(-(u_x w_σ + u_σ w_x), u_x w_x - u_σ w_σ)``."""
        U, W = u.reshape(y.shape), w.reshape(y.shape)
        across = -(U[:, 0] * W[:, 1] + U[:, 1] * W[:, 0])
        along = U[:, 0] * W[:, 0] - U[:, 1] * W[:, 1]
        return (self.weight * torch.stack([across, along], 1) / y[:, 1:] ** 3).flatten(1)


@dataclass(frozen=True, eq=False)
class InformationField(Ambient):
    """The parameters of a family along axis 1, with its Fisher information; segments by the midpoint rule.

    Args:
        family: what is known of the family. Parameters that its information leaves out come last, and weigh nothing.
    """

    family: Family

    def __repr__(self) -> str:
        return "its Fisher information"

    def metric(self, y: Float[Tensor, "b c *s"]) -> Metric:
        """The information at each location."""
        count = y.shape[1] - len(self.family.fixed)
        theta = y.movedim(1, -1)
        information = self.family.information(self.family.remade(theta[..., :count], theta[..., count:]))
        if information.ndim == y.ndim:
            values = torch.nn.functional.pad(information.expand(*theta.shape[:-1], count), (0, len(self.family.fixed)))
            return Diagonal(values.movedim(-1, 1).flatten(1))
        blocks = torch.nn.functional.pad(
            information.expand(*theta.shape[:-1], count, count), (0, len(self.family.fixed)) * 2
        )
        return ChannelBlocks(blocks.reshape(len(y), -1, y.shape[1], y.shape[1]))


@dataclass(frozen=True, eq=False)
class OfLikelihood(Ambient):
    """Outputs that stand for distributions, measured by their Fisher information; segments in the family's parameters.

    Parameters are cheaper than outputs: the information couples those at one location alone, and no derivative of what
    makes a distribution of an output enters the energy.

    Args:
        likelihood: what an output stands for.
    """

    likelihood: TorchDistribution

    def __repr__(self) -> str:
        return "its Fisher information"

    def metric(self, y: Float[Tensor, "b *out"]) -> Metric:
        """The information, pulled back from the parameters to the output."""
        with inference_named():
            return self.likelihood.fisher(outside_inference(y))

    def segment_energy(self, a: Float[Tensor, "n *out"], b: Float[Tensor, "n *out"]) -> Float[Tensor, " n"]:
        """By the midpoint rule in the family's parameters, or exactly where the family is flat."""
        space = self._space(a)
        return space.segment_energy(self._point(a), self._point(b))

    def lowered_christoffel(
        self, y: Float[Tensor, "b *out"], u: Float[Tensor, "b D"], w: Float[Tensor, "b D"]
    ) -> Float[Tensor, "b D"]:
        """``Pᵀ I (P''(u, w) + Γ_I(P u, P w))`` for the map P from outputs to parameters, with the derivative ``P``."""
        space = self._space(y)
        theta, J = linearize(self._point, y)
        U, W = (v.reshape(1, *y.shape) for v in (u, w))
        same = w is u
        pushed = flat(J.push(U if same else torch.cat([U, W])))
        along_u, along_w = (pushed[0], pushed[0]) if same else pushed.unbind(0)
        bent = flat(J.second_push(U, U if same else W)).squeeze(0)
        force = space.metric(theta).apply(bent) + space.lowered_christoffel(theta, along_u, along_w)
        return flat(J.pull(force.reshape(1, *theta.shape))).squeeze(0)

    def check(self, y: Float[Tensor, "b *out"]) -> None:
        """Raise unless the information of these outputs is known."""
        super().check(y)
        check_riemannian(self.metric(y))

    @property
    def fits_single(self) -> bool:
        """As what makes the distributions."""
        return fits_single(self.likelihood.make)

    def _space(self, y: Tensor) -> Ambient:
        distribution = innermost(self.likelihood.make(y))
        if isinstance(distribution, td.MixtureSameFamily):
            return chart_of(distribution, frozenset(), self.likelihood.draws).ambient
        family = self.likelihood.family_at(y)
        return InformationField(family) if family.embedding is None else Flat()

    def _point(self, y: Tensor) -> Tensor:
        distribution = innermost(self.likelihood.make(y))
        if isinstance(distribution, td.MixtureSameFamily):
            return chart_of(distribution, frozenset(), self.likelihood.draws).point(distribution)
        family = self.likelihood.family_at(y)
        return _coordinates(family, distribution) if family.embedding is None else family.embedding(distribution)
