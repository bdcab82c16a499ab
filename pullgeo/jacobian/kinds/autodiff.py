"""The exact fallback for maps without a rule: automatic differentiation with the tangents leading."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pullgeo._torch.checkpoint import checkpoints_kept
from pullgeo._torch.fast_path import fast_path_off
from pullgeo._torch.substitutes import Substituting, Watching
from pullgeo._torch.transforms import vjp
from pullgeo.errors import ModuleError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.boundary import served
from pullgeo.jacobian.contractions import gram
from pullgeo.jacobian.limits import with_limits
from pullgeo.jacobian.reverse import Reverse, refusing
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.tangents import one_thread_at_a_time, over_stack, second_tangent, tangent, tracked

Map = Callable[[Tensor], Tensor]


@contextmanager
def differentiable_kernels(mode: AbstractContextManager[Any] | None = None, once: bool = False) -> Iterator[None]:
    """Attention by kernels with forward mode and second derivatives, and `Substituting` for what else lacks them.

    The choice of kernels is the process's, so that other threads wait.

    Args:
        mode: what substitutes, and may do more; by default `Substituting`.
        once: whether only first derivatives of reverse mode are taken, which faster kernels of attention have too.
    """
    kernels = nullcontext() if once else sdpa_kernel(SDPBackend.MATH)
    with one_thread_at_a_time, fast_path_off(), kernels, Substituting() if mode is None else mode, checkpoints_kept():
        yield


@dataclass(frozen=True, eq=False)
class Autodiff(Jacobian):
    """The derivative of any batched function that treats samples independently.

    Stacks are moved by a ``vmap`` over *tangents only* around one batched ``jvp`` or ``vjp``, so the function sees its
    batch as it is and runs forward once for the whole stack. This also serves modules that fail under a ``vmap`` over
    samples (fixed dimensions in reshapes, recurrent layers).

    Args:
        function: of a batch.
        x: the batch.
        signature: shapes of both.
        switches: whether the function switches gradients off somewhere. What it computes there is constant, of which
            forward mode knows nothing, so tangents are then moved by twice as many backward passes.
        compiled: whether TorchScript runs in it. Tangents are moved by backward passes then, and second derivatives,
            which TorchScript takes for zero, are refused, and so are gradients of products.
        nested: whether the function takes derivatives itself, as forces of an energy, or runs an operator from outside
            of torch. Transforms would see other gradients, so plain reverse mode serves, as it does where transforms
            fail; see `Reverse`.
        widest: bytes of the largest tensor that the function computes, if known.
    """

    function: Map
    x: Float[Tensor, "b *x"]
    signature: Signature
    switches: bool = False
    compiled: bool = False
    nested: bool = False
    widest: int = 0

    @property
    def item_bytes(self) -> int:
        """As of the largest tensor within the function."""
        return max(super().item_bytes, self.widest)

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``J T``. Cost: one forward pass and k tangent passes."""
        backward = self.switches or self.compiled
        moved = self._served(
            lambda: _push(self.function, self.x, T, self.signature.out_shape, backward), lambda run: run.push(T)
        )
        return self._once(moved)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``Jᵀ W``. Cost: one forward pass and k backward passes."""
        return self._once(self._served(lambda: _pull(self.function, self.x, W), lambda run: run.pull(W)))

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """Tangents of the pulled cotangent. Cost: k tangent passes through one backward pass.

        Raises:
            ModuleError: TorchScript runs in the function.
        """
        self._check_second()

        def along(x: Tensor, T: Tensor, w: Tensor) -> Tensor:
            def pulled(x: Tensor) -> Tensor:
                return _pull(self.function, x, w.unsqueeze(0)).squeeze(0)

            return _push(pulled, x, T, self.signature.in_shape, self.switches)

        def transformed() -> Tensor:
            # torch may promote numbers that are batched
            return gram(tracked(along, self.x, T, w).to(T.dtype), T)

        return self._served(transformed, lambda run: run.second(T, w), 0)

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """Tangents of cotangents, transposed. Cost: k times a few backward passes.

        Raises:
            ModuleError: TorchScript runs in the function.
        """
        self._check_second()
        return self._served(
            lambda: _second_push(self.function, self.x, T, S, self.signature.out_shape, self.switches),
            lambda run: run.second_push(T, S),
        )

    def _served(self, transformed: Callable[[], Tensor], reverse: Callable[[Reverse], Tensor], axis: int = 1) -> Tensor:
        def plainly() -> Tensor:
            with differentiable_kernels():
                return reverse(Reverse(self.function, self.x))

        return with_limits(lambda: served(self.function, self.x, transformed, plainly, self.nested), axis)

    def _check_second(self) -> None:
        if self.compiled:
            raise ModuleError(_SCRIPTED)

    def _once(self, moved: Tensor) -> Tensor:
        """A product whose gradient, a second derivative, is refused where it would be wrong."""
        return refusing(moved, ModuleError(_SCRIPTED)) if self.compiled and moved.requires_grad else moved


_SCRIPTED = (
    "Jacobian: what TorchScript has scripted has wrong second derivatives, which geodesics, curvature and gradients "
    "of products need. Use the module or function that was scripted, or a trace of it."
)


def check_connected(function: Map, x: Tensor) -> None:
    """Raise unless autograd finds the way from the value of a function to its argument, for functions that hide it.

    Raises:
        ModuleError: it does not.

    Cost: a forward and a backward pass.
    """

    def checked() -> Tensor:
        with differentiable_kernels():
            run = Reverse(function, x)
            return run.pull(torch.zeros_like(run.y).unsqueeze(0))

    served(function, x, checked, checked, plain=True)


def watched(
    function: Callable[[Tensor], Any], x: Tensor, note: Callable[[Any, Any, Any], None] | None = None
) -> tuple[Any, Watching]:
    """The value of a function, and what forward mode does not know of in it; see `Watching`."""
    watching = Watching(note)
    with watching:
        value = function(x)
    return value, watching


def _push(function: Map, x: Tensor, T: Tensor, out_shape: tuple[int, ...], backward: bool) -> Tensor:
    if len(T) == 0:  # vmap refuses to map over nothing
        return T.new_zeros(0, len(x), *out_shape)

    x = x.view_as(x)  # so that a chunk that is computed again sees it, before transforms wrap it
    with differentiable_kernels():
        return over_stack(lambda t: tangent(function, x, t, backward), T)


def _second_push(function: Map, x: Tensor, T: Tensor, S: Tensor, out_shape: tuple[int, ...], backward: bool) -> Tensor:
    if len(T) == 0:
        return T.new_zeros(0, len(x), *out_shape)

    def twice(x: Tensor, T: Tensor, S: Tensor) -> Tensor:
        return over_stack(lambda t, s: second_tangent(function, x, t, s, backward), T, S)

    with differentiable_kernels():
        return tracked(twice, x, T, S)


def _pull(function: Map, x: Tensor, W: Tensor) -> Tensor:
    x = x.view_as(x)
    with differentiable_kernels():
        pullback = vjp(function, x)[1]
        if len(W) == 1:
            return pullback(W.squeeze(0))[0].unsqueeze(0)
        if len(W) == 0:
            return W.new_zeros(0, *x.shape)
        return over_stack(lambda w: pullback(w)[0], W)
