"""The errors that pullgeo raises.

Every message says where the error arose, what was expected, what was got instead, and the likely fix. Each class
also derives from the built-in exception that a caller would guess, so ``except ValueError`` keeps working.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class PullgeoError(Exception):
    """Base of every error raised on purpose by this package."""


class SamplesError(PullgeoError):
    """Some samples of a batch have no answer.

    Attributes:
        bad: ``(b,)`` of bool, which samples; ``None`` where that is not known.
    """

    def __init__(self, message: str, bad: "Tensor | None" = None) -> None:
        super().__init__(message)
        self.bad = bad


class ShapeError(PullgeoError, ValueError):
    """A tensor has the wrong shape."""


class DtypeError(PullgeoError, TypeError):
    """A tensor has a dtype that the operation cannot take."""


class DeviceError(PullgeoError, ValueError):
    """Tensors that must meet live on different devices."""


class OptionError(PullgeoError, ValueError):
    """An option has a value outside its choices or range."""


class NonFiniteError(SamplesError, ValueError):
    """An input or the output of a user's decoder holds NaN or infinity."""


class SingularMetricError(SamplesError, ArithmeticError):
    """A metric that must be inverted is singular, or not positive definite."""


class CoupledSamplesError(PullgeoError, RuntimeError):
    """A module mixes the samples of a batch (or draws randomness), so it has no Jacobian per sample."""


class ModuleError(PullgeoError, TypeError):
    """A module cannot be served: it is not materialised, or its output is not a tensor."""


class GradModeError(PullgeoError, RuntimeError):
    """Derivatives are needed where torch has switched them off, beyond what a function can switch on again."""


class TensorChangedError(PullgeoError, RuntimeError):
    """A tensor was written into after a product or `linearize` had used it, and is needed as it was."""


class RegistryError(PullgeoError, ValueError):
    """A rule is registered twice or for something that is not a module class, or is not what a rule must be."""


class DataError(PullgeoError, ValueError):
    """A file or data set that a user named cannot be read as what it should be."""


class GeometryError(PullgeoError, ValueError):
    """An operation asks for geometry that a manifold, or a curve in it, does not have."""


class TargetError(PullgeoError, ValueError):
    """A target holds values that a likelihood gives no probability to."""


class OffManifoldError(PullgeoError, ValueError):
    """A decoder's output is not a point of the manifold that it is said to lie on."""


class CoarseMapWarning(UserWarning):
    """A living map is less exact than it should be, even on the finest lattice that its size allows."""
