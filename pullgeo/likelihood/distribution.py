"""Any distribution of `torch.distributions` whose Fisher information is known, as a likelihood."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch import distributions as td

from pullgeo._torch.transforms import transformed, unwrapped, vjp
from pullgeo.errors import ModuleError, OptionError, ShapeError
from pullgeo.jacobian.base import Jacobian, LinearKind
from pullgeo.jacobian.kinds.elementwise import Elementwise
from pullgeo.jacobian.linearize import linearize
from pullgeo.jacobian.signature import Signature
from pullgeo.likelihood.base import Likelihood, euclidean, per_sample
from pullgeo.likelihood.families import Family, family_of
from pullgeo.likelihood.mixture_layout import innermost
from pullgeo.likelihood.mixture_nodes import MonteCarlo, nodes_of
from pullgeo.likelihood.mixture_score import MixtureScores
from pullgeo.metric.base import Metric
from pullgeo.metric.implicit import Implicit
from pullgeo.metric.rooted import Factored
from pullgeo.metric.structured import Dense


@dataclass(frozen=True, eq=False)
class TorchDistribution(Likelihood):
    """What a function makes of a network's output: ``make(η)`` is a distribution over targets.

    The information of the distribution's own parameters ``θ`` is known in closed form (see `fisher_information` for
    adding to the list) and pulled back through ``∂θ/∂η`` by automatic differentiation, so that ``make`` may be any
    function of the output: exponentials, softplus, halves, an `Independent` around it.

    Args:
        make: from outputs ``(b, *out)`` to a distribution whose ``batch_shape`` begins with ``b``.
        family: the class that ``make`` returns, inside of `Independent`. Only if it is named beforehand is there an
            `embedding`, for the families that have one.
        draws: how expectations over mixtures are taken; without them by the best means that there are.

    Raises:
        OptionError: ``make`` cannot be called, or the information of the family is not known.

    Example:
        >>> gamma = TorchDistribution(lambda eta: td.Gamma(eta[:, :1].exp(), eta[:, 1:].exp()))
        >>> gamma.fisher(torch.zeros(1, 2)).dense()
        tensor([[[ 1.6449, -1.0000],
                 [-1.0000,  1.0000]]])
    """

    make: Callable[[Tensor], Any]
    family: type[td.Distribution] | None = None
    draws: MonteCarlo | None = None

    def __post_init__(self) -> None:
        if not callable(self.make):
            raise OptionError(
                "TorchDistribution: make must be a function from a network's output to a distribution, got "
                f"{self.make!r}."
            )
        if self.family is not None:
            family_of(self.family)

    def fisher(self, eta: Float[Tensor, "b *out"]) -> Implicit:
        """``(∂θ/∂η)ᵀ I(θ) (∂θ/∂η)``, held as its root; of mixtures as scores at nodes, see `MonteCarlo`.

        Raises:
            OptionError: the information is not known, or a parameter that it leaves out depends on ``η``.
            ModuleError: ``make`` does not return a distribution for each sample.
        """
        self._check_eta("fisher", eta)
        distribution = self._inner(eta)
        if isinstance(distribution, td.MixtureSameFamily):
            nodes = nodes_of(distribution, self.draws)
            packed, J = linearize(lambda e: nodes.layout.pack(self._inner(e)), eta)
            return Implicit(J, MixtureScores(nodes, packed))
        family = self.family_at(eta)
        theta, J = linearize(lambda e: family.parameters(self._inner(e)), eta)
        return Implicit(J, Factored(_information_root(family.information(distribution), theta)))

    def sample(
        self, eta: Float[Tensor, "b *out"], generator: torch.Generator, count: int = 1
    ) -> Shaped[Tensor, "k b *t"]:
        """As the distribution samples, from the generator's numbers."""
        self._check_eta("sample", eta)
        # torch.distributions take no generator; the global one is lent a state of the given one and put back
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        devices = [eta.device] if eta.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            return self._whole(eta).sample(torch.Size((count,)))

    @property
    def embedding(self) -> nn.Module | None:
        """The family's flat isometry, where the family is named and has one."""
        family = None if self.family is None else family_of(self.family)
        return None if family is None or family.embedding is None else _Embedding(self, family.embedding)

    def distance(self, eta: Float[Tensor, "b *out"], other: Float[Tensor, "b *out"]) -> Float[Tensor, " b"]:
        """The Euclidean distance between embeddings.

        Raises:
            OptionError: the family has no flat isometry.
        """
        self._check_pair(eta, other)
        distribution = self._inner(eta)
        family = family_of(type(distribution))
        self._check_fixed(family, eta)
        embedding = family.embedding
        if embedding is None:
            raise OptionError(
                f"TorchDistribution.distance: no closed form is offered for {type(distribution).__name__}. Solve for "
                "a geodesic of the metric fisher(eta), or use one of the likelihoods of this package that has one."
            )
        return euclidean(embedding(distribution) - embedding(self._inner(other)))

    def _nll(self, eta: Tensor, target: Tensor) -> Tensor:
        return per_sample(-self._whole(eta).log_prob(target))

    def _gradient(self, eta: Tensor, target: Tensor) -> Tensor:
        value, pullback = vjp(lambda e: self._nll(e, target), eta)[:2]
        return pullback(torch.ones_like(value))[0]

    def _hessian(self, eta: Tensor, target: Tensor) -> Metric:
        return Dense(linearize(lambda e: self._gradient(e, target), eta)[1].dense())

    def _checked(self, where: str, eta: Tensor, target: Tensor) -> Tensor:
        self._check_eta(where, eta)
        distribution = self._whole(eta)
        expected = distribution.batch_shape + distribution.event_shape
        if target.shape != expected:
            raise ShapeError(
                f"TorchDistribution.{where}: the distribution of an output of shape {tuple(eta.shape)} is over "
                f"targets of shape {tuple(expected)}, got {tuple(target.shape)}."
            )
        support = getattr(distribution, "support", None)
        if support is not None:
            fits = support.check(target.detach())
            self._require(where, fits, f"in the support of {type(distribution).__name__}")
        return target

    def _whole(self, eta: Tensor) -> td.Distribution:
        distribution = self.make(eta)
        if not isinstance(distribution, td.Distribution):
            raise ModuleError(
                "TorchDistribution: make must return a torch.distributions.Distribution, got "
                f"{type(distribution).__name__}."
            )
        if tuple(distribution.batch_shape[:1]) != (len(eta),):
            raise ModuleError(
                f"TorchDistribution: make must return a distribution for each of {len(eta)} samples, got batch_shape "
                f"{tuple(distribution.batch_shape)}. The first axis must be the batch."
            )
        return distribution

    def _inner(self, eta: Tensor) -> td.Distribution:
        return innermost(self._whole(eta))

    def family_at(self, eta: Float[Tensor, "b *out"]) -> Family:
        """What is known of the distributions, in all parameters if those that it leaves out depend on the output.

        Raises:
            OptionError: nothing is known, or not of such parameters.
        """
        cls = type(self._inner(eta))
        usual = family_of(cls)
        if not usual.fixed:
            return usual
        family = family_of(cls, frozenset(name for name in usual.fixed if self._depends(name, eta)))
        if family is usual:
            self._check_fixed(usual, eta)
        return family

    def _depends(self, name: str, eta: Tensor) -> bool:
        """Whether a parameter depends on the output, also under a transform of torch."""
        value, pull = vjp(lambda e: torch.as_tensor(getattr(self._inner(e), name)).to(e), eta)
        return bool(unwrapped(pull(torch.ones_like(value))[0]).detach().any())

    def _check_fixed(self, family: Family, eta: Tensor) -> None:
        for name in family.fixed:
            if self._depends(name, eta):
                raise OptionError(
                    f"TorchDistribution.fisher: {name} depends on the network's output, and the information is known "
                    f"for a fixed {name} only."
                )


class _Embedding(nn.Module):
    def __init__(self, likelihood: TorchDistribution, embedding: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.embedding = embedding

    def forward(self, eta: Tensor) -> Tensor:
        distribution = self.likelihood._inner(eta)
        family = family_of(type(distribution))
        # under a transform of torch it has been looked at: the value, which comes first, is outside of them
        if family.fixed and not transformed():
            self.likelihood._check_fixed(family, eta)
        return self.embedding(distribution)


@dataclass(frozen=True, eq=False)
class _LocationRoot(LinearKind):
    """A lower triangular matrix at each location."""

    factors: Float[Tensor, "b *s c c"]

    @property
    def signature(self) -> Signature:  # type: ignore[override]
        """``(*s, c) -> (*s, c)``."""
        return Signature.between(self.factors[..., 0], self.factors[..., 0])

    def push(self, T: Float[Tensor, "k b *s c"]) -> Float[Tensor, "k b *s c"]:
        """``L T``."""
        return (self.factors @ T.unsqueeze(-1)).squeeze(-1)

    def pull(self, W: Float[Tensor, "k b *s c"]) -> Float[Tensor, "k b *s c"]:
        """``Lᵀ W``."""
        return (self.factors.mT @ W.unsqueeze(-1)).squeeze(-1)


def _information_root(information: Tensor, theta: Tensor) -> Jacobian:
    if information.ndim == theta.ndim:
        return Elementwise(information.expand_as(theta).sqrt())
    return _LocationRoot(torch.linalg.cholesky(information.expand(*theta.shape, theta.shape[-1])))
