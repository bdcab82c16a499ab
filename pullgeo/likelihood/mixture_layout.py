"""Mixtures of `torch.distributions` as tensors: the logits of the weights, and the parameters of the components."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td

from pullgeo.errors import OptionError

PARAMETERS: dict[type[td.Distribution], tuple[tuple[str, int], ...]] = {
    td.Normal: (("loc", 0), ("scale", 0)),
    td.LogNormal: (("loc", 0), ("scale", 0)),
    td.HalfNormal: (("scale", 0),),
    td.Laplace: (("loc", 0), ("scale", 0)),
    td.Gumbel: (("loc", 0), ("scale", 0)),
    td.Cauchy: (("loc", 0), ("scale", 0)),
    td.StudentT: (("df", 0), ("loc", 0), ("scale", 0)),
    td.Exponential: (("rate", 0),),
    td.Gamma: (("concentration", 0), ("rate", 0)),
    td.Beta: (("concentration1", 0), ("concentration0", 0)),
    td.ContinuousBernoulli: (("logits", 0),),
    td.VonMises: (("loc", 0), ("concentration", 0)),
    td.Poisson: (("rate", 0),),
    td.Geometric: (("logits", 0),),
    td.NegativeBinomial: (("total_count", 0), ("logits", 0)),
    td.Bernoulli: (("logits", 0),),
    td.Binomial: (("total_count", 0), ("logits", 0)),
    td.Categorical: (("logits", 1),),
    td.OneHotCategorical: (("logits", 1),),
    td.MultivariateNormal: (("loc", 1), ("scale_tril", 2)),
    td.LowRankMultivariateNormal: (("loc", 1), ("cov_factor", 2), ("cov_diag", 1)),
}
"""Components that mixtures may have: names of their parameters, as attributes and arguments, and the axes of each."""


def _log_gamma(t: Tensor, concentration: Tensor, rate: Tensor) -> Tensor:
    return concentration * (rate.log() + t) - rate * t.exp() - torch.lgamma(concentration)


def _log_beta(t: Tensor, concentration1: Tensor, concentration0: Tensor) -> Tensor:
    a, b = concentration1, concentration0
    inside = a * torch.nn.functional.logsigmoid(t) + b * torch.nn.functional.logsigmoid(-t)
    return inside + torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)


UNBOUNDED: dict[type[td.Distribution], Callable[..., Tensor]] = {td.Gamma: _log_gamma, td.Beta: _log_beta}
"""Log-densities of ``log x`` and of ``log x/(1 - x)``: the information is the same, and no end of the support is lost
to rounding. Where a family stands here these are the events."""


def innermost(distribution: td.Distribution) -> td.Distribution:
    """What `Independent` is around."""
    while isinstance(distribution, td.Independent):
        distribution = distribution.base_dist
    return distribution


@dataclass(frozen=True, eq=False)
class MixtureLayout:
    """How a mixture is told by a tensor ``(b, s, C)``: at each of s locations K logits, then the parameters.

    Args:
        cls: the class of the components, inside of `Independent`.
        components: K.
        shapes: of each parameter, at one location and for one component.
        each: the batch axes of a component that `Independent` counts as one event.
        event: the shape of an event.

    Example:
        >>> mixture = td.MixtureSameFamily(td.Categorical(torch.ones(5, 3)), td.Normal(torch.ones(5, 3), 1.0))
        >>> layout = MixtureLayout.of(mixture)
        >>> layout.pack(mixture).shape
        torch.Size([5, 1, 9])
    """

    cls: Any
    components: int
    shapes: tuple[tuple[int, ...], ...]
    each: tuple[int, ...]
    event: tuple[int, ...]

    @classmethod
    def of(cls, mixture: td.MixtureSameFamily) -> "MixtureLayout":
        """The layout of mixtures such as this one.

        Raises:
            OptionError: nothing is known of the family of its components.
        """
        inner = innermost(mixture.component_distribution)
        known = next((known for known in type(inner).__mro__ if known in PARAMETERS), None)
        if known is None or len(inner.event_shape) + len(inner.batch_shape) > 12:
            names = ", ".join(family.__name__ for family in PARAMETERS)
            raise OptionError(
                f"Fisher information of a mixture of {type(inner).__name__}: expectations over such mixtures are not "
                f"known. Components may be {names}, and Independent of them. Measure means, output='mean'."
            )
        locations = len(mixture.batch_shape)
        each = tuple(inner.batch_shape[locations + 1 :])
        shapes = []
        for name, axes in PARAMETERS[known]:
            own = getattr(inner, name).shape
            shapes.append((*each, *own[len(own) - axes :]))
        return cls(known, mixture._num_component, tuple(shapes), each, tuple(mixture.event_shape))

    def pack(self, mixture: Any) -> Float[Tensor, "b s C"]:
        """Logits and parameters."""
        places, b = mixture.batch_shape, mixture.batch_shape[0]
        s, K = math.prod(places[1:]), self.components
        inner: Any = innermost(mixture.component_distribution)
        parts = [torch.log_softmax(mixture.mixture_distribution.logits, -1).expand(*places, K).reshape(b, s, K)]
        for (name, _), shape in zip(PARAMETERS[self.cls], self.shapes, strict=True):
            parts.append(getattr(inner, name).expand(*places, K, *shape).reshape(b, s, K * math.prod(shape)))
        return torch.cat([part.to(parts[0].dtype) for part in parts], -1)

    def log_weights(self, y: Float[Tensor, "*b C"]) -> Float[Tensor, "*b K"]:
        """The logarithms of the weights of the components."""
        return torch.log_softmax(y[..., : self.components], -1)

    def parameters(self, y: Float[Tensor, "*b C"]) -> dict[str, Tensor]:
        """The parameters by name, each of shape ``(*b, K, *own)``."""
        sizes = [self.components * math.prod(shape) for shape in self.shapes]
        parts = y[..., self.components :].split(sizes, -1)
        named = zip(PARAMETERS[self.cls], parts, self.shapes, strict=True)
        return {name: part.unflatten(-1, (self.components, *shape)) for (name, _), part, shape in named}

    def component(self, y: Float[Tensor, "*b C"]) -> td.Distribution:
        """The components, inside of `Independent`: ``batch_shape`` is ``(*b, K, *each)``."""
        found: td.Distribution = self.cls(**self.parameters(y), validate_args=False)
        return found

    def log_densities(self, y: Float[Tensor, "*b C"], x: Float[Tensor, "..."]) -> Float[Tensor, "*n K"]:
        """``log π_k + log p_k(x)``; leading axes of ``y`` and of ``x`` are broadcast."""
        x, unbounded = x.unsqueeze(-1 - len(self.event)), UNBOUNDED.get(self.cls)
        log_p = self.component(y).log_prob(x) if unbounded is None else unbounded(x, **self.parameters(y))
        return self.log_weights(y) + (log_p.flatten(-len(self.each)).sum(-1) if self.each else log_p)

    def log_density(self, y: Float[Tensor, "*b C"], x: Float[Tensor, "..."]) -> Float[Tensor, "*n"]:
        """``log Σ_k π_k p_k(x)``."""
        return torch.logsumexp(self.log_densities(y, x), -1)

    @property
    def scalar(self) -> bool:
        """Whether events are single numbers."""
        return math.prod(self.event) == 1

    def __str__(self) -> str:
        inside = self.cls.__name__
        return f"mixture of {self.components} {f'independent {inside}' if self.each else inside}"
