"""Expectations over mixtures as sums over nodes: all values of a support, quadrature in one dimension, or draws."""

import functools
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td

from pullgeo._torch.transforms import is_mapped, unwrapped
from pullgeo.errors import NonFiniteError, OptionError
from pullgeo.likelihood.mixture_layout import MixtureLayout, innermost

MOST_VALUES = 2**12
"""Values of a finite support that are listed."""

MOST_COUNTS = 2**15
"""Counts from zero on that are summed over."""

FINE, COARSE = 12, 8
"""Points in each panel of a quadrature, and in those of the one that it is compared with."""

_COUNTS = (td.Poisson, td.Geometric, td.NegativeBinomial)

MISSING = 1e-4
"""How far the sum of all weights may be from one: a quadrature that misses more of a density is refused."""


@dataclass(frozen=True, eq=False)
class MonteCarlo:
    """Expectations over mixtures as averages of draws, the same for all latents.

    Draws of a component are a smooth function of its parameters and of numbers that are drawn once, a Latin hypercube
    for each component. So the metric is smooth in the latent and the same at every call, and no chance decides how many
    draws a component has. The error falls as ``1/√samples`` or faster; `pullgeo.manifold.mixture_error` estimates it.

    Args:
        samples: draws of each component, at each location.
        generator: where the seed of the numbers comes from, once, when this is made.
        seed: of the numbers, where no generator is given.

    Raises:
        OptionError: there are no samples.

    Example:
        >>> MonteCarlo(samples=1000)
        MonteCarlo(samples=1000, seed=0)
    """

    samples: int = 512
    generator: torch.Generator | None = None
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise OptionError(f"MonteCarlo: samples must be at least 2, got {self.samples}. A few hundred are usual.")
        if self.generator is not None:
            device = self.generator.device
            seed = int(torch.randint(2**62, (), generator=self.generator, device=device))
            object.__setattr__(self, "seed", seed)
            object.__setattr__(self, "generator", None)

    def __repr__(self) -> str:
        return f"MonteCarlo(samples={self.samples}, seed={self.seed})"


@dataclass(frozen=True, eq=False)
class Nodes(ABC):
    """A sum that stands for the expectation over a mixture: ``E[g] = Σ_i W_i g(x_i)``, smooth in the parameters.

    Args:
        layout: what the mixture consists of.
    """

    layout: MixtureLayout

    @abstractmethod
    def at(self, y: Float[Tensor, "b s C"]) -> tuple[Float[Tensor, "n #b #s *event"], Float[Tensor, "n b s"]]:
        """Nodes and weights."""

    def coarser(self) -> "Nodes | None":
        """Another such sum with fewer nodes, to estimate the error by; or None if the sum is exact."""
        return None


@dataclass(frozen=True, eq=False)
class Listed(Nodes):
    """All values of a finite support.

    Args:
        layout: what the mixture consists of.
        values: the values ``(n, *event)``.
    """

    values: Tensor

    def at(self, y: Float[Tensor, "b s C"]) -> tuple[Float[Tensor, "n #b #s *event"], Float[Tensor, "n b s"]]:
        """The values with their probabilities."""
        x = self.values.to(y)[:, None, None]
        return x, self.layout.log_density(y, x).exp()

    def __str__(self) -> str:
        return f"all {len(self.values)} values"


@dataclass(frozen=True, eq=False)
class Counted(Nodes):
    """Counts from zero on, until what is left out is less than rounding."""

    def at(self, y: Float[Tensor, "b s C"]) -> tuple[Float[Tensor, "n #b #s *event"], Float[Tensor, "n b s"]]:
        """The counts with their probabilities.

        Raises:
            OptionError: there are too many, or ``torch.vmap`` hides how many there are.
        """
        if is_mapped(y):
            raise OptionError("Fisher information of a mixture of counts: torch.vmap hides how many counts matter.")
        d: Any = self.layout.component(unwrapped(y).detach())
        # left out is less than exp(-40) of a tail that falls by the factor exp(-1) within `decay`
        decay = torch.ones_like(d.mean) if self.layout.cls is td.Poisson else 1 / torch.nn.functional.softplus(_fall(d))
        last = d.mean + 10 * d.variance.sqrt() + 40 * decay.clamp(min=1)
        count = float(last.nan_to_num(0).max()) if last.numel() else 0.0
        if count > MOST_COUNTS:
            raise OptionError(
                f"Fisher information of a mixture of {self.layout.cls.__name__}: counts up to {count:.3g} matter, and "
                f"at most {MOST_COUNTS} are summed over. Measure means, output='mean', or scale the counts down."
            )
        x = torch.arange(2 + int(count), dtype=y.dtype, device=y.device)[:, None, None]
        x = x.reshape(*x.shape, *self.layout.event)
        return x, _complete(self.layout.log_density(y, x).exp(), "counts")

    def __str__(self) -> str:
        return "sums over counts"


def _fall(d: Any) -> Tensor:
    """Minus the logit by which successive counts fall off."""
    return d.logits if isinstance(d, td.Geometric) else -d.logits


@dataclass(frozen=True, eq=False)
class Panels(Nodes):
    """Gauss and Legendre's rule between breaks that each component sets, at distances of its own scale.

    So panels are as narrow as the narrowest component that is felt in them. Relative errors are about 1e-9 in float64.

    Args:
        layout: what the mixture consists of.
        points: in each panel.
    """

    points: int = FINE

    def at(self, y: Float[Tensor, "b s C"]) -> tuple[Float[Tensor, "n #b #s *event"], Float[Tensor, "n b s"]]:
        """Nodes and weights.

        Raises:
            NonFiniteError: a density reaches beyond all breaks.
        """
        line = _LINES[self.layout.cls]
        named = {name: p.reshape(*y.shape[:2], self.layout.components) for name, p in self.layout.parameters(y).items()}
        breaks = line.breaks(**named).flatten(-2).sort(-1).values
        at, weight = (
            torch.as_tensor(v, dtype=y.dtype, device=y.device) for v in np.polynomial.legendre.leggauss(self.points)
        )
        half = (breaks[..., 1:] - breaks[..., :-1]).unsqueeze(-1) / 2
        t = (breaks[..., :-1].unsqueeze(-1) + half * (1 + at)).flatten(-2).movedim(-1, 0)
        width = (half * weight).flatten(-2).movedim(-1, 0)
        x, log_slope = line.onto(t)
        x = x.reshape(*x.shape, *self.layout.event)
        return x, _complete(width * (log_slope + self.layout.log_density(y, x)).exp(), "quadrature")

    def coarser(self) -> "Panels":
        """Fewer points in each panel."""
        return Panels(self.layout, COARSE)

    def __str__(self) -> str:
        return "quadrature"


@dataclass(frozen=True, eq=False)
class Drawn(Nodes):
    """Draws of every component, from numbers that are the same for all rows.

    Args:
        layout: what the mixture consists of.
        settings: how many.
        noise: normal numbers ``(n, K, s, *m)``.
    """

    settings: MonteCarlo
    noise: Tensor

    def at(self, y: Float[Tensor, "b s C"]) -> tuple[Float[Tensor, "n #b #s *event"], Float[Tensor, "n b s"]]:
        """The first draw of each component, then the second, and so on; each weighs ``π_k/n``."""
        K = self.layout.components
        named = {name: p.movedim(2, 0) for name, p in self.layout.parameters(y).items()}
        x = _DRAWS[self.layout.cls](self.noise.to(y).unsqueeze(2), **named)
        weight = self.layout.log_weights(y).exp().movedim(2, 0) / len(self.noise)
        weights = weight.expand(len(self.noise), K, *y.shape[:2]).flatten(0, 1)
        return x.flatten(0, 1).reshape(len(weights), *y.shape[:2], *self.layout.event), weights

    def coarser(self) -> None:
        """The standard error says more."""
        return

    def __str__(self) -> str:
        return f"{self.settings.samples} draws of each component, seed {self.settings.seed}"


def nodes_of(mixture: td.MixtureSameFamily, settings: MonteCarlo | None) -> Nodes:
    """The best sum that there is for the expectation over a mixture.

    Finite supports are listed, counts summed over, events of one dimension integrated by quadrature; for events of
    more dimensions, and where the settings of draws are given, components are drawn from.

    Raises:
        OptionError: none serves.
    """
    layout = MixtureLayout.of(mixture)
    values = _support(layout, mixture)
    if values is not None:
        return Listed(layout, values)
    if layout.scalar and layout.cls in _COUNTS:
        return Counted(layout)
    if layout.scalar and settings is None and layout.cls in _LINES:
        return Panels(layout)
    if layout.cls in _DRAWS:
        settings = settings or MonteCarlo()
        return Drawn(layout, settings, _noise(layout, math.prod(mixture.batch_shape[1:]), settings))
    if layout.scalar:
        raise OptionError(
            f"MonteCarlo: draws of {layout.cls.__name__} are no smooth function of its parameters. Leave MonteCarlo "
            "out: mixtures of it over single numbers are integrated by quadrature."
        )
    counts = layout.cls in (*_COUNTS, td.Bernoulli, td.Binomial, td.Categorical, td.OneHotCategorical)
    why = (
        f"are counts, so that draws jump when the latent moves, and there are more than {MOST_VALUES} values to list"
        if counts
        else "have no draws that are a smooth function of the parameters"
    )
    raise OptionError(
        f"Fisher information of a {layout}: events of shape {layout.event} {why}. Measure means, output='mean'; or let "
        "each entry be a mixture of its own: component_distribution without Independent around it."
    )


def _complete(weights: Tensor, what: str) -> Tensor:
    """The weights, if they add up to one at each finite row."""
    if is_mapped(weights):
        return weights
    total = unwrapped(weights).detach().sum(0)
    bad = ((total - 1).abs() > MISSING).flatten(1).any(1)
    if bool(bad.any()):
        raise NonFiniteError(
            f"Fisher information of a mixture: {what} miss a part of the density at {int(bad.sum())} of {len(bad)} "
            f"points, the first at index {int(bad.nonzero()[0])}. A parameter of a component is extreme there: bound "
            "scales, concentrations and degrees of freedom from below.",
            bad,
        )
    return weights


def _support(layout: MixtureLayout, mixture: td.MixtureSameFamily) -> Tensor | None:
    """The values of a finite support that is small enough."""
    number = math.prod(layout.each)
    if layout.cls is td.Bernoulli:
        one = torch.arange(2.0, dtype=torch.float64)
    elif layout.cls is td.Categorical:
        one = torch.arange(float(layout.shapes[0][-1]), dtype=torch.float64)
    elif layout.cls is td.Binomial:
        inner: Any = innermost(mixture.component_distribution)
        trials = inner.total_count.detach()
        if bool((trials != trials.flatten()[0]).any()):
            raise OptionError(
                "Fisher information of a mixture of Binomial: total_count must be one number, the same for all "
                "components, entries and latents, so that all share a support. Measure means, output='mean'."
            )
        one = torch.arange(1.0 + int(trials.flatten()[0]), dtype=torch.float64)
    elif layout.cls is td.OneHotCategorical:
        one = torch.eye(layout.shapes[0][-1], dtype=torch.float64)
    else:
        return None
    if number * math.log(len(one)) > math.log(MOST_VALUES):
        return None
    chosen = torch.tensor(list(itertools.product(range(len(one)), repeat=number)))
    return one[chosen].reshape(-1, *layout.event)


def _noise(layout: MixtureLayout, locations: int, settings: MonteCarlo) -> Tensor:
    own = layout.shapes[0]
    if layout.cls is td.LowRankMultivariateNormal:
        own = (*own[:-1], own[-1] + layout.shapes[1][-1])
    return _normal((settings.samples, layout.components, locations, *own), settings.seed)


@functools.lru_cache(maxsize=4)
def _normal(shape: tuple[int, ...], seed: int) -> Tensor:
    """Normal numbers, of which those along axis 0 lie one in each of as many strata: a Latin hypercube."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(0)
    within = torch.rand(shape, generator=generator, dtype=torch.float64)
    return torch.special.ndtri(((place + within) / shape[0]).clamp(1e-16, 1 - 1e-16))


@dataclass(frozen=True, eq=False)
class _Line:
    """Where one-dimensional densities are integrated.

    Args:
        breaks: of every component, ``(b, s, K, j)``, in a coordinate t along the whole line.
        onto: from t to events, with the logarithm of the slope.
    """

    breaks: Callable[..., Tensor]
    onto: Callable[[Tensor], tuple[Tensor, Tensor]]


def _same(t: Tensor) -> tuple[Tensor, Tensor]:
    return t, torch.zeros_like(t)


def _exponential(t: Tensor) -> tuple[Tensor, Tensor]:
    return t.exp(), t


_BELL = (1.5, 3.0, 4.5, 6.0, 7.5, 9.0)
_TAIL = (0.75, 1.5, 3.0, 4.5, 6.5, 9.0, 13.0, 18.0, 25.0, 33.0, 42.0)
_FAR = tuple(0.5 * 1.7**i for i in range(42))


def _breaks(centre: Tensor, scale: Tensor, below: tuple[float, ...], above: tuple[float, ...]) -> Tensor:
    at = [-c for c in reversed(below)] + [0.0, *above]
    return centre.unsqueeze(-1) + scale.unsqueeze(-1) * torch.tensor(at, dtype=scale.dtype, device=scale.device)


def _of_gamma(concentration: Tensor, rate: Tensor) -> Tensor:
    """In ``log x``, where the density is ``exp(α t - β eᵗ)``: a bell, with a tail ``exp(αt)`` below."""
    centre, root = (concentration / rate).log(), concentration.rsqrt()
    below = torch.cat(
        [_breaks(centre, root, _BELL, ())[..., :-1], _breaks(centre, 1 / concentration, _TAIL, ())[..., :-1]], -1
    )
    c = torch.tensor((0.0, *_BELL), dtype=root.dtype, device=root.device)
    beyond = 1 + c * root.unsqueeze(-1) + c.square() / (2 * concentration.unsqueeze(-1))
    return torch.cat([below, centre.unsqueeze(-1) + beyond.log()], -1)


def _of_beta(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    """In ``log x/(1 - x)``: a bell, with exponential tails."""
    a, b = concentration1, concentration0
    centre, root = (a / b).log(), (1 / a + 1 / b).sqrt()
    bell = _breaks(centre, root, _BELL, _BELL)
    tails = [_breaks(centre, 1 / a, _TAIL, ()), _breaks(centre, 1 / b, (), _TAIL)]
    return torch.cat([bell, *tails], -1)


def _of_continuous_bernoulli(logits: Tensor) -> Tensor:
    scale = 1 / (1 + logits.abs())
    up = _breaks(torch.zeros_like(scale), scale, (), (*_TAIL, 1e9)).clamp(max=1)
    return torch.cat([up, 1 - up], -1)


def _of_von_mises(loc: Tensor, concentration: Tensor) -> Tensor:
    scale = concentration.clamp(min=0.25).rsqrt()
    turned = torch.remainder(loc + math.pi, 2 * math.pi) - math.pi
    bell = _breaks(turned, scale, _BELL, _BELL)
    # once around, on both sides of where the angle starts
    near = torch.cat([bell - 2 * math.pi, bell, bell + 2 * math.pi], -1).clamp(-math.pi, math.pi)
    ends = torch.linspace(-math.pi, math.pi, 9, dtype=loc.dtype, device=loc.device).expand(*loc.shape, 9)
    return torch.cat([near, ends], -1)


_LINES: dict[type[td.Distribution], _Line] = {
    td.Normal: _Line(lambda loc, scale: _breaks(loc, scale, _BELL, _BELL), _same),
    td.LogNormal: _Line(lambda loc, scale: _breaks(loc, scale, _BELL, _BELL), _exponential),
    td.HalfNormal: _Line(lambda scale: _breaks(torch.zeros_like(scale), scale, (), _BELL), _same),
    td.Laplace: _Line(lambda loc, scale: _breaks(loc, scale, _TAIL, _TAIL), _same),
    td.Gumbel: _Line(lambda loc, scale: _breaks(loc, scale, (0.75, 1.5, 2.25, 3.0, 4.0), _TAIL), _same),
    td.Cauchy: _Line(lambda loc, scale: _breaks(loc, scale, _FAR, _FAR), _same),
    td.StudentT: _Line(lambda df, loc, scale: _breaks(loc, scale, _FAR, _FAR), _same),
    td.Exponential: _Line(lambda rate: _of_gamma(torch.ones_like(rate), rate), _exponential),
    td.Gamma: _Line(_of_gamma, _same),
    td.Beta: _Line(_of_beta, _same),
    td.ContinuousBernoulli: _Line(_of_continuous_bernoulli, _same),
    td.VonMises: _Line(_of_von_mises, _same),
}


def _uniform(noise: Tensor) -> Tensor:
    """Uniform numbers of normal ones, never zero or one."""
    tiny = torch.finfo(noise.dtype).eps
    return torch.special.ndtr(noise).clamp(tiny, 1 - tiny)


def _draw_laplace(noise: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    u = _uniform(-noise.abs())  # below one half
    return loc - noise.sign() * scale * (2 * u).log()


def _draw_multivariate(noise: Tensor, loc: Tensor, scale_tril: Tensor) -> Tensor:
    return loc + (scale_tril @ noise.unsqueeze(-1)).squeeze(-1)


def _draw_low_rank(noise: Tensor, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor) -> Tensor:
    own, common = noise.split([loc.shape[-1], cov_factor.shape[-1]], -1)
    return loc + cov_diag.sqrt() * own + (cov_factor @ common.unsqueeze(-1)).squeeze(-1)


_DRAWS: dict[type[td.Distribution], Callable[..., Tensor]] = {
    td.Normal: lambda noise, loc, scale: loc + scale * noise,
    td.LogNormal: lambda noise, loc, scale: (loc + scale * noise).exp(),
    td.HalfNormal: lambda noise, scale: scale * noise.abs(),
    td.Laplace: _draw_laplace,
    td.Gumbel: lambda noise, loc, scale: loc - scale * (-_uniform(noise).log()).log(),
    td.Cauchy: lambda noise, loc, scale: loc + scale * torch.tan(math.pi * (_uniform(noise) - 0.5)),
    td.Exponential: lambda noise, rate: -_uniform(noise).log() / rate,
    td.MultivariateNormal: _draw_multivariate,
    td.LowRankMultivariateNormal: _draw_low_rank,
}
"""From normal numbers and parameters to draws."""
