"""What every metric can do, and how it travels through maps."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._repr import ShortRepr
from pullgeo._torch.half_precision import decomposable
from pullgeo._torch.plain_memory import hold_outside_inference, take_any_tensors
from pullgeo.errors import RegistryError, ShapeError, SingularMetricError
from pullgeo.jacobian.base import Jacobian

_OF_TANGENTS = ("apply", "solve", "inner", "norm", "gram", "quadratic")


class Metric(ShortRepr, ABC):
    """An inner product ``⟨u, v⟩ = uᵀ M v`` on the tangent space at each point of a batch; immutable.

    Tangents are flat: ``(b, n)``, or stacks ``(k, b, n)`` with the k leading. A metric without a batch of its own is
    the same at every point. The products need neither symmetry nor positivity of ``M``; what needs them says so.
    """

    dim: int
    """n, the dimension of the tangent space."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dim={self.dim}, {str(self.dtype).removeprefix('torch.')})"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let the operations of every metric take tangents that were made under ``torch.inference_mode``."""
        super().__init_subclass__(**kwargs)
        take_any_tensors(cls, _OF_TANGENTS)

    def __post_init__(self) -> None:
        """Entries that were made under ``torch.inference_mode`` are copied."""
        hold_outside_inference(self)

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Precision of the metric's entries."""

    @abstractmethod
    def apply(self, v: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """``M v``: the musical isomorphism flat."""

    @abstractmethod
    def dense(self) -> Float[Tensor, "*b n n"]:
        """The matrices ``M``."""

    @abstractmethod
    def diag(self) -> Float[Tensor, "*b n"]:
        """The diagonals of ``M``."""

    def inner(self, u: Float[Tensor, "*k n"], v: Float[Tensor, "*k n"]) -> Float[Tensor, "*k"]:
        """``uᵀ M v``.

        Raises:
            ShapeError: the vectors do not live in this tangent space.
        """
        self._check("inner", u)
        self._check("inner", v)
        return (u * self.apply(v)).sum(-1)

    def norm(self, v: Float[Tensor, "*k n"]) -> Float[Tensor, "*k"]:
        """``√(vᵀ M v)``; rounding below zero counts as zero."""
        return self.inner(v, v).clamp(min=0).sqrt()

    def gram(self, T: Float[Tensor, "k *b n"]) -> Float[Tensor, "*b k k"]:
        """``T_iᵀ M T_j`` for a stack of k tangents."""
        return torch.matmul(T.movedim(0, -2), self.apply(T).movedim(0, -1))

    def quadratic(self, T: Float[Tensor, "k *b n"]) -> Float[Tensor, "k *b"]:
        """``T_iᵀ M T_i`` for a stack of k tangents."""
        return (T * self.apply(T)).sum(-1)

    def solve(self, w: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """``M⁻¹ w``: the musical isomorphism sharp.

        Raises:
            SingularMetricError: ``M`` is singular at a point.
            ShapeError: ``w`` does not live in this cotangent space.
        """
        self._check("solve", w)
        matrix = decomposable(self.dense())
        solution, info = torch.linalg.solve_ex(matrix, w.unsqueeze(-1).to(matrix.dtype))
        if bool(info.any()):
            raise SingularMetricError(
                f"{type(self).__name__}.solve: M is singular at {int((info != 0).sum())} of {info.numel()} points. "
                "A pulled-back metric is singular where the map squashes a direction; add a small multiple of the "
                "identity if you want a regularised one.",
                info != 0,
            )
        return solution.squeeze(-1).to(w.dtype)

    def logdet(self) -> Float[Tensor, "*b"]:
        """``log |det M|``; minus infinity where ``M`` is singular."""
        return torch.linalg.slogdet(decomposable(self.dense())).logabsdet.to(self.dtype)

    def root(self) -> Float[Tensor, "*b n r"]:
        """A matrix ``R`` with ``M = R Rᵀ``, for a symmetric positive definite ``M``.

        Raises:
            SingularMetricError: ``M`` is not symmetric, or not positive definite at a point.
        """
        matrix = self.dense()
        size = float(matrix.detach().abs().max()) if matrix.numel() else 0.0
        if not torch.allclose(matrix, matrix.mT, rtol=1e-4, atol=1e-6 * size):
            raise SingularMetricError(f"{type(self).__name__}.root: M is not symmetric, so it has no root M = R Rᵀ.")
        factor, info = torch.linalg.cholesky_ex(decomposable(matrix))
        if bool((info != 0).any()):
            raise SingularMetricError(
                f"{type(self).__name__}.root: M is not positive definite at {int((info != 0).sum())} of "
                f"{info.numel()} points, so it has no real root."
            )
        return factor.to(matrix.dtype)

    def pullback(self, J: Jacobian) -> "Metric":
        """``Jᵀ M J``: this metric on the output of a map, pulled back to its input.

        Raises:
            ShapeError: the map does not end in this metric's space.
        """
        return pullback(J, self)

    def pushforward(self, J: Jacobian) -> "Metric":
        """``J M Jᵀ``: this metric on the input of a map, pushed forward to its output.

        Raises:
            ShapeError: the map does not start in this metric's space.
        """
        return self.pullback(J.T)

    def _check(self, where: str, v: Tensor) -> None:
        if v.shape[-1:] != (self.dim,):
            raise ShapeError(
                f"{type(self).__name__}.{where}: expected vectors of shape (*batch, {self.dim}), got {tuple(v.shape)}. "
                "Tangents are flat; did you pass a vector of the other space?"
            )


take_any_tensors(Metric, _OF_TANGENTS)


PullbackRule = Callable[[Any, Any], Metric]
Rule = TypeVar("Rule", bound=PullbackRule)

_rules: dict[tuple[type[Jacobian], type[Metric]], PullbackRule] = {}


def pullback_rule(jacobian: type[Jacobian], metric: type[Metric]) -> Callable[[Rule], Rule]:
    """Register how a kind of metric is pulled back through a kind of Jacobian; subclasses follow unless registered.

    Raises:
        RegistryError: this pair has a rule already.
    """
    if (jacobian, metric) in _rules:
        raise RegistryError(f"pullback_rule: ({jacobian.__name__}, {metric.__name__}) has a rule already.")

    def add(function: Rule) -> Rule:
        _rules[jacobian, metric] = function
        _rule_for.cache_clear()
        return function

    return add


def pullback(J: Jacobian, M: Metric) -> Metric:
    """``Jᵀ M J``: structured where the pair of kinds has a rule, an `Implicit` metric otherwise.

    Raises:
        ShapeError: ``M`` does not live where ``J`` ends.
    """
    if J.signature.n_out != M.dim:
        raise ShapeError(
            f"pullback: J maps to dimension {J.signature.n_out} and M lives in dimension {M.dim}. "
            "A metric is pulled back from the output of the map and pushed forward from its input."
        )
    return _rule_for(type(J), type(M))(J, M)


@lru_cache(maxsize=256)
def _rule_for(jacobian: type[Jacobian], metric: type[Metric]) -> PullbackRule:
    return next(_rules[j, m] for j in jacobian.__mro__ for m in metric.__mro__ if (j, m) in _rules)
