"""Derivatives by plain reverse mode, ``torch.autograd.grad``, for maps that torch's function transforms cannot run.

Inside a transform tensors have no storage and ``requires_grad_`` is refused. So transforms cannot run packed
sequences, compressed sparse matrices, nested tensors, NumPy, an old-style ``torch.autograd.Function``, or forces that a
``forward`` takes by ``torch.autograd.grad``. A plain backward pass can, and everything else follows from it:

* ``J t`` is the derivative of ``u -> Jᵀ u``, which is linear: a backward pass through the backward pass;
* ``Σ_o w_o ∂²y_o[t, ·]`` is a backward pass through ``Jᵀ w``.

Costs are those of plain reverse mode: one forward pass, and the tangents of a stack one after another.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.grad_mode import is_transformed, own_functions
from pullgeo._torch.without_derivative import NoneConstant
from pullgeo.errors import ModuleError
from pullgeo.jacobian.contractions import flat, gram

Map = Callable[[Tensor], Tensor]
T = TypeVar("T")

UNCONNECTED = (
    "Jacobian: no derivative of the output leads back to what it is differentiated by. What goes through NumPy, "
    ".detach(), .data or .item(), or through torch.autograd.grad without create_graph=True, is lost to autograd. "
    "Compute it by torch operations on the tensors themselves, or give it a torch.autograd.Function of its own."
)

_LACKING = re.compile(r"derivative for '?([\w:.]+)'? is not implemented")
"""What torch says where a backward pass of one of its operations has no derivative."""


def once(y: Tensor, refusal: Exception | None = None) -> ModuleError:
    """The error that says that a map has first derivatives alone, and which operation in it is the cause.

    Args:
        y: the value of the map, with its graph.
        refusal: what torch raised when a backward pass was to be differentiated.
    """
    lacking = _LACKING.search(str(refusal))
    own = ", ".join(own_functions(y))
    if lacking is not None:
        cause = f"torch has no derivative of {lacking[1]}, the backward pass of an operation in it"
        way = "Compute that by other operations of torch."
    elif own:
        cause = (
            f"the backward of a torch.autograd.Function in it ({own}) is marked once_differentiable, or leaves torch, "
            "by NumPy or .detach()"
        )
        way = "Let backward compute with torch operations on what it is given and on ctx.saved_tensors."
    else:
        said = "" if refusal is None else f" ({type(refusal).__name__}: {str(refusal).splitlines()[0][:200]})"
        cause = f"a backward pass in it cannot be differentiated, or is not linear in what it is given{said}"
        way = "Leave out hooks, and forces without create_graph=True."
    return ModuleError(
        "Jacobian: the map can be differentiated once but not twice, as second derivatives need it: Newton's method "
        f"for geodesics, exponentials, curvature and gradients of products. Here {cause}. {way} Geodesics of a decoder "
        "can be had without: manifold.geodesic(z0, z1, GaussNewton())."
    )


@contextmanager
def gradients_on() -> Iterator[None]:
    """Gradients are recorded, whatever mode the caller has chosen, inference mode included."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def ordinary(x: Tensor) -> Tensor:
    """The tensor, or a copy of one that comes from inference mode, which autograd cannot save."""
    return x.clone() if x.is_inference() else x


class Reverse:
    """One run of a map with gradients on, and backward passes through it.

    Answers are differentiable where the caller has gradients on.

    Args:
        function: of a batch that treats samples independently.
        x: the batch.

    Raises:
        ModuleError: the value does not depend on x in a way that autograd sees.
    """

    def __init__(self, function: Map, x: Float[Tensor, "b *x"]) -> None:
        self._refusal: Exception | None = None
        self.keep = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        with gradients_on():
            x = ordinary(x)
            self.x = x.clone() if self.keep and x.requires_grad else x.detach().clone().requires_grad_()
            self.y = function(self.x)
        if not self.y.requires_grad:
            raise ModuleError(UNCONNECTED)

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``J T``, as the transpose of the pull."""
        with gradients_on():
            T = ordinary(T)
            if not len(T):
                return T.new_zeros(0, *self.y.shape)
            moved = self._transposed(T)
            return self._product(self._by_rows(T) if moved is None else moved)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``Jᵀ W``."""
        with gradients_on():
            W = ordinary(W)
            pulled = [self._back(w, self.keep) for w in W]
            return self._product(torch.stack(pulled) if pulled else W.new_zeros(0, *self.x.shape))

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """``Σ_o w_o ∂²y_o[T_i, T_j]``.

        Raises:
            ModuleError: a backward pass in the map cannot be differentiated.
        """
        with gradients_on():
            T, w = ordinary(T), ordinary(w)
            if not len(T):
                return T.new_zeros(len(self.y), 0, 0)
            self._check_twice(T)
            pulled = self._back(w, True)
            return self._answer(gram(torch.stack([_derivative(pulled, self.x, t, self.keep) for t in T]), T))

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``∂²y[T_k, S_k]``: the derivative by a cotangent of what is linear in it.

        Raises:
            ModuleError: a backward pass in the map cannot be differentiated.
        """
        with gradients_on():
            T, S = ordinary(T), ordinary(S)
            if not len(T):
                return T.new_zeros(0, *self.y.shape)
            self._check_twice(T)
            u = self._cotangent()
            pulled = self._back(u, True)
            second_order = [(_derivative(pulled, self.x, t, True) * s).sum() for t, s in zip(T, S, strict=True)]
            one = torch.ones((), dtype=self.x.dtype, device=self.x.device)
            return self._answer(torch.stack([_derivative(value, u, one, self.keep) for value in second_order]))

    def _product(self, value: Tensor) -> Tensor:
        """An answer whose gradient, a second derivative, is refused where it would be raw or wrong."""
        if self.keep and (value.requires_grad or self.x.grad_fn is not None) and own_functions(self.y):
            refusal = self.refusal()
            if refusal is not None:
                return refusing(value, refusal, self.x)
        return self._answer(value)

    def refusal(self) -> ModuleError | None:
        """Why the map cannot be differentiated twice, if it cannot."""
        with gradients_on():
            T = torch.ones_like(self.x).detach().unsqueeze(0)
            return once(self.y, self._refusal) if self._transposed(T) is None else None

    def _answer(self, value: Tensor) -> Tensor:
        return value if self.keep else value.detach()

    def _back(self, w: Tensor, keep: bool) -> Tensor:
        pulled = torch.autograd.grad(self.y, self.x, w, retain_graph=True, create_graph=keep, allow_unused=True)[0]
        if pulled is None:
            raise ModuleError(UNCONNECTED)
        return pulled if pulled.layout is torch.strided else pulled.to_dense()

    def _cotangent(self) -> Tensor:
        """A cotangent to differentiate by; no entry is zero, so that it serves as a test too."""
        n = self.y.numel()
        waves = torch.cos(torch.arange(n, dtype=torch.float64, device=self.y.device))
        return waves.to(self.y.dtype).reshape(self.y.shape).requires_grad_()

    def _transposed(self, T: Tensor) -> Tensor | None:
        """``J T`` by a backward pass through the backward pass; None where that is no transpose.

        A backward that leaves torch on its way still returns a value, from which parts are missing. They are missed:
        ``⟨J t, u⟩ = ⟨t, Jᵀ u⟩``.
        """
        u = self._cotangent()
        try:
            pulled = self._back(u, True)
            moved = torch.stack([_derivative(pulled, u, t, self.keep) for t in T])
        except (
            RuntimeError,
            ModuleError,
        ) as refusal:  # it cannot be differentiated twice, or it comes again row by row
            self._refusal = refusal
            return None
        left, right = flat(moved * u.detach()), flat(T * pulled.detach())
        allowed = torch.finfo(self.y.dtype).eps ** 0.5 * (left.abs().sum(-1) + right.abs().sum(-1))
        transposed = (left.sum(-1) - right.sum(-1)).abs() <= allowed
        return moved if bool((transposed | ~torch.isfinite(right.sum(-1))).all()) else None

    def _by_rows(self, T: Tensor) -> Tensor:
        """``J T`` from the rows of ``J``. Cost: a backward pass for each output."""
        shape, tangents = self.y.shape, flat(T)
        n, moved = shape[1:].numel(), []
        for o in range(n):
            w = self.y.new_zeros(shape[0], n)
            w[:, o] = 1
            row = flat(self._back(w.reshape(shape), self.keep).unsqueeze(0))
            moved.append((tangents * row).sum(-1))
        return torch.stack(moved, -1).reshape(len(T), *shape) if moved else T.new_zeros(len(T), *shape)

    def _check_twice(self, T: Tensor) -> None:
        if len(T) and self._transposed(T[:1]) is None:
            raise once(self.y, self._refusal) from self._refusal


def guarded(function: Callable[[Tensor], T], x: Float[Tensor, "b *x"], tensor: Callable[[T], Tensor]) -> T:
    """``function(x)``, which refuses second derivatives by ``x`` where torch's own would fail, or be wrong.

    Args:
        function: of a batch that treats samples independently.
        x: the batch.
        tensor: what is differentiated in what the function returns.

    Raises:
        ModuleError: when a derivative of a derivative is taken, and a backward in the function has none; or the
            function calls one of torch's that has no derivative at all.

    Cost: a look at the graph; where there is a ``torch.autograd.Function`` in it, four passes through the function.
    """
    with NoneConstant():
        value = function(x)
    y = tensor(value)
    if is_transformed() or not (x.requires_grad and y.requires_grad) or not own_functions(y, x):
        return value
    with torch.no_grad():
        refusal = Reverse(lambda x: tensor(function(x)), x.detach()).refusal()
    return value if refusal is None else function(_First.apply(x, refusal))


class _First(torch.autograd.Function):
    """A tensor by which one can differentiate once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, error: ModuleError) -> Tensor:
        """The same."""
        ctx.error = error
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The same, which refuses if somebody goes on."""
        again = torch.is_grad_enabled()
        return refusing(gradients[0], ctx.error, *ctx.saved_tensors) if again else gradients[0], None


def refusing(value: Tensor, error: ModuleError, of: Tensor | None = None) -> Tensor:
    """The same tensor, which raises an error when it is differentiated.

    Args:
        value: the tensor.
        error: what to raise.
        of: what it depends on, if that may not show in its graph: a backward that leaves torch returns constants.
    """
    refused: Tensor = _Refused.apply(value, error, of)
    return refused


class _Refused(torch.autograd.Function):
    """A tensor that cannot be differentiated."""

    @staticmethod
    def forward(moved: Tensor, error: ModuleError, of: Tensor | None) -> Tensor:
        """The same."""
        return moved.view_as(moved)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the error."""
        ctx.error = inputs[1]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], moved: Tensor, error: ModuleError, of: Any) -> tuple[Tensor, Any]:
        """The same of all."""
        return refusing(moved, error, of), in_dims[0]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, None]:
        """Refuse."""
        raise ctx.error

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        """Refuse."""
        raise ctx.error


def _derivative(value: Tensor, by: Tensor, along: Tensor, keep: bool) -> Tensor:
    """The cotangent ``along`` of a value pulled to what it depends on; zeros if it does not."""
    if not value.requires_grad:
        return torch.zeros_like(by)
    pulled = torch.autograd.grad(value, by, along, retain_graph=True, create_graph=keep, allow_unused=True)[0]
    if pulled is None:
        return torch.zeros_like(by)
    return pulled if pulled.layout is torch.strided else pulled.to_dense()
