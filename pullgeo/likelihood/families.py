"""Fisher informations of families of `torch.distributions`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td

from pullgeo._torch.transforms import unwrapped
from pullgeo.errors import OptionError, RegistryError
from pullgeo.likelihood.embeddings import BernoulliAngle

OfDistribution = Callable[[Any], Tensor]
Function = TypeVar("Function", bound=OfDistribution)


@dataclass(frozen=True, eq=False)
class Family:
    """What is known of a class of distributions; locations are the axes of the distribution's ``batch_shape``.

    Args:
        parameters: the c parameters that the information is about, ``(*batch_shape, c)``.
        information: their Fisher information, ``(*batch_shape, c)`` where it is diagonal, ``(*batch_shape, c, c)``
            where it is not.
        fixed: names of parameters that the information leaves out, so that the network must not put them out.
        embedding: a flat isometry into a Euclidean space, ``(*batch_shape, e)``, if there is one.
        names: attributes of a distribution, and arguments of its class, that hold the parameters.
        cls: the class.
    """

    parameters: OfDistribution
    information: OfDistribution
    fixed: tuple[str, ...] = ()
    embedding: OfDistribution | None = None
    names: tuple[str, ...] = ()
    cls: Any = td.Distribution

    def remade(self, theta: Float[Tensor, "*s c"], fixed: Float[Tensor, "*s f"]) -> td.Distribution:
        """The distribution of some parameters, and of those that are fixed.

        Raises:
            OptionError: the class does not take them by these names.
        """
        vector = len(self.names) == 1 and theta.shape[-1] != 1
        values = {self.names[0]: theta} if vector else dict(zip(self.names, theta.unbind(-1), strict=True))
        held = dict(zip(self.fixed, fixed.unbind(-1), strict=True))
        try:
            return self.cls(**values, **held, validate_args=False)
        except TypeError as error:
            raise OptionError(
                f"fisher_information: {self.cls.__name__} does not take {', '.join((*self.names, *self.fixed))} as "
                "arguments. Register its information in the parameters that its constructor takes."
            ) from error


_families: dict[type[td.Distribution], Family] = {}
_free: dict[type[td.Distribution], Family] = {}
"""Families in all parameters, of classes whose usual information leaves some out because it is simpler without."""


def fisher_information(
    distribution: type[td.Distribution],
    *parameters: str,
    fixed: tuple[str, ...] = (),
    embedding: OfDistribution | None = None,
) -> Callable[[Function], Function]:
    """Register the Fisher information of a class of distributions, in the parameters that are named.

    A class that is registered with ``fixed`` parameters may be registered once more with these among the others. The
    second information is taken where they depend on the latent.

    Args:
        distribution: the class; subclasses follow unless registered.
        parameters: names of its attributes: several that are numbers at each location, or one vector. Decoders that
            return such distributions need it to take arguments of the same names.
        fixed: names of attributes that must not depend on what the network puts out.
        embedding: a flat isometry of the family into a Euclidean space, if there is one.

    Raises:
        RegistryError: the class is registered already.

    Example:
        >>> class Rayleigh(td.Weibull):
        ...     def __init__(self, scale, validate_args=None):
        ...         super().__init__(scale, 2.0, validate_args)
        >>> @fisher_information(Rayleigh, "scale")
        ... def rayleigh(d):
        ...     return (2 / d.scale).square().unsqueeze(-1)
    """
    registry = _families
    if distribution in _families:
        held = _families[distribution].fixed
        registry = _free
        if fixed or distribution in _free or not held or not set(held) <= set(parameters):
            raise RegistryError(f"fisher_information: {distribution.__name__} is registered already.")

    def add(function: Function) -> Function:
        def stacked(d: Any) -> Tensor:
            values = [getattr(d, name) for name in parameters]
            if d.event_shape:  # one vector
                return values[0].expand(*d.batch_shape, *d.event_shape)
            return torch.stack([value.expand(d.batch_shape) for value in values], -1)

        registry[distribution] = Family(stacked, function, fixed, embedding, parameters, distribution)
        return function

    return add


def family_of(distribution: type[td.Distribution], moves: frozenset[str] = frozenset()) -> Family:
    """What is known of a class of distributions.

    Args:
        distribution: the class.
        moves: parameters that depend on the latent: if one of them is left out by the usual information of the class,
            that in all parameters is taken, where there is one.

    Raises:
        OptionError: nothing is.
    """
    cls = next((cls for cls in distribution.__mro__ if cls in _families), None)
    found = None if cls is None else _families[cls]
    if cls in _free and found is not None and moves & set(found.fixed):
        return _free[cls]
    if found is None:
        if distribution in REFUSED:
            raise OptionError(f"The Fisher information of {distribution.__name__}: {REFUSED[distribution]}")
        known = ", ".join(cls.__name__ for cls in _families)
        raise OptionError(
            f"TorchDistribution: the Fisher information of {distribution.__name__} is not known; known are {known}. "
            "Register it with pullgeo.likelihood.fisher_information."
        )
    return found


_MOVING_SUPPORT = (
    "which values are possible depends on the parameters, so that distances are not lengths in a Fisher-Rao metric. "
    "Measure a parameter, such as output='mean', or use a family whose support stays."
)
REFUSED = {
    td.Uniform: _MOVING_SUPPORT,
    td.FisherSnedecor: "there is no closed form. Return its logarithm's location and scale, or measure output='mean'.",
    td.LKJCholesky: "it is not known. Measure its parameter, output='concentration'.",
}
"""Why families of torch have no Fisher-Rao metric here, and what to do."""
if hasattr(td, "GeneralizedPareto"):  # older releases have none
    REFUSED[td.GeneralizedPareto] = _MOVING_SUPPORT


def _entries(*values: Tensor) -> Float[Tensor, "*s c"]:
    return torch.stack(torch.broadcast_tensors(*values), -1)


def _matrix(first: Tensor, mixed: Tensor, second: Tensor) -> Float[Tensor, "*s 2 2"]:
    a, b, c = torch.broadcast_tensors(first, mixed, second)
    return torch.stack([torch.stack([a, b], -1), torch.stack([b, c], -1)], -2)


def _asinh_exp(x: Tensor) -> Tensor:
    """``arsinh eˣ``, which neither overflows nor loses its digits."""
    return torch.logaddexp(x, 0.5 * torch.logaddexp(2 * x, torch.zeros_like(x)))


def _trigamma(x: Tensor) -> Tensor:
    return torch.polygamma(1, x)


@fisher_information(td.Normal, "loc", "scale")
def _normal(d: Any) -> Tensor:
    precision = d.scale.square().reciprocal()
    return _entries(precision, 2 * precision)


@fisher_information(td.LogNormal, "loc", "scale")
def _log_normal(d: Any) -> Tensor:
    return _normal(d)


@fisher_information(td.HalfNormal, "scale", embedding=lambda d: math.sqrt(2) * d.scale.log().unsqueeze(-1))
def _half_normal(d: Any) -> Tensor:
    return _entries(2 / d.scale.square())


@fisher_information(td.Laplace, "loc", "scale")
def _laplace(d: Any) -> Tensor:
    precision = d.scale.square().reciprocal()
    return _entries(precision, precision)


@fisher_information(td.StudentT, "loc", "scale", fixed=("df",))
def _student_t(d: Any) -> Tensor:
    precision = d.scale.square().reciprocal() / (d.df + 3)
    return _entries((d.df + 1) * precision, 2 * d.df * precision)


# Lange, Little, Taylor, Robust Statistical Modeling Using the t Distribution, JASA 1989, with σ in place of σ²; the
# first entry is a small difference of trigammas, which an asymptotic series replaces
@fisher_information(td.StudentT, "df", "loc", "scale")
def _student_t_of_all(d: Any) -> Tensor:
    nu, sigma = d.df, d.scale
    large = nu > 100
    n = torch.where(large, 1.0, nu)
    exact = (_trigamma(n / 2) - _trigamma((n + 1) / 2)) / 4 - (n + 5) / (2 * n * (n + 1) * (n + 3))
    u = nu.reciprocal()
    series = u**4 * (3.5 + u * (-13 + u * (39.5 + u * (-119 + u * (363.5 + u * (-1101 + 3279.5 * u))))))
    zero = torch.zeros_like(nu)
    of_df, mixed = torch.where(large, series, exact), -2 / (sigma * (nu + 1) * (nu + 3))
    precision = sigma.square().reciprocal() / (nu + 3)
    rows = [of_df, zero, mixed, zero, (nu + 1) * precision, zero, mixed, zero, 2 * nu * precision]
    return torch.stack(torch.broadcast_tensors(*rows), -1).unflatten(-1, (3, 3))


@fisher_information(td.Cauchy, "loc", "scale")
def _cauchy(d: Any) -> Tensor:
    precision = 0.5 / d.scale.square()
    return _entries(precision, precision)


@fisher_information(td.HalfCauchy, "scale", embedding=lambda d: math.sqrt(0.5) * d.scale.log().unsqueeze(-1))
def _half_cauchy(d: Any) -> Tensor:
    return _entries(0.5 / d.scale.square())


@fisher_information(td.Pareto, "alpha", fixed=("scale",), embedding=lambda d: d.alpha.log().unsqueeze(-1))
def _pareto(d: Any) -> Tensor:
    return _entries(d.alpha.square().reciprocal())


# The logit of a draw, times the temperature, is logistic about the logits.
@fisher_information(
    td.RelaxedBernoulli, "logits", fixed=("temperature",), embedding=lambda d: d.logits.unsqueeze(-1) / math.sqrt(3)
)
def _relaxed_bernoulli(d: Any) -> Tensor:
    return _entries(torch.full_like(d.logits, 1 / 3))


@fisher_information(td.Bernoulli, "logits", embedding=lambda d: BernoulliAngle()(d.logits).unsqueeze(-1))
def _bernoulli(d: Any) -> Tensor:
    return _entries(torch.sigmoid(d.logits) * torch.sigmoid(-d.logits))


# 1/12 - x²/240 + ... is the variance of the natural parameter's exponential family, whose closed form cancels at zero.
@fisher_information(td.ContinuousBernoulli, "logits")
def _continuous_bernoulli(d: Any) -> Tensor:
    near = d.logits.abs() < 0.1
    x = torch.where(near, 1.0, d.logits)
    square = torch.where(near, d.logits, 0.0).square()
    series = 1 / 12 + square * (-1 / 240 + square * (1 / 6048 + square * (-1 / 172800 + square / 5322240)))
    # 1/(4 sinh²(x/2)) in terms that do not overflow
    away = x.abs()
    return _entries(torch.where(near, series, x.square().reciprocal() - torch.exp(-away) / torch.expm1(-away).square()))


@fisher_information(
    td.Binomial,
    "logits",
    fixed=("total_count",),
    embedding=lambda d: (d.total_count.sqrt() * BernoulliAngle()(d.logits)).unsqueeze(-1),
)
def _binomial(d: Any) -> Tensor:
    return _entries(d.total_count * torch.sigmoid(d.logits) * torch.sigmoid(-d.logits))


@fisher_information(td.Geometric, "logits", embedding=lambda d: 2 * _asinh_exp(-d.logits / 2).unsqueeze(-1))
def _geometric(d: Any) -> Tensor:
    return _entries(torch.sigmoid(-d.logits))


@fisher_information(
    td.NegativeBinomial,
    "logits",
    fixed=("total_count",),
    embedding=lambda d: (2 * d.total_count.sqrt() * _asinh_exp(d.logits / 2)).unsqueeze(-1),
)
def _negative_binomial(d: Any) -> Tensor:
    return _entries(d.total_count * torch.sigmoid(d.logits))


def _count_information(r: Tensor, logits: Tensor) -> Tensor:
    """``ψ'(r) - E ψ'(r + X)`` for counts X, as ``∫ t e^{-rt}/(1 - e^{-t}) (1 - E e^{-tX}) dt``.

    The trapezoidal rule in ``log t``, in which nothing is narrower than one: steps of 1/4 are exact to 1e-12.
    """
    odds = logits.exp()
    low = torch.minimum(torch.minimum(odds.reciprocal(), r.reciprocal()), torch.ones_like(r)).log() - 21
    high = (40 / r).log()
    number = (
        20 + int(4 * float(unwrapped(high - low).detach().nan_to_num(0, 0, 0).clamp(max=2e3).amax()))
        if r.numel()
        else 1
    )
    step = (high - low) / number
    grid = torch.arange(number + 1, dtype=r.dtype, device=r.device).reshape(-1, *[1] * r.ndim)
    t = (low + step * grid).exp()
    fall = -torch.expm1(-t)
    missing = -torch.expm1(-r * torch.log1p(odds * fall))  # 1 - E exp(-tX)
    return step * (t.square() * torch.exp(-r * t) / fall * missing).sum(0)


@fisher_information(td.NegativeBinomial, "total_count", "logits")
def _negative_binomial_of_all(d: Any) -> Tensor:
    r, logits = torch.broadcast_tensors(d.total_count, d.logits)
    p = torch.sigmoid(logits)
    return _matrix(_count_information(r, logits), p, r * p)


@fisher_information(td.Poisson, "rate", embedding=lambda d: 2 * d.rate.sqrt().unsqueeze(-1))
def _poisson(d: Any) -> Tensor:
    return _entries(d.rate.reciprocal())


@fisher_information(td.Exponential, "rate", embedding=lambda d: d.rate.log().unsqueeze(-1))
def _exponential(d: Any) -> Tensor:
    return _entries(d.rate.square().reciprocal())


@fisher_information(td.Gamma, "concentration", "rate")
def _gamma(d: Any) -> Tensor:
    return _matrix(_trigamma(d.concentration), -1 / d.rate, d.concentration / d.rate.square())


@fisher_information(td.InverseGamma, "concentration", "rate")
def _inverse_gamma(d: Any) -> Tensor:
    return _gamma(d)


@fisher_information(td.Beta, "concentration1", "concentration0")
def _beta(d: Any) -> Tensor:
    a, b = d.concentration1, d.concentration0
    both = _trigamma(a + b)
    return _matrix(_trigamma(a) - both, -both, _trigamma(b) - both)


@fisher_information(td.Dirichlet, "concentration")
def _dirichlet(d: Any) -> Tensor:
    alpha = d.concentration
    return _trigamma(alpha).diag_embed() - _trigamma(alpha.sum(-1))[..., None, None]


@fisher_information(td.Gumbel, "loc", "scale")
def _gumbel(d: Any) -> Tensor:
    # E[z], E[z²] of the standard Gumbel variable enter through Euler's constant
    euler = 0.57721566490153286
    precision = torch.as_tensor(d.scale).square().reciprocal()
    return _matrix(precision, (euler - 1) * precision, (math.pi**2 / 6 + (1 - euler) ** 2) * precision)


@fisher_information(td.Weibull, "scale", "concentration")
def _weibull(d: Any) -> Tensor:
    # minus the logarithm is a Gumbel variable
    euler = 0.57721566490153286
    ratio, inverse = d.concentration / d.scale, d.concentration.reciprocal()
    second = (math.pi**2 / 6 + (1 - euler) ** 2) * inverse.square()
    return _matrix(ratio.square(), (euler - 1) * ratio * inverse, second)


@fisher_information(td.VonMises, "loc", "concentration")
def _von_mises(d: Any) -> Tensor:
    kappa = d.concentration
    ratio = torch.special.i1e(kappa) / torch.special.i0e(kappa)  # A(κ), the mean resultant length
    small, large = kappa < 1e-4, kappa > 50
    safe = torch.where(small, torch.ones_like(kappa), kappa)
    between = 1 - ratio / safe - ratio.square()
    # its terms cancel more and more, down to 1/(2κ²), and the asymptotic series becomes exact
    u = safe.reciprocal()
    series = u**2 * (
        1 / 2 + u * (1 / 4 + u * (3 / 8 + u * (25 / 32 + u * (65 / 32 + u * (3219 / 512 + u * 721 / 32)))))
    )
    below = 0.5 - 0.1875 * kappa.square()
    return _entries(kappa * ratio, torch.where(large, series, torch.where(small, below, between)))


# In the logarithms of the probabilities of all classes, along tangents that keep their sum: the parametrisation of
# torch normalises, so that all tangents do.
def _log_probabilities(d: Any) -> Tensor:
    return torch.log_softmax(d.logits, -1)


def _probabilities(d: Any) -> Tensor:
    return torch.softmax(d.logits, -1)


# of the Gumbel variables behind a draw only differences are seen: (c/(c + 1)) (1 - 11ᵀ/c), where c is their number
def _centred(d: Any) -> Tensor:
    count = d.logits.shape[-1]
    return (count / (count + 1)) ** 0.5 * (d.logits - d.logits.mean(-1, keepdim=True))


_families[td.RelaxedOneHotCategorical] = Family(
    _centred, lambda d: torch.ones_like(d.logits), fixed=("temperature",), embedding=_centred, names=("logits",)
)
_families[td.LogisticNormal] = Family(
    lambda d: torch.stack([d.loc, d.scale], -1), _normal, names=("loc", "scale"), cls=td.LogisticNormal
)
for _cls in (td.Categorical, td.OneHotCategorical):
    _families[_cls] = Family(_log_probabilities, _probabilities, names=("logits",), cls=_cls)
_families[td.Multinomial] = Family(
    _log_probabilities, lambda d: d.total_count * _probabilities(d), names=("logits",), cls=td.Multinomial
)
