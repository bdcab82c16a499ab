"""What every likelihood can do."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pullgeo.errors import DtypeError, OptionError, ShapeError, TargetError
from pullgeo.metric.base import Metric


class Likelihood(ABC):
    """A distribution ``p(target | η)`` whose parameters ``η`` a network puts out, ``(b, *out)``, sample by sample.

    Entries of an output (and locations of an image) are independent given ``η``. The Fisher information
    ``I(η) = E[∇nll ∇nllᵀ]`` is a `Metric` on the flattened output; pulled back through a decoder it is the Fisher-Rao
    metric of the latent space, pulled back to weights the generalised Gauss-Newton matrix.
    """

    def nll(self, eta: Float[Tensor, "b *out"], target: Shaped[Tensor, "b *t"]) -> Float[Tensor, " b"]:
        """``-log p(target | η)`` of each sample, in nats, with all constants.

        Raises:
            ShapeError: the output or the target has a shape that does not fit.
            TargetError: the target holds values that the distribution cannot take.
        """
        return self._nll(eta, self._checked("nll", eta, target))

    def gradient(self, eta: Float[Tensor, "b *out"], target: Shaped[Tensor, "b *t"]) -> Float[Tensor, "b *out"]:
        """``∂nll/∂η``.

        Raises:
            ShapeError, TargetError: as `nll`.
        """
        return self._gradient(eta, self._checked("gradient", eta, target))

    def hessian(self, eta: Float[Tensor, "b *out"], target: Shaped[Tensor, "b *t"]) -> Metric:
        """``∂²nll/∂η²``, which is the Fisher information itself where ``η`` is the natural parameter.

        Raises:
            ShapeError, TargetError: as `nll`.
        """
        return self._hessian(eta, self._checked("hessian", eta, target))

    @abstractmethod
    def fisher(self, eta: Float[Tensor, "b *out"]) -> Metric:
        """``E[∂²nll/∂η²] = E[∇nll ∇nllᵀ]`` over targets drawn from ``p(· | η)``, on the flattened output.

        Raises:
            ShapeError: the output has a shape that does not fit.
        """

    def root(self, eta: Float[Tensor, "b *out"]) -> Float[Tensor, "b n r"]:
        """Matrices ``R`` with ``R Rᵀ = fisher(η)``; ``fisher(η).pullback(J).root()`` is ``Jᵀ R``."""
        return self.fisher(eta).root().expand(len(eta), -1, -1)

    @abstractmethod
    def sample(
        self, eta: Float[Tensor, "b *out"], generator: torch.Generator, count: int = 1
    ) -> Shaped[Tensor, "k b *t"]:
        """``count`` targets for each sample, drawn independently; the draws lead."""

    @property
    @abstractmethod
    def embedding(self) -> nn.Module | None:
        """An isometry: a map of ``η`` whose Jacobian ``E`` has ``EᵀE = fisher(η)``, or None if there is none to offer.

        The Euclidean pullback metric of a decoder followed by it is the Fisher-Rao metric.
        """

    @abstractmethod
    def distance(self, eta: Float[Tensor, "b *out"], other: Float[Tensor, "b *out"]) -> Float[Tensor, " b"]:
        """The Fisher-Rao distance between the distributions, in closed form.

        Raises:
            ShapeError: the two have different shapes.
            OptionError: no closed form is known.
        """

    @abstractmethod
    def _nll(self, eta: Tensor, target: Tensor) -> Tensor: ...

    @abstractmethod
    def _gradient(self, eta: Tensor, target: Tensor) -> Tensor: ...

    def _hessian(self, eta: Tensor, target: Tensor) -> Metric:
        return self.fisher(eta)

    def _checked(self, where: str, eta: Tensor, target: Tensor) -> Tensor:
        """The target in the precision of ``η``, once it fits."""
        self._check_eta(where, eta)
        if target.shape != eta.shape:
            raise ShapeError(
                f"{self._name}.{where}: target must have the shape of the output, {tuple(eta.shape)}, got "
                f"{tuple(target.shape)}. Use target.reshape(output.shape) if only ones are missing."
            )
        return target.to(eta.dtype)

    def _check_eta(self, where: str, eta: Tensor) -> None:
        if not eta.is_floating_point():
            raise DtypeError(f"{self._name}.{where}: the output must be floating point, got {eta.dtype}.")
        if eta.ndim == 0:
            raise ShapeError(f"{self._name}.{where}: the output must have shape (b, *out), got a scalar.")

    def _check_pair(self, eta: Tensor, other: Tensor) -> None:
        self._check_eta("distance", eta)
        if eta.shape != other.shape:
            raise ShapeError(
                f"{self._name}.distance: both must have the same shape, got {tuple(eta.shape)} and "
                f"{tuple(other.shape)}. Expand one of them."
            )

    def _require(self, where: str, fits: Tensor, expected: str) -> None:
        if not bool(fits.all()):
            wrong = int((~fits).sum())
            raise TargetError(f"{self._name}.{where}: {wrong} of {fits.numel()} targets are not {expected}.")

    @property
    def _name(self) -> str:
        return type(self).__name__


def per_sample(values: Float[Tensor, "b *out"]) -> Float[Tensor, " b"]:
    """The sum over each sample."""
    return flat_rows(values).sum(1)


def flat_rows(values: Shaped[Tensor, "b *out"]) -> Shaped[Tensor, "b n"]:
    """Each sample as one row, of length one where samples are numbers."""
    return values.reshape(len(values), values.shape[1:].numel())


def euclidean(difference: Float[Tensor, "b *out"]) -> Float[Tensor, " b"]:
    """The norm of each sample; its derivative at zero is zero."""
    return torch.linalg.vector_norm(flat_rows(difference), dim=1)


def positive(where: str, value: float | Tensor) -> None:
    """Raise unless a scale is positive everywhere.

    Raises:
        OptionError: it is not.
    """
    if not bool((torch.as_tensor(value) > 0).all()):
        raise OptionError(f"{where} must be positive everywhere, got {value}.")
